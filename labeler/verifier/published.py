"""The published verifier on a clip: which teacher to believe, query by query and frame by frame.

    verifier = teachers.load_verifier("track-on-r-verifier", checkpoint=FILE)
    judged = judge(verifier, frames, queries, xy)       # xy [K, N, T, 2], a row for each teacher
    judged.best                                         # [N, T], the index of the best teacher
    judged.positions(xy)                                # [N, T, 2], its position

It can only choose the best of several positions. It cannot say "none of them", so agreement, or a
threshold of your own, is still needed as a filter; and it knows nothing about visibility, for which
the published recipe takes the majority of the teachers.

24 frames with 256 queries and 6 teachers take about 40 s of a CPU core, three quarters of it for
the frames alone: it is made for GPUs. Its file forbids commercial use, so it must be asked for by
name and is never a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from teachers.tracks import has_position

if TYPE_CHECKING:
    from teachers.verifier import TrackOnVerifier

NOBODY = -1
"""The value of `Judged.best` where no teacher has a position that was judged."""


@dataclass(frozen=True)
class Judged:
    """What a verifier says about the tracks of K teachers."""

    scores: np.ndarray
    """float32 [K, N, T]; only differences over K mean anything. NaN where there is no position."""
    best: np.ndarray
    """int64 [N, T]: the teacher with the highest score, the first of equal ones; -1 where none has
    a score."""

    @classmethod
    def of(cls, scores: np.ndarray) -> Judged:
        known = ~np.isnan(scores)
        best = np.where(known, scores, -np.inf).argmax(0)
        return cls(scores, np.where(known.any(0), best, NOBODY))

    @property
    def reliability(self) -> np.ndarray:
        """float32 [K, N, T] in [0, 1]: the sum over the teachers that have a position is 1; 0 for
        the others.

        A share, not a probability of being right: one teacher alone has 1.
        """
        known = ~np.isnan(self.scores)
        top = np.where(known, self.scores, -np.inf).max(0)
        share = np.exp(np.where(known, self.scores - np.where(known.any(0), top, 0), -np.inf))
        return share / np.maximum(share.sum(0), 1)

    def positions(self, xy: np.ndarray) -> np.ndarray:  # [K, N, T, 2] -> [N, T, 2]
        """The best of the positions `xy`; NaN where there is none."""
        chosen = np.take_along_axis(xy, np.maximum(self.best, 0)[None, ..., None], 0)[0]
        return np.where(self.best[..., None] == NOBODY, np.nan, chosen).astype(xy.dtype)


def judge(
    verifier: TrackOnVerifier,
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    queries: np.ndarray,  # [N, 3] (t, x, y), px of the frames
    xy: np.ndarray,  # [K, N, T, 2] px of the frames; NaN where a teacher has no position
) -> Judged:
    """Judge the tracks of K teachers on a clip; their order does not matter.

    The published code leaves out a teacher that has a NaN anywhere in a clip. Here, a teacher is
    left out only where it has no position. For a teacher that failed this is the same, and one that
    does not track frames before a query is kept.

    Raises:
        ConfigError: shapes do not fit together, or a query is not in the clip.
        CheckpointError: the network computes NaN, so its weights are broken.
    """
    return Judged.of(verifier.score(frames, queries, xy))


def majority(
    visible: np.ndarray,  # bool [K, N, T], each teacher's own rule applied
    xy: np.ndarray,  # [K, N, T, 2]; a teacher without a position has no vote
) -> np.ndarray:  # bool [N, T]
    """Where more than half of the teachers see the point; exactly half is not enough.

    The verifier's scores do not count here, as in the published recipe.
    """
    votes = has_position(xy)
    return 2 * (visible & votes).sum(0) > votes.sum(0)
