"""The published verifier on a clip: which teacher to believe, query by query and frame by frame.

    verifier = teachers.load_verifier("track-on-r-verifier", checkpoint=FILE)
    judged = judge(verifier, frames, queries, xy)       # xy [K, N, T, 2], a row for each teacher
    judged.best                                         # [N, T], the row of the best place
    judged.places(xy)                                   # [N, T, 2], that place

What it can do is choose: the best of several places. It cannot say "none of them", so agreement, or
a threshold of one's own, stays the filter; and it knows nothing of visibility, for which the
published recipe takes the majority of the teachers.

24 frames with 256 queries and 6 teachers take about 40 s of a CPU core, three quarters of it for
the frames alone: it is meant for GPUs. Its file forbids commercial use, so it is asked for by name
and never a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from teachers.tracks import has_position

if TYPE_CHECKING:
    from teachers.verifier import TrackOnVerifier

NOBODY = -1
"""In `Judged.best`, where no teacher has a place that was judged."""


@dataclass(frozen=True)
class Judged:
    """What a verifier says of the tracks of K teachers."""

    scores: np.ndarray
    """float32 [K, N, T]; only differences over K mean something. NaN where there is no place."""
    best: np.ndarray
    """int64 [N, T]: who has the highest score, the first of equals; -1 where none has one."""

    @classmethod
    def of(cls, scores: np.ndarray) -> Judged:
        known = ~np.isnan(scores)
        best = np.where(known, scores, -np.inf).argmax(0)
        return cls(scores, np.where(known.any(0), best, NOBODY))

    @property
    def reliability(self) -> np.ndarray:
        """float32 [K, N, T] in [0, 1]: sum 1 over the teachers that have a place; 0 for others.

        A share, not a probability of being right: one teacher alone has 1.
        """
        known = ~np.isnan(self.scores)
        top = np.where(known, self.scores, -np.inf).max(0)
        share = np.exp(np.where(known, self.scores - np.where(known.any(0), top, 0), -np.inf))
        return share / np.maximum(share.sum(0), 1)

    def places(self, xy: np.ndarray) -> np.ndarray:  # [K, N, T, 2] -> [N, T, 2]
        """The best of the places `xy`; NaN where there is none."""
        chosen = np.take_along_axis(xy, np.maximum(self.best, 0)[None, ..., None], 0)[0]
        return np.where(self.best[..., None] == NOBODY, np.nan, chosen).astype(xy.dtype)


def judge(
    verifier: TrackOnVerifier,
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    queries: np.ndarray,  # [N, 3] (t, x, y), px of the frames
    xy: np.ndarray,  # [K, N, T, 2] px of the frames; NaN where a teacher has no place
) -> Judged:
    """Judge the tracks of K teachers on a clip; their order does not matter.

    The published code leaves out a teacher that has a NaN anywhere in a clip. Here it is left out
    where it has no place, which is the same for a teacher that failed, and keeps one that does not
    track frames before a query.

    Raises:
        ConfigError: shapes that do not fit, or a query that is not in the clip.
        CheckpointError: the network computes NaN, so its weights are broken.
    """
    return Judged.of(verifier.score(frames, queries, xy))


def majority(
    visible: np.ndarray,  # bool [K, N, T], each teacher's own rule applied
    xy: np.ndarray,  # [K, N, T, 2]; who has no place has no vote
) -> np.ndarray:  # bool [N, T]
    """Where more than half of the teachers see the point; half of them is not enough.

    The verifier's scores do not count here, as in the published recipe.
    """
    votes = has_position(xy)
    return 2 * (visible & votes).sum(0) > votes.sum(0)
