"""Ray's environment: what it needs on this machine, which is folders that it may write to, and
workers that find our packages. This module does not import Ray."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from labeler.io.scratch import prefix
from teachers import ConfigError

PACKAGES = ("teachers", "labeler", "student", "pipelines")
LONGEST_TMPDIR = 40
"""The most letters in the path of the folder in which Ray makes its sockets: it adds 62 to 67."""


def give_folders() -> None:
    """Make sure that Ray can start here. It keeps files in the home folder, and sockets, whose
    paths may have 107 letters, below RAY_TMPDIR or TMPDIR.

    Raises:
        ConfigError: no folder for the sockets can be written; the message says what to set.
    """
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)):
        os.environ["HOME"] = tempfile.mkdtemp(prefix=prefix())
    wanted = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    for folder in (wanted, "/tmp", "/dev/shm"):
        below = Path(folder, "ray")
        place = below if below.is_dir() else Path(folder)
        if len(folder) <= LONGEST_TMPDIR and os.access(place, os.W_OK | os.X_OK):
            if folder != wanted:
                os.environ["RAY_TMPDIR"] = folder
            return
    raise ConfigError(
        f"Ray cannot keep its sockets in {wanted}: it must be a folder that this user may write "
        f"in, of {LONGEST_TMPDIR} letters at most. Set RAY_TMPDIR to one, or use --engine local."
    )


def own_packages_first() -> dict[str, Any]:
    """A runtime environment in which workers import our packages rather than those in the driver's
    current folder, which Ray puts first on their path; {} if that folder has no package of these
    names."""
    here, root = Path.cwd(), Path(__file__).resolve().parents[2]
    taken = any((here / file).exists() for name in PACKAGES for file in (name, f"{name}.py"))
    if here == root or not taken:
        return {}
    packages, folder = PACKAGES, str(here)

    # pickled by value, like every nested function: a worker imports none of our code before it runs
    def import_ours() -> None:
        import importlib
        import sys

        path = sys.path[:]
        sys.path[:] = [entry for entry in path if entry not in ("", folder)]
        for name in packages:
            importlib.import_module(name)
        sys.path[:] = path

    return {"worker_process_setup_hook": import_ours}
