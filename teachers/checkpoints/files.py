"""Checkpoint files: weights from a file into a network, all of them or none.

This reads safetensors, torch's own files with `weights_only=True`, and numpy's npz without pickles,
so a file can hold tensors but no code; the format is recognised by the content. What training
scripts wrap around the weights is removed: a dict with the weights under "state_dict" or "model"
(Lightning and most others), and the prefixes that Lightning ("model."), data-parallel training
("module."), and `torch.compile` put before every key. After that, every key and every shape must be
that of the network.

A file written by this project states in its metadata which teacher it is for and how large the
network is, so neither needs a flag.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from teachers.checkpoints.architectures import teachers_with
from teachers.checkpoints.cache import checkpoint_path
from teachers.errors import CheckpointError, ConfigError
from teachers.hashing import file_sha256
from teachers.licences import in_words
from teachers.published import FORMS, WeightsFile
from teachers.tracks import VisibleRule

WRAPPINGS = ("state_dict", "model", "model_state_dict", "model_state", "ema_state_dict")
PREFIXES = ("module.", "model.", "_orig_mod.", "tapnext.")
SHOWN = 3
"""How many keys an error message names."""

Config = TypeVar("Config")

TEACHER = "teacher"
"""Key of the metadata: name of the teacher that the weights are for."""
CONFIG = "config"
"""Key of the metadata: fields of the network's config, as JSON."""
LICENCE = "licence"
"""Key of the metadata: licence of the weights."""
VISIBLE = "visible_rule"
"""Key of the metadata: when a point counts as visible, if that was calibrated for these weights; as
the text of a `VisibleRule`."""


def load_weights(model: nn.Module, path: str | Path, name: str) -> str:
    """Load the file at `path` strictly into `model`.

    Args:
        name: of the teacher, for the error's text.

    Returns:
        The sha256 of the file.

    Raises:
        CheckpointError: no such file, not a checkpoint, or not one of this network; the message
            names the first keys that differ.
    """
    weights = read_weights(path)
    if wrong := differences(weights, model.state_dict()):
        raise wrong_network(path, name, weights, wrong)
    model.load_state_dict(weights)
    return file_sha256(path)


def no_weights(name: str, published: WeightsFile) -> CheckpointError:
    """The error for a teacher that is made without a checkpoint although none was pulled."""
    return CheckpointError(
        f"teacher {name!r} has no weights: get its file from {published.url or published.page} "
        f"(licence: {in_words(published.licence)}) with "
        f"`tapdistill teachers pull {name}`, or put it at {checkpoint_path(name, '.pt')}, or give "
        "it as `--checkpoint FILE`. `--checkpoint random` takes untrained weights, for tests only."
    )


def differences(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How a file's tensors differ from those of a network, by key and shape; empty if they do
    not."""
    reshaped = [
        f"{key} is {list(weights[key].shape)} where the network has {list(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    kinds = (
        ([key for key in own if key not in weights], len(own), "are missing"),
        ([key for key in weights if key not in own], len(weights), "are unexpected"),
        (reshaped, len(own), "have another shape"),
    )
    return "; ".join(
        f"{len(found)} of {total} keys {what} ({_first(found)})"
        for found, total, what in kinds
        if found
    )


def wrong_network(
    path: str | Path, name: str, weights: Mapping[str, Tensor], wrong: str
) -> CheckpointError:
    """The error for a file whose keys are not those of teacher `name`: `wrong` says how they
    differ, and the message adds whose they are."""
    likely = teachers_with({key: tuple(value.shape) for key, value in weights.items()})
    if repr(name) in likely:
        whose = f"It looks like a file of {name!r} that was changed or is incomplete: "
    elif likely:
        whose = f"It looks like a file of {' or '.join(likely)}: name that one, or "
    else:
        whose = "No teacher here has such keys: "
    return CheckpointError(
        f"{path}: not a checkpoint of {name!r}: {wrong}. {whose}get the file that belongs to "
        f"{name!r} (`tapdistill teachers pull {name}`)."
    )


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by key, on the CPU, with wrappers removed; a CheckpointError if the file holds
    anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    try:
        content: Any = _reader(path)(path)
    except (*DAMAGE, OSError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read as tensors alone: {_reason(path, error)}. "
            "Files with pickled code are refused; save the state dict, or convert the file to "
            ".safetensors where you trust it."
        ) from error
    while isinstance(content, dict) and (
        inner := next((content[key] for key in WRAPPINGS if _is_dict(content.get(key))), None)
    ):
        content = inner
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CheckpointError(
            f"{path}: holds no state dict: a dict of tensors is needed, at the top or under one of "
            f"{', '.join(WRAPPINGS)}."
        )
    weights = _without_prefixes({str(key): value for key, value in content.items()})
    for form in FORMS:
        module, _, function = form.partition(":")
        weights = getattr(importlib.import_module(module), function)(weights)
    return weights


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for every other file, and for one that does not
    exist or is damaged."""
    try:
        if not is_safetensors(Path(path)):
            return {}
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def stored_config(path: str | Path, default: Config) -> Config:
    """The sizes of the network whose weights are in a file: those in its metadata, or else
    `default`, which is of the same dataclass.

    Raises:
        CheckpointError: the metadata is of another architecture or version.
    """
    stored = read_metadata(path).get(CONFIG)
    if stored is None:
        return default
    try:
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(stored).items()
        }
        return type(default)(**values)
    except (ValueError, TypeError, AttributeError) as error:
        network = type(default).__name__.removesuffix("Config")
        raise CheckpointError(
            f"{path}: its metadata does not describe a {network} network ({error})."
        ) from error


def stored_rule(path: str | Path) -> VisibleRule | None:
    """The visible rule that was calibrated for the weights in a file; None if there is none.

    Raises:
        CheckpointError: the metadata name something else.
    """
    stored = read_metadata(path).get(VISIBLE)
    try:
        return None if stored is None else VisibleRule.parse(stored)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its metadata name no visible rule: {error}") from error


def _reader(path: Path) -> Callable[[Path], Any]:
    if is_safetensors(path):
        return load_file
    return _load_npz if is_npz(path) else _load_torch


def _load_torch(path: Path) -> Any:
    # given a name, torch would judge by its suffix
    with path.open("rb") as file, warnings.catch_warnings():
        # warnings about unusual pickles, which are read or refused anyway
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _load_npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def is_npz(path: Path) -> bool:
    """Whether a file is numpy's npz: a zip of .npy members. Torch's files are zips of others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors: it begins with the length of a header of JSON, and the
    header."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    AssertionError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file may raise: a torch file is a pickle, and a broken pickle can fail in
any of these ways."""

WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)


def _reason(path: Path, error: BaseException) -> str:
    """Why a file could not be read, in a few words."""
    start = path.read_bytes()[:64] if path.stat().st_size < 2**20 else b""
    if WEB_PAGE.match(start) or path.stat().st_size == 0:
        return "it is a web page, as servers send instead of a file" if start else "it is empty"
    if isinstance(error, pickle.UnpicklingError) and (
        wanted := re.search(r"(?:GLOBAL|Unsupported class|global) (\S+)", str(error))
    ):
        return f"it wants to run code ({wanted[1]})"
    if isinstance(error, (pickle.UnpicklingError, EOFError)):
        return "it is not a file of torch or safetensors, or it is damaged"
    if "zip archive" in str(error) or isinstance(error, SafetensorError):
        return f"it is damaged or cut off ({_sentence(error)})"
    return _sentence(error)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without the prefix that a wrapper put before all of them."""
    while prefix := next(
        (prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in weights)), None
    ):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _first(found: list[str]) -> str:
    return "first: " + ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
