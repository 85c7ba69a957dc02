"""Checkpoints: weights from a file into a network, all of them or none.

Reads `.safetensors`, and `.pth` / `.pt` with `weights_only=True`, so a file can hold tensors but no code. The wrappings of training
scripts are taken off: a dict with the weights under "model" or "state_dict", and the "module." that data-parallel training puts
in front of every key. Then every key and every shape must be the network's.

A file that this project wrote says in its metadata which teacher it is for and how large the network is, so both need no flag.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from teachers.errors import CheckpointError

WRAPPINGS = ("model", "state_dict", "model_state_dict")
PREFIX = "module."
SHOWN = 3
"""How many keys an error names."""

Config = TypeVar("Config")

TEACHER = "teacher"
"""Key of the metadata: name of the teacher that the weights are for."""
CONFIG = "config"
"""Key of the metadata: fields of the network's config, as JSON."""
LICENCE = "licence"
"""Key of the metadata: licence of the weights."""


def load_weights(model: nn.Module, path: str | Path, name: str) -> str:
    """Load the file at `path` strictly into `model`.

    Args:
        name: of the teacher, for the error's text.

    Returns:
        The sha256 of the file.

    Raises:
        CheckpointError: no such file, not a checkpoint, or not one of this network; the message names the first keys that differ.
    """
    weights = read_weights(path)
    own = model.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [
        f"{key} is {list(weights[key].shape)} where the network has {list(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if missing or unexpected or reshaped:
        differences = [
            f"{len(found)} of {total} keys {what} ({_first(found)})"
            for found, total, what in (
                (missing, len(own), "are missing"),
                (unexpected, len(weights), "are unexpected"),
                (reshaped, len(own), "have another shape"),
            )
            if found
        ]
        raise CheckpointError(
            f"{path}: not a checkpoint of {name!r}: {'; '.join(differences)}. Give the file that belongs to {name!r}, or name the "
            "teacher that the file belongs to (`tapdistill teachers`)."
        )
    model.load_state_dict(weights)
    return file_sha256(path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by key, on the CPU, without wrappings; a CheckpointError if the file holds anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read as tensors alone ({_sentence(error)}). Files with pickled code are refused; "
            "save the state dict, or convert the file to .safetensors where you trust it."
        ) from error
    for wrapping in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: holds no state dict: a dict of tensors is needed, at the top or under one of {', '.join(WRAPPINGS)}."
        )
    return {str(key).removeprefix(PREFIX): value for key, value in content.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a `.safetensors` file says of itself; empty for every other file, and for one that does not exist or is damaged."""
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def stored_config(path: str | Path, default: Config) -> Config:
    """Sizes of the network whose weights are in a file: what its metadata says, or else `default`; both of one dataclass.

    Raises:
        CheckpointError: the metadata is of another architecture or version.
    """
    stored = read_metadata(path).get(CONFIG)
    if stored is None:
        return default
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(stored).items()}
        return type(default)(**values)
    except (ValueError, TypeError, AttributeError) as error:
        network = type(default).__name__.removesuffix("Config")
        raise CheckpointError(f"{path}: its metadata does not describe a {network} network ({error}).") from error


def file_sha256(path: str | Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(keys: Iterable[str]) -> str:
    keys = list(keys)
    return "first: " + ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
