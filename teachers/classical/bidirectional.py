"""Bidirectional: what trackers without weights share, which take no checkpoint, and go forwards and
backwards from the frame of each query.

Trackers that can only step from a frame to its neighbour walk through the clip twice, to its end
and back to its start. A query joins the walk at its own frame, so the queries of all frames are
stepped together, and none depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from teachers.classical.settings import ClassicalSettings
from teachers.errors import ConfigError
from teachers.info import Mode, TeacherInfo
from teachers.interface import Teacher, checked_settings
from teachers.published import OWN_LICENCE
from teachers.tracks import VisibleRule

RULE = VisibleRule("v", 0.5)
"""When a point counts as visible, whatever the mode."""

PATCH_ALIGNMENT = "patch-alignment"
"""The evidence of trackers that locate a point where the patch around its query fits."""


VELOCITY_KEPT = 0.7
"""The share of a lost point's velocity that is left after one frame."""


class ClassicalTeacher(Teacher):
    """A tracker without weights. It tracks every frame, in the same way in every mode."""

    licence = OWN_LICENCE
    architecture: ClassVar[str]
    settings_type: ClassVar[type[ClassicalSettings]]
    """The settings of this teacher, with defaults, checked when made."""
    settings: Any
    """An instance of `settings_type`."""

    def __init__(
        self,
        *,
        name: str,
        mode: Mode = "predictor",
        checkpoint: str | None = None,
        device: str = "auto",
        **settings: Any,
    ) -> None:
        """Arguments are as for `teachers.load`; a ConfigError if weights are given, or a setting
        that does not exist."""
        self.settings = checked_settings(self.settings_type, settings, name)
        if checkpoint is not None:
            raise ConfigError(
                f"{checkpoint}: teacher {name!r} ({self.architecture}) has no weights: leave "
                "`checkpoint` out."
            )
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture,
            mode=mode,
            visible_rule=str(RULE),
            settings=asdict(self.settings),
        )


def from_query_frame(
    query_frames: np.ndarray,  # [N] whole numbers
    frames: int,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Steps (from frame, to frame, indices of the queries that take it); steps that no query takes
    are left out."""
    for t in range(frames - 1):
        rows = np.flatnonzero(query_frames <= t)
        if len(rows):
            yield t, t + 1, rows
    for t in range(frames - 1, 0, -1):
        rows = np.flatnonzero(query_frames >= t)
        if len(rows):
            yield t, t - 1, rows
