"""Asking again for points that are lost: a second query, from where the network was last sure.

A query describes a point as it looks in one frame. Once the camera is far from there the point
looks different, and is no longer matched although it is plainly seen. So a lost point is tracked
once more, from its own position in the last frame in which the network was sure of it, and where
that answer is surer, it takes the place of the first. In trackers by templates this is an update of
the template; here there is one, and what is certain stays as it was, so nothing drifts. Ours, not
TAPIR's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from teachers.tracks import Tracks

LOST = 0.5
"""A point is lost from the first frame, as seen from its query, whose certainty (visibility x
confidence) is below this, the published threshold."""


def asked_again(
    tracks: Tracks,
    queries: np.ndarray,
    ask: Callable[[np.ndarray], Tracks],
    size: tuple[int, int],
    sure: float,
) -> Tracks:
    """The tracks, with what a second query finds of points that are lost, before their query and
    after it.

    Args:
        tracks: the first answer.
        queries: float [N, 3], (t, x, y), px.
        ask: answers other queries about the same frames.
        size: (H, W) of the frames, px.
        sure: certainty above which a frame can be asked from, and a point is said to be visible
            where it was said to be lost. A position is taken wherever the second answer is surer.

    Returns:
        New tracks; those given are not changed. Frames whose certainty is at least `LOST` are the
        same.
    """
    certainty = tracks.visibility * tracks.confidence  # [N, T]
    offset = np.arange(certainty.shape[1]) - queries[:, :1].astype(int)  # [N, T]
    after, before = (_last_sure(certainty, side * offset, sure) for side in (1, -1))
    who, when = (np.concatenate(both) for both in zip(after, before, strict=True))  # [M]
    if not len(who):
        return tracks
    height, width = size
    xy = np.clip(tracks.xy[who, when], 0, (width - 1, height - 1))
    second = ask(np.column_stack([when, xy]).astype(np.float32))
    surer = second.visibility * second.confidence
    way = np.repeat((1, -1), (len(after[0]), len(before[0])))
    beyond = way[:, None] * (np.arange(surer.shape[1]) - when[:, None]) > 0  # [M, T]
    better = beyond & (certainty[who] < LOST) & (surer > certainty[who])
    found = Tracks(tracks.xy.copy(), tracks.visibility.copy(), tracks.confidence.copy())
    row, frame = np.nonzero(better)
    found.xy[who[row], frame] = second.xy[row, frame]
    row, frame = np.nonzero(better & (surer > sure))
    found.visibility[who[row], frame] = second.visibility[row, frame]
    found.confidence[who[row], frame] = second.confidence[row, frame]
    return found


def _last_sure(
    certainty: np.ndarray, distance: np.ndarray, sure: float
) -> tuple[np.ndarray, np.ndarray]:
    """[M] points that are lost on one side of their query, and the last frame before that in which
    they were sure. `distance` [N, T] counts frames from the query, to that side."""
    lost = (distance > 0) & (certainty < LOST)
    first = np.where(lost, distance, np.iinfo(int).max).min(1, keepdims=True)
    candidates = (distance > 0) & (distance < first) & (certainty > sure)
    who = np.flatnonzero(lost.any(1) & candidates.any(1))
    return who, np.where(candidates, distance, 0)[who].argmax(1)
