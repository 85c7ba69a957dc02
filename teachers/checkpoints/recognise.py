"""Recognise: which teacher a checkpoint file belongs to, by what it says itself, or by its keys,
shapes, and name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from teachers.checkpoints.architectures import configs, weightless
from teachers.checkpoints.files import TEACHER, differences, read_metadata, read_weights
from teachers.errors import CheckpointError
from teachers.registry import VERIFIERS, TeacherEntry, entries, left_out


def recognise(path: str | Path) -> str:
    """Name of the teacher that the file names, or whose official network its keys and shapes fit.

    If several fit, it is the one whose published file has this file's name. Otherwise, if they are
    one network, such as the CoTracker3s before and after training on real video, it is the first
    one in the table.

    Raises:
        CheckpointError: there is no such file, it holds no weights, or they fit no network
                that is known here, or two.
    """
    stored = read_metadata(path).get(TEACHER)
    if stored is not None:
        return stored
    weights = read_weights(path)
    fitting = _fitting(weights, entries())
    if verifiers := _fitting(weights, VERIFIERS):
        raise CheckpointError(
            f"{path}: is the file of {verifiers[0].name!r}, which judges the tracks of teachers "
            "and makes none: it cannot be named as a teacher."
        )
    if not fitting:
        raise CheckpointError(
            f"{path}: does not say which network it is of, and its keys and shapes are not those "
            f"of any: write NAME={path} with its NAME (`tapdistill teachers` lists them)."
        )
    named = [entry for entry in fitting if entry.file and entry.file.file == Path(path).name]
    if not named and len({entry.factory for entry in fitting}) > 1:
        raise CheckpointError(
            f"{path}: its keys and shapes are those of "
            f"{' and of '.join(entry.name for entry in fitting)}: write NAME={path} with the right "
            "NAME."
        )
    return (named or fitting)[0].name


def _fitting(weights: dict[str, Tensor], among: Iterable[TeacherEntry]) -> list[TeacherEntry]:
    fitting = []
    for entry in among:
        with left_out(entry.name):
            config = configs(entry.name).get("official")
            if config is not None and not differences(
                weights, weightless(entry.name, config).state_dict()
            ):
                fitting.append(entry)
    return fitting
