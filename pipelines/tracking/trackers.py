"""Trackers as the command line names them: a teacher, a teacher with a checkpoint, or a checkpoint
alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import teachers
from teachers import CheckpointError, ConfigError, Mode, Teacher
from teachers.checkpoints.recognise import recognise
from teachers.info import Precision


def load_tracker(
    text: str,
    device: str = "auto",
    mode: Mode = "predictor",
    settings: Mapping[str, Any] | None = None,
    *,
    precision: Precision = "auto",
    flag: str = "--model",
) -> Teacher:
    """The tracker that `flag` means: see `name_and_checkpoint`.

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
