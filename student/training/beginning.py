"""Beginning: the network that a student is before its first step, and what else it has of the
weights in `init`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from student.training.checkpoint import Checkpoint
from student.training.config import SCRATCH, TrainConfig
from student.training.students import STUDENTS
from teachers.checkpoints.cache import cached_checkpoint
from teachers.checkpoints.files import LICENCE, read_metadata, stored_rule
from teachers.errors import CheckpointError
from teachers.published import OWN_LICENCE
from teachers.registry import entry_of, names


def first_network(config: TrainConfig) -> nn.Module:
    """The network before its first step, on the CPU."""
    student, data = STUDENTS[config.student], config.data
    if config.init == SCRATCH:
        return student.from_scratch(
            config.preset, data.frames, (data.height, data.width), config.seed
        )
    return student.from_file(weights_file(config.init), config.preset)


def weights_file(init: str) -> str:
    """The file with the weights that `init` names: the file itself, or for the name of a teacher
    the one that this package ships or `tapdistill teachers pull` got.

    Raises:
        CheckpointError: the weights of that teacher are not here.
    """
    if Path(init).is_file() or init not in names():
        return init
    found = entry_of(init).shipped_checkpoint or cached_checkpoint(init)
    if found is None:
        raise CheckpointError(
            f"init = {init!r}: the weights of that teacher are not here: get them with `tapdistill "
            f"teachers pull {init}`, or give a file."
        )
    return str(found)


@dataclass(frozen=True)
class Origin:
    """What a student has, besides weights, of those that it began with."""

    licence: str = OWN_LICENCE
    """That of what is trained from them."""
    rule: str = ""
    """The visible rule that was calibrated for them; empty if none was."""


def origin(config: TrainConfig, found: Checkpoint | None) -> Origin:
    """As the checkpoint says, if there is one: the file in `init` may be gone by then."""
    if found and found.origin:
        return Origin(**found.origin)
    if config.init == SCRATCH:
        return Origin()
    file = weights_file(config.init)
    return Origin(_licence(config.init, file), str(stored_rule(file) or ""))


def _licence(init: str, file: str) -> str:
    stored = read_metadata(file).get(LICENCE)
    if stored is not None:
        return stored
    if init in names():
        return entry_of(init).licence
    return f"that of {Path(init).name}, from which it was trained"
