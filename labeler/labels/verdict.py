"""Verdict of a clip: how far each teacher's position can be trusted, as a shard keeps it.

    verdict = judged(frames, queries, tracks, rules)   # by the shipped verifier
    verdict.of(["flow", "lk"])                         # float32 [2, N, T]: this position is right
    verdict.hidden                                     # float32 [N, T]: the point is hidden

It is derived, as labels are: from the stored clip and the stored tracks alone, so that `relabel`
finds what `label` found. Probabilities are those that 8 bits can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from labeler.labels.verifier import Verifier, from_uint8, to_uint8
from teachers import ConfigError, Tracks, TransientError, VisibleRule


@dataclass(frozen=True)
class ClipVerdict:
    """What a verifier says of one clip."""

    teachers: tuple[str, ...]
    """The K teachers that were judged, sorted by name."""
    right: np.ndarray
    """float32 [K, N, T] in [0, 1]: the probability that the point is visible, and within 2 px (of
    the 256 raster) of this teacher's position; 0 where the teacher gives none."""
    hidden: np.ndarray
    """float32 [N, T] in [0, 1]: the probability that the point is hidden, or out of the frame."""
    version: str
    """Of the verifier: its code and its weights."""

    def __repr__(self) -> str:
        n, t = self.hidden.shape
        means = zip(self.teachers, self.right, strict=True) if self.hidden.size else ()
        said = ", ".join(f"{name} {right.mean():.2f}" for name, right in means) or "not known"
        return (
            f"ClipVerdict of {n} x {t} points x frames: mean probability that a position is right "
            f"{said}; verifier {self.version}"
        )

    def of(self, names: Sequence[str]) -> np.ndarray:
        """float32 [len(names), N, T]: `right` of some teachers, in that order. ConfigError for one
        that was not judged."""
        unknown = next((name for name in names if name not in self.teachers), None)
        if unknown is not None:
            raise ConfigError(
                f"the verifier did not judge teacher {unknown!r}, only "
                f"{', '.join(self.teachers)}: `tapdistill relabel` judges all of them."
            )
        return self.right[[self.teachers.index(name) for name in names]]

    @property
    def best(self) -> np.ndarray:
        """float32 [N, T]: the probability of the most trusted position."""
        return self.right.max(0, initial=0)


def judged(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB: the stored clip, decoded
    queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
    tracks: Mapping[str, Tracks],  # as stored
    rules: Mapping[str, VisibleRule],
) -> ClipVerdict:
    """The verdict of the shipped verifier.

    Raises:
        TransientError: the machine is out of memory.
    """
    verifier, names = _shipped(), sorted(tracks)
    try:
        said = verifier.judge(frames, queries, {name: tracks[name] for name in names}, rules)
    except MemoryError as error:
        raise TransientError("the verifier: the machine is out of memory.") from error
    right, hidden = (from_uint8(to_uint8(each)) for each in (said.right, said.hidden))
    return ClipVerdict(tuple(names), right, hidden, verifier.version)


def shipped_version() -> str:
    """Version of the verifier that `judged` uses."""
    return _shipped().version


def mean_trust(verdict: ClipVerdict | None) -> float | None:
    """How decided the verifier is: the mean, over points and frames, of the probability of what it
    finds more likely, that the most trusted position is right or that the point is hidden. It does
    not say how far labels are trusted: `labeler.labels.trying.by_policy` does. None without a
    verdict or a point."""
    if verdict is None or not verdict.hidden.size:
        return None
    return round(float(np.maximum(verdict.best, verdict.hidden).mean(dtype=np.float64)), 4)


@cache
def _shipped() -> Verifier:
    return Verifier.load()
