"""Trackers as the command line names them: a teacher, a teacher with a checkpoint, or a checkpoint
alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import teachers
from teachers import CheckpointError, ConfigError, Mode, Teacher
from teachers.checkpoints.cache import SUFFIXES
from teachers.checkpoints.recognise import recognise
from teachers.info import Precision
from teachers.loading import compiled_setting


def load_tracker(
    text: str,
    device: str = "auto",
    mode: Mode = "predictor",
    settings: Mapping[str, Any] | None = None,
    *,
    precision: Precision = "auto",
    compiled: bool = False,
    flag: str = "--model",
) -> Teacher:
    """The tracker that `flag` means: see `name_and_checkpoint`; with `compiled`, its parts are
    compiled if it has such parts.

    Raises:
        ConfigError: no such name. CheckpointError: no such file, or not of that network.
    """
    name, checkpoint = name_and_checkpoint(text, flag)
    return teachers.load(
        name,
        checkpoint=checkpoint,
        device=device,
        mode=mode,
        precision=precision,
        **(settings or {}),
        **compiled_setting(compiled, name, checkpoint),
    )


def name_and_checkpoint(text: str, flag: str = "--model") -> tuple[str, str | None]:
    """What "NAME", "NAME=CHECKPOINT", or a file whose network can be recognised stands for."""
    if text in teachers.names():
        return text, None
    if Path(text).is_file():  # before what follows, as its path may hold a "="
        return recognise(text), text
    name, separator, file = text.partition("=")
    if separator:
        return name, file
    if ":" in name:
        return name, None
    if not Path(text).suffix:
        raise ConfigError(
            f"{flag} {text}: there are {', '.join(teachers.names())}; or give a file, or "
            "NAME=CHECKPOINT."
        )
    raise CheckpointError(f"{flag} {text}: no such checkpoint file.")


def titles(trackers: Sequence[tuple[str, str | None]], flag: str = "--model") -> list[str]:
    """What trackers are called in tables, above pictures, and in the names of files.

    A tracker without a checkpoint of its own is called by its name, any other also by that of its
    file: `tapir-student`. A file whose name begins with that of the tracker needs no more, and
    where two have one name, their folders tell them apart: `tapir-round1-student`.

    Args:
        trackers: the name of each, and its checkpoint or None.

    Raises:
        ConfigError: two cannot be told apart.
    """
    told = [_title(name, checkpoint, 1) for name, checkpoint in trackers]
    for parts in count(2):
        alike = {title for title in told if told.count(title) > 1}
        longer = [
            _title(name, checkpoint, parts) if title in alike else title
            for title, (name, checkpoint) in zip(told, trackers, strict=True)
        ]
        if longer == told:
            break
        told = longer
    if alike:
        given = ", ".join(checkpoint or name for name, checkpoint in trackers)
        raise ConfigError(
            f"{flag}: {given} would be called {', '.join(told)}: name each tracker once, and give "
            "files different names."
        )
    return told


def _title(name: str, checkpoint: str | None, parts: int) -> str:
    """`titles` of one, with as many parts of the file's path."""
    if checkpoint is None:
        return name
    path = Path(checkpoint)
    if path.suffix in SUFFIXES:
        path = path.with_suffix("")
    *folders, file = [part for part in path.parts if part != path.anchor][-parts:]
    words = [*folders, file] if file.startswith(name) else [name, *folders, file]
    return "-".join(words)
