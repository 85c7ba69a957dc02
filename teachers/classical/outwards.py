"""What the trackers without weights share: no checkpoint, the walk outwards, visibility from an
error.

Trackers that only know how to go from a frame to its neighbour walk the clip twice, to its end and
back to its start. A query joins the walk at its own frame, so queries of all frames are stepped
together, and none depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from teachers.errors import ConfigError
from teachers.interface import Mode, TeacherInfo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VISIBLE_RULE = "v > 0.5"


def classical_info(
    *, name: str, checkpoint: str | None, mode: Mode, architecture: str, settings: DataclassInstance
) -> TeacherInfo:
    """The `info` of a teacher without weights; a ConfigError if weights are given. Every mode
    tracks every frame, alike."""
    if checkpoint is not None:
        raise ConfigError(
            f"{checkpoint}: teacher {name!r} ({architecture}) has no weights: leave `checkpoint` "
            "out."
        )
    return TeacherInfo(
        name=name,
        architecture=architecture,
        mode=mode,
        visible_rule=VISIBLE_RULE,
        licence="Apache-2.0 (OpenCV inside)",
        settings=asdict(settings),
    )


def require_positive(settings: DataclassInstance) -> None:
    """A ConfigError unless every setting is above 0."""
    for name, value in asdict(settings).items():
        if not value > 0:
            raise ConfigError(f"{name} = {value}: must be above 0.")


def outwards(
    query_frames: np.ndarray,  # [N] whole numbers
    frames: int,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Steps (from frame, to frame, indices of the queries that take it); steps that nobody takes
    are left out."""
    for t in range(frames - 1):
        rows = np.flatnonzero(query_frames <= t)
        if len(rows):
            yield t, t + 1, rows
    for t in range(frames - 1, 0, -1):
        rows = np.flatnonzero(query_frames >= t)
        if len(rows):
            yield t, t - 1, rows


def graded(
    error: np.ndarray,  # [n] >= 0
    limit: np.ndarray | float,  # [n] > 0
) -> np.ndarray:  # [n] in [0, 1]
    """Visibility from an error: 1 without error, 1/2 at the limit, 1/16 at twice the limit."""
    return np.exp2(-np.square(error / limit))


def inside(xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [n]: which points [n, 2] lie in the frame."""
    x, y = xy[:, 0], xy[:, 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
