"""Augment: which part of a clip the student sees, its labels moved exactly along.

    sub-sequence -> enlarge if too small -> crop -> flip -> queries

Pure functions on arrays; whatever they draw comes from the generator that is passed in. Points are
px, an integer is a pixel centre.

Short clips are extended by their reverse (CoTracker3's recipe). A point outside the crop is
occluded, and its frames stay in the loss: the recipe's teacher is run on the crop itself and says
"occluded" there too; ours saw the whole frame and knows the place better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from teachers.tracks import inside

LARGEST_SCALE = 2.0
"""A clip is enlarged by at most this to fill the crop: beyond it, the student would learn from
blur."""


class Unusable(Exception):
    """A sample that gives nothing to train on; another one takes its place, and the reason is
    counted."""

    def __init__(self, reason: Literal["corrupt", "no-labels"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Labelled:
    """A clip and what its N points should do."""

    frames: np.ndarray
    """uint8 [T, H, W, 3] RGB."""
    queries: np.ndarray
    """float32 [N, 3] (t, x, y); t = -1 where the query's frame is not among the frames."""
    xy: np.ndarray
    """float32 [N, T, 2] px; anything where `used` is False."""
    visible: np.ndarray
    """bool [N, T], only where `used`."""
    used: np.ndarray
    """bool [N, T]: frames that enter the loss."""


def augment(
    clip: Labelled,
    frames: int,
    size_hw: tuple[int, int],
    queries: int,
    flip: bool,
    rng: np.random.Generator,
) -> Labelled:
    """A random `frames` x `size_hw` part of `clip` with `queries` points, mirrored half of the time
    if `flip`.

    The clip must be large enough: see `scale_to_fill`.

    Raises:
        Unusable: none of its points can be trained on in that part.
    """
    clip = cropped(enlarged(subsequence(clip, frames, rng), size_hw), size_hw, rng)
    if flip and rng.random() < 0.5:
        clip = flipped(clip)
    return chosen(requeried(clip, rng), queries, rng)


def subsequence(clip: Labelled, frames: int, rng: np.random.Generator) -> Labelled:
    """A run of `frames` frames from a random start; a shorter clip first goes on backwards,
    forwards, backwards, ..."""
    there = np.arange(len(clip.frames))
    passes = -(-frames // len(there))
    extended = np.concatenate([there[:: -1 if i % 2 else 1] for i in range(passes)])
    start = rng.integers(len(extended) - frames + 1)
    index = extended[start : start + frames]
    first = np.full(len(there), -1)
    # of several places of a frame, the first is assigned last
    first[index[::-1]] = np.arange(frames)[::-1]
    queries = clip.queries.copy()
    queries[:, 0] = first[clip.queries[:, 0].astype(int)]
    return Labelled(
        clip.frames[index], queries, clip.xy[:, index], clip.visible[:, index], clip.used[:, index]
    )


def scale_to_fill(size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> float:
    """How much a clip must be enlarged to hold the crop; 1 if it does. Above `LARGEST_SCALE` it is
    too small to be used."""
    return max(1.0, *(crop / size for crop, size in zip(crop_hw, size_hw, strict=True)))


def enlarged(clip: Labelled, crop_hw: tuple[int, int]) -> Labelled:
    """`clip` if it holds the crop, else resized (bilinear) so that it just does."""
    height, width = clip.frames.shape[1:3]
    scale = scale_to_fill((height, width), crop_hw)
    if scale == 1:
        return clip
    new_height, new_width = (
        max(crop, round(side * scale)) for crop, side in zip(crop_hw, (height, width), strict=True)
    )
    frames = np.stack(
        [
            cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
            for frame in clip.frames
        ]
    )
    # the sides are whole numbers, so the two may differ a little
    by = np.array([new_width / width, new_height / height])
    return _moved(replace(clip, frames=frames), lambda xy: (xy + 0.5) * by - 0.5)


def cropped(clip: Labelled, crop_hw: tuple[int, int], rng: np.random.Generator) -> Labelled:
    """A random part of that size; points are not visible outside it."""
    height, width = crop_hw
    y, x = (
        int(rng.integers(side - crop + 1))
        for side, crop in zip(clip.frames.shape[1:3], crop_hw, strict=True)
    )
    part = replace(clip, frames=clip.frames[:, y : y + height, x : x + width])
    part = _moved(part, lambda xy: xy - (x, y))
    return replace(part, visible=part.visible & inside(part.xy, crop_hw))


def flipped(clip: Labelled) -> Labelled:
    """Left and right swapped."""
    last = clip.frames.shape[2] - 1
    return _moved(
        replace(clip, frames=clip.frames[:, :, ::-1]), lambda xy: xy * (-1, 1) + (last, 0)
    )


def requeried(clip: Labelled, rng: np.random.Generator) -> Labelled:
    """Queries outside the frames, in time or space, based anew: on the track's own place in a
    random frame that shows it.

    A point without such a frame cannot be asked for: none of its frames is used any more.
    """
    size_hw = clip.frames.shape[1], clip.frames.shape[2]
    good = (clip.queries[:, 0] >= 0) & inside(clip.queries[:, 1:], size_hw)
    shown = clip.visible & clip.used
    frame = np.where(shown, rng.random(shown.shape), -1.0).argmax(1)
    own = np.column_stack([frame, clip.xy[np.arange(len(frame)), frame]])
    queries = np.where(good[:, None], clip.queries, own).astype(np.float32)
    return replace(clip, queries=queries, used=clip.used & (good | shown.any(1))[:, None])


def chosen(clip: Labelled, queries: int, rng: np.random.Generator) -> Labelled:
    """`queries` random points of those with used frames. Where there are fewer, some are repeated
    without a used frame.

    Raises:
        Unusable: no point has a used frame.
    """
    able = rng.permutation(np.flatnonzero(clip.used.any(1)))[:queries]
    if not len(able):
        raise Unusable("no-labels")
    rows = np.resize(able, queries)
    used = clip.used[rows] & (np.arange(queries) < len(able))[:, None]
    return Labelled(
        clip.frames,
        clip.queries[rows],
        np.where(used[..., None], clip.xy[rows], 0),
        clip.visible[rows] & used,
        used,
    )


def _moved(clip: Labelled, move: Callable[[np.ndarray], np.ndarray]) -> Labelled:
    """All places, of tracks and queries, through `move` ([..., 2] px -> [..., 2] px)."""
    queries = np.column_stack([clip.queries[:, 0], move(clip.queries[:, 1:])])
    return replace(clip, queries=queries.astype(np.float32), xy=move(clip.xy).astype(np.float32))
