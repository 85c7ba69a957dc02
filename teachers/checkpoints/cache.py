"""The cache of checkpoints: one file for each teacher, `<folder>/<teacher>.<suffix>`, and a
receipt, `<folder>/<teacher>.json`.

The folder is `$TAPDISTILL_HOME/weights`, or else `tapdistill/weights` in the user's cache, which is
`$XDG_CACHE_HOME` or `~/.cache`, and on macOS `~/Library/Caches`.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".npz")
"""Suffixes that a checkpoint may have."""


def weights_folder() -> Path:
    """The folder where `tapdistill teachers pull` puts checkpoints; it need not exist yet."""
    home = os.environ.get("TAPDISTILL_HOME")
    if home:
        return Path(home).expanduser() / "weights"
    return platformdirs.user_cache_path("tapdistill") / "weights"


def checkpoint_path(name: str, suffix: str) -> Path:
    """Where the checkpoint of teacher `name` belongs; `suffix` is one of `SUFFIXES`."""
    return weights_folder() / f"{name}{suffix}"


def receipt_path(name: str) -> Path:
    """The receipt, which records what was pulled for teacher `name`, and from where."""
    return weights_folder() / f"{name}.json"


def cached_checkpoint(name: str) -> Path | None:
    """The checkpoint of teacher `name` that was pulled, or None."""
    files = (checkpoint_path(name, suffix) for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)
