"""Augment: which part of a clip the student sees, its labels moved exactly along.

    sub-sequence -> enlarge if too small -> crop -> flip -> queries

Pure functions on arrays; whatever they draw comes from the generator that is passed in. Points are
px, an integer is a pixel centre.

Short clips are extended by their reverse (CoTracker3's recipe). A point outside the crop is
occluded, and its frames stay in the loss: the recipe's teacher is run on the crop itself and says
"occluded" there too; ours saw the whole frame and knows the position better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from student.data.batch import TrainClip
from teachers.tracks import inside

LARGEST_SCALE = 2.0
"""A clip is enlarged by at most this to fill the crop: beyond it, the student would learn from
blur."""


class UnusableSample(Exception):
    """A sample that gives nothing to train on; another one takes its place, and the reason is
    counted."""

    def __init__(self, reason: Literal["corrupt", "no-labels"]) -> None:
        super().__init__(reason)
        self.reason = reason


def augment(
    clip: TrainClip,
    frames: int,
    size_hw: tuple[int, int],
    queries: int,
    flip: bool,
    rng: np.random.Generator,
) -> TrainClip:
    """A random `frames` x `size_hw` part of `clip` with `queries` points, mirrored half of the time
    if `flip`.

    The clip must be large enough: see `scale_to_fill`.

    Raises:
        UnusableSample: none of its points can be trained on in that part.
    """
    clip = cropped(enlarged(subsequence(clip, frames, rng), size_hw), size_hw, rng)
    if flip and rng.random() < 0.5:
        clip = flipped(clip)
    return chosen(requeried(clip, rng), queries, rng)


def subsequence(clip: TrainClip, frames: int, rng: np.random.Generator) -> TrainClip:
    """A run of `frames` frames from a random start; a shorter clip first goes on backwards,
    forwards, backwards, ..."""
    there = np.arange(len(clip.frames))
    passes = -(-frames // len(there))
    extended = np.concatenate([there[:: -1 if i % 2 else 1] for i in range(passes)])
    start = rng.integers(len(extended) - frames + 1)
    index = extended[start : start + frames]
    first = np.full(len(there), -1)
    # of several positions of a frame, the first is assigned last
    first[index[::-1]] = np.arange(frames)[::-1]
    queries = clip.queries.copy()
    queries[:, 0] = first[clip.queries[:, 0].astype(int)]
    over_time = {
        name: getattr(clip, name)[:, index]
        for name in ("xy", "visible", "valid", "visibility_valid", "weight")
        if getattr(clip, name) is not None
    }
    return replace(clip, frames=clip.frames[index], queries=queries, **over_time)


def scale_to_fill(size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> float:
    """How much a clip must be enlarged to hold the crop; 1 if it does. Above `LARGEST_SCALE` it is
    too small to be used."""
    return max(1.0, *(crop / size for crop, size in zip(crop_hw, size_hw, strict=True)))


def enlarged(clip: TrainClip, crop_hw: tuple[int, int]) -> TrainClip:
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


def cropped(clip: TrainClip, crop_hw: tuple[int, int], rng: np.random.Generator) -> TrainClip:
    """A random part of that size; points are not visible outside it."""
    height, width = crop_hw
    y, x = (
        int(rng.integers(side - crop + 1))
        for side, crop in zip(clip.frames.shape[1:3], crop_hw, strict=True)
    )
    part = replace(clip, frames=clip.frames[:, y : y + height, x : x + width])
    part = _moved(part, lambda xy: xy - (x, y))
    return replace(part, visible=part.visible & inside(part.xy, crop_hw))


def flipped(clip: TrainClip) -> TrainClip:
    """Left and right swapped."""
    last = clip.frames.shape[2] - 1
    return _moved(
        replace(clip, frames=clip.frames[:, :, ::-1]), lambda xy: xy * (-1, 1) + (last, 0)
    )


def requeried(clip: TrainClip, rng: np.random.Generator) -> TrainClip:
    """Queries outside the frames, in time or space, based anew: on the track's own position in a
    random frame that shows it.

    A point without such a frame cannot be asked for: none of its frames is valid any more.
    """
    size_hw = clip.frames.shape[1], clip.frames.shape[2]
    good = (clip.queries[:, 0] >= 0) & inside(clip.queries[:, 1:], size_hw)
    shown = clip.visible & clip.valid
    frame = np.where(shown, rng.random(shown.shape), -1.0).argmax(1)
    own = np.column_stack([frame, clip.xy[np.arange(len(frame)), frame]])
    queries = np.where(good[:, None], clip.queries, own).astype(np.float32)
    able = (good | shown.any(1))[:, None]
    return replace(
        clip,
        queries=queries,
        valid=clip.valid & able,
        visibility_valid=clip.visibility_valid & able,
    )


def chosen(clip: TrainClip, queries: int, rng: np.random.Generator) -> TrainClip:
    """`queries` random points of those with valid frames. Where there are fewer, some are repeated
    without a valid frame.

    Raises:
        UnusableSample: no point has a valid frame.
    """
    able = rng.permutation(np.flatnonzero(clip.valid.any(1)))[:queries]
    if not len(able):
        raise UnusableSample("no-labels")
    rows = np.resize(able, queries)
    first = (np.arange(queries) < len(able))[:, None]
    valid, visibility_valid = clip.valid[rows] & first, clip.visibility_valid[rows] & first
    return replace(
        clip,
        queries=clip.queries[rows],
        xy=np.where(valid[..., None], clip.xy[rows], 0),
        visible=clip.visible[rows] & visibility_valid,
        valid=valid,
        visibility_valid=visibility_valid,
        weight=None if clip.weight is None else clip.weight[rows],
    )


def _moved(clip: TrainClip, move: Callable[[np.ndarray], np.ndarray]) -> TrainClip:
    """All positions, of tracks and queries, through `move` ([..., 2] px -> [..., 2] px)."""
    queries = np.column_stack([clip.queries[:, 0], move(clip.queries[:, 1:])])
    return replace(clip, queries=queries.astype(np.float32), xy=move(clip.xy).astype(np.float32))
