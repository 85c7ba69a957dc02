"""Teachers that stand still: "benchmarks.harness.teachers:Still" and so on, for whatever is
measured or tested around teachers."""

from __future__ import annotations

from typing import Any

import numpy as np

from teachers import Mode, Teacher, TeacherInfo, Tracks


class Still(Teacher):
    """Every point stays where it was asked for, and is always seen."""

    shift_px = 0.0

    def __init__(
        self, *, name: str, checkpoint: str | None, device: str, mode: Mode, **settings: Any
    ) -> None:
        self.info = TeacherInfo(
            name=name,
            architecture="stub",
            mode=mode,
            visible_rule="v > 0.5",
            licence="none",
            checkpoint_sha256=checkpoint,
            settings={"scales": (1, 2), **settings},
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        n, t = len(queries), len(frames)
        xy = np.repeat(queries[:, None, 1:] + np.float32([self.shift_px, 0]), t, axis=1)
        return Tracks(xy, np.ones((n, t), np.float32), np.full((n, t), np.nan, np.float32))


class Near(Still):
    """Agrees with `Still`: a quarter of a pixel to its right."""

    shift_px = 0.25
