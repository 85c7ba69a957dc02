"""Hidden: where a label may say that a point is occluded. On positive evidence only.

In   the tracks of K teachers on one clip and, where a verifier judged it, the probability that each
     point is hidden. Out: bool [N, T]. What is neither hidden nor trusted is disputed: no label.

That most teachers don't see a point is no evidence: when they lose one they don't see it either,
and of such frames of real clips only about half are truly hidden. So

- with a verdict, the point is hidden where the verifier says so with at least
  `TrustConfig.min_hidden`. It has weighed all there is: where the neighbours carry the point, what
  it looks like there, who else is there, whether it is found again;
- without one (older shards), it is hidden where most teachers don't see it and, besides, its
  neighbours carry it out of the frame, or to where many points are that don't move with it: a track
  in front covers it.

That all teachers lose a point and find it again does not mean that it was hidden: points that they
merely lose are found again more often than points that were hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from labeler.labels.agreement import DISPUTED, OCCLUDED, RASTER, stack
from labeler.labels.neighbours import centre_of, expect
from labeler.labels.sample import Sample
from labeler.labels.trust import TrustConfig
from teachers import Tracks, VisibleRule
from teachers.tracks import has_position

OUT_PX = 1.0
"""A point is out of the frame if its neighbours carry it that far beyond the border."""
MIN_STRANGERS, MIN_POINTS = 0.7, 1.0
"""It is covered if of that many trusted points at its expected position that share moves otherwise;
a point counts less the farther away it is (by exp(-d^2 / 64), d in px)."""


def is_hidden(
    tracks: Mapping[str, Tracks],  # [N, T, ...] each, px of the clip
    rules: Mapping[str, VisibleRule],
    queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
    size_hw: tuple[int, int],
    said: np.ndarray | None = None,  # [N, T] in [0, 1]: `Verdict.hidden`
    min_hidden: float = TrustConfig.min_hidden,
) -> np.ndarray:  # bool [N, T]
    """Where a label may say occluded; never in a query's own frame.

    Pass all queries of a clip, since they are each other's neighbours.
    """
    query_t = queries[:, 0].astype(int)
    if said is not None:
        out = said >= np.float32(min_hidden)
    elif tracks and len(queries):
        out = _by_rule(tracks, rules, queries, size_hw)
    else:
        return np.zeros((len(queries), next((x.xy.shape[1] for x in tracks.values()), 0)), bool)
    out[np.arange(len(queries)), query_t] = False
    return out


def proven(sample: Sample) -> Sample:
    """The sample whose labels call occluded only what `is_hidden`; what most opinions don't see
    without that is disputed, and no valid frame. Such a gap does not cut the valid run: a point
    that is lost by all and found again where they agree goes on."""
    verdict, labels = sample.verdict, sample.labels
    said = None if verdict is None else verdict.hidden
    hidden = is_hidden(sample.tracks, sample.rules, sample.queries, sample.size_hw, said)
    lost = (labels.state == OCCLUDED) & ~hidden
    state = np.where(lost, DISPUTED, labels.state).astype(np.uint8)
    return replace(sample, labels=replace(labels, state=state, valid=labels.valid & ~lost))


def _by_rule(
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    queries: np.ndarray,
    size_hw: tuple[int, int],
) -> np.ndarray:
    stacked = stack(tracks, rules, size_hw)
    placed = has_position(stacked.xy)
    count, seen = placed.sum(0), stacked.sees.sum(0)
    middle = centre_of(stacked.xy, placed, stacked.sees)
    scale = RASTER / np.array(size_hw[::-1])
    query_xy = (queries[:, 1:] * scale).astype(np.float32)
    share = seen / np.maximum(count, 1)
    expected = expect(middle.xy, middle.trust, share, queries[:, 0].astype(int), query_xy)
    x, y = np.moveaxis(expected.xy + (scale - 1) / 2, -1, 0)  # where pixel centres are whole
    low, high = -OUT_PX, RASTER - 1 + OUT_PX
    out = (x < low) | (y < low) | (x > high) | (y > high)
    covered = (expected.strangers > MIN_STRANGERS) & (expected.points > MIN_POINTS)
    return (2 * seen < count) & expected.known & (out | covered)
