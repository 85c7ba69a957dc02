"""Students: those that can be trained, by the name that `--student` takes, and the weights from
which they start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from student.training.cotracker import COTRACKERS
from student.training.interface import Student
from student.training.locotrack import LOCOTRACKS
from student.training.tapir import TAPIRS
from teachers.checkpoints.cache import cached_checkpoint
from teachers.checkpoints.files import LICENCE, read_metadata, stored_rule
from teachers.errors import CheckpointError
from teachers.registry import entry_of, names
from teachers.tracks import VisibleRule

Kind = Literal[
    "offline",
    "online",
    "tapir",
    "bootstapir",
    "bootstapir-causal",
    "locotrack-base",
    "locotrack-small",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

STUDENTS: Mapping[str, Student] = {**COTRACKERS, **TAPIRS, **LOCOTRACKS}


def weights_file(init: str) -> str:
    """The file with the weights that `init` names: the file itself, or for the name of a teacher
    the one that this package ships or `tapdistill teachers pull` got.

    Raises:
        CheckpointError: the weights of that teacher are not here.
    """
    if Path(init).exists() or init not in names():
        return init
    found = entry_of(init).shipped_checkpoint or cached_checkpoint(init)
    if found is None:
        raise CheckpointError(
            f"init = {init!r}: the weights of that teacher are not here: get them with `tapdistill "
            f"teachers pull {init}`, or give a file."
        )
    return str(found)


def rule_of(init: str) -> VisibleRule | None:
    """The visible rule that was calibrated for the weights that `init` names, if there is one."""
    return stored_rule(weights_file(init))


def licence_of(init: str) -> str:
    """The licence of the weights that `init` names, and thus of what is trained from them."""
    stored = read_metadata(weights_file(init)).get(LICENCE)
    if stored is not None:
        return stored
    if init in names():
        return entry_of(init).licence
    return f"that of {Path(init).name}, from which it was trained"
