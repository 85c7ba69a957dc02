"""Teachers that do one plain thing each, for tests of everything around teachers:
"benchmarks.harness.teachers:Still" and so on.

Each is called as the factory of a teacher is; their tracks are known by hand.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.harness.teachers import Still
from teachers import TeacherError, Tracks
from teachers.stream import Stream

FEW_FRAMES = 12
"""`NeedsLongClips` cannot track a clip of fewer frames."""
LATE_FRAMES = 5
"""`Live` holds so many frames back."""


class Far(Still):
    """Never agrees with `Still`."""

    shift_px = 30.0


class Drawn(Still):
    """Moves each point by what it draws from the seed."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        still = super()._track(frames, queries, seed)
        return Tracks(
            still.xy + np.random.default_rng(seed).normal(size=still.xy.shape),
            still.visibility,
            still.confidence,
        )


class NeedsLongClips(Still):
    """Cannot track a clip of fewer than `FEW_FRAMES` frames."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        if len(frames) < FEW_FRAMES:
            raise TeacherError(f"{len(frames)} frames are too few for me.")
        return super()._track(frames, queries, seed)


class Slow(Still):
    """Takes a third of a second for a clip, so that a job can be interrupted in the middle."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        time.sleep(0.3)
        return super()._track(frames, queries, seed)


class Uneven(Still):
    """Takes eighty times as long for a clip of fewer than `FEW_FRAMES` frames."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        time.sleep(8.0 if len(frames) < FEW_FRAMES else 0.1)
        return super()._track(frames, queries, seed)


class Untrained(Still):
    """Random weights: may never label."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{**arguments, "checkpoint": "random"})


class Live(Still):
    """Can stream, and answers `LATE_FRAMES` frames late."""

    streams = True

    def stream(self, queries: np.ndarray) -> Stream:
        return _LateStream(self, queries)


class _LateStream(Stream):
    def __init__(self, teacher: Live, queries: np.ndarray) -> None:
        super().__init__(queries)
        self._teacher, self._unanswered = teacher, np.zeros((0, 1, 1, 3), np.uint8)

    def _advance(self, frames: np.ndarray) -> Tracks:
        self._unanswered = (
            np.concatenate([self._unanswered, frames]) if len(self._unanswered) else frames
        )
        return self._answer(max(0, len(self._unanswered) - LATE_FRAMES))

    def _rest(self) -> Tracks:
        return self._answer(len(self._unanswered))

    def _answer(self, count: int) -> Tracks:
        answered, self._unanswered = self._unanswered[:count], self._unanswered[count:]
        return self._teacher._track(answered, self._queries, 0)
