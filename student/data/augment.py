"""Augment: which part of a clip the student sees, its labels moved exactly along.

    sub-sequence -> scale -> crop -> flip -> queries

Pure functions on arrays; whatever they draw comes from the generator that is passed in. Points are
px, an integer is a pixel centre.

Short clips are extended by their reverse (CoTracker3's recipe). A point outside the crop is
occluded, and its frames stay in the loss: the recipe's teacher is run on the crop itself and says
"occluded" there too; ours saw the whole frame and knows the position better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from labeler.video.colours import Region
from student.data.batch import TrainClip
from teachers.tracks import inside

LARGEST_SCALE = 2.0
"""A clip is enlarged by at most this to fill the crop: beyond it, the student would learn from
blur."""


class UnusableSample(Exception):
    """A sample with nothing to train on; another one takes its place, and the reason is counted."""

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
    return seen(subsequence(clip, frames, rng), size_hw, queries, flip, rng)


def seen(
    part: TrainClip,
    size_hw: tuple[int, int],
    queries: int,
    flip: bool,
    rng: np.random.Generator,
    scale: tuple[float, float] = (1.0, 1.0),
    query_part: float | None = None,
) -> TrainClip:
    """`augment`, of a clip whose frames are chosen already; `scale` as for `crop_of`, `query_part`
    as for `requeried`."""
    crop = crop_of(part.frames.shape[1:3], size_hw, rng, scale)
    return asked(at_crop(part, crop), queries, flip, rng, query_part)


def asked(
    clip: TrainClip,
    queries: int,
    flip: bool,
    rng: np.random.Generator,
    query_part: float | None = None,
) -> TrainClip:
    """What is left of `augment` once a part and its crop are cut out: `flip`, and the queries."""
    if flip and rng.random() < 0.5:
        clip = flipped(clip)
    return chosen(requeried(clip, rng, query_part), queries, rng)


def subsequence(
    clip: TrainClip, frames: int, rng: np.random.Generator, steps: Sequence[int] = (1,)
) -> TrainClip:
    """A random part of `frames` frames: see `part_of`."""
    index = part_of(len(clip.frames), frames, steps, rng)
    return replace(at_frames(clip, index), frames=clip.frames[index])


def part_of(
    length: int, frames: int, steps: Sequence[int], rng: np.random.Generator
) -> np.ndarray:  # int64 [frames]
    """Which of a clip's `length` frames a part of `frames` consists of: a random one of the steps
    for which it is long enough, from a random start.

    If it is too short for all of them, it goes on backwards, forwards, backwards, ..., at the
    smallest.
    """
    step, extended = _step_and_frames(length, frames, steps, rng)
    start = rng.integers(len(extended) - (frames - 1) * step)
    return extended[start::step][:frames]


def views(length: int, frames: int, steps: Sequence[int]) -> int:
    """How many different parts `part_of` can give."""
    fitting = [step for step in steps if (frames - 1) * step < length]
    if fitting:
        return sum(length - (frames - 1) * step for step in fitting)
    step, extended = _step_and_frames(length, frames, steps, np.random.default_rng(0))
    return len(extended) - (frames - 1) * step


def _step_and_frames(
    length: int, frames: int, steps: Sequence[int], rng: np.random.Generator
) -> tuple[int, np.ndarray]:
    """The step of a part, and the frames that it walks over."""
    there = np.arange(length)
    fitting = [step for step in steps if (frames - 1) * step < length]
    if fitting:
        return fitting[int(rng.integers(len(fitting))) if len(fitting) > 1 else 0], there
    step = min(steps)
    passes = -(-((frames - 1) * step + 1) // length)
    return step, np.concatenate([there[:: -1 if i % 2 else 1] for i in range(passes)])


def at_frames(
    clip: TrainClip,
    index: np.ndarray,  # int [frames]
) -> TrainClip:
    """The labels of `clip` in these of its frames; its frames stay."""
    first = np.full(clip.xy.shape[1], -1)
    # of several positions of a frame, the first is assigned last
    first[index[::-1]] = np.arange(len(index))[::-1]
    asked = clip.queries[:, 0].astype(int)
    queries = clip.queries.copy()
    queries[:, 0] = first[asked]
    over_time = {
        name: getattr(clip, name)[:, index]
        for name in ("xy", "visible", "valid", "visibility_valid", "weight")
        if getattr(clip, name) is not None
    }
    return replace(clip, queries=queries, gap=np.abs(index - asked[:, None]), **over_time)


def scale_to_fill(size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> float:
    """How much a clip must be enlarged to hold the crop; 1 if it does. Above `LARGEST_SCALE` it is
    too small to be used."""
    return max(1.0, *(crop / size for crop, size in zip(crop_hw, size_hw, strict=True)))


@dataclass(frozen=True)
class Crop:
    """Where frames are cut after they are resized, px."""

    frame_hw: tuple[int, int]
    """Of the frames before."""
    resized_hw: tuple[int, int]
    window: Region

    @classmethod
    def whole(cls, frame_hw: tuple[int, int]) -> Crop:
        """All of the frames, as they are."""
        return cls(frame_hw, frame_hw, Region(0, 0, *frame_hw))

    @property
    def resizes(self) -> bool:
        return self.frame_hw != self.resized_hw

    def of(self, frames: np.ndarray) -> np.ndarray:  # uint8 [T, H, W, 3] -> [T, h, w, 3]
        """The frames resized, bilinear where they grow, by area where they shrink, and cut."""
        top, left, height, width = self.window
        rows, columns = slice(top, top + height), slice(left, left + width)
        if not self.resizes:
            return frames[:, rows, columns]
        grows = self.resized_hw[0] > self.frame_hw[0] or self.resized_hw[1] > self.frame_hw[1]
        how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
        cut = np.empty((len(frames), height, width, 3), np.uint8)
        for out, frame in zip(cut, frames, strict=True):
            out[:] = cv2.resize(frame, self.resized_hw[::-1], interpolation=how)[rows, columns]
        return cut


@dataclass(frozen=True)
class View:
    """What is seen of a clip."""

    frames: np.ndarray
    """int64 [T]: numbers of the frames, repeats allowed."""
    crop: Crop | None = None
    """None: whole frames."""


def crop_of(
    frame_hw: tuple[int, int],
    crop_hw: tuple[int, int],
    rng: np.random.Generator,
    scale: tuple[float, float] = (1.0, 1.0),
    squeeze: float = 1.0,
) -> Crop:
    """A random crop of that size.

    Args:
        scale: the least and the most by which frames are resized before they are cropped; drawn
            between them, with equal chances for equal ratios, and never less than what holds the
            crop.
        squeeze: the longer side is resized to as little as its `squeeze`-th part beside that, but
            not below the shorter one; drawn likewise.
    """
    # no draw where there is no choice: the stream of random numbers stays what it was
    drawn = _drawn(rng, *scale)
    resized = resized_to_hold(frame_hw, crop_hw, drawn)
    if (most := min(squeeze, max(resized) / min(resized))) > 1:
        sides, longer = list(resized), int(resized[1] > resized[0])
        sides[longer] = max(crop_hw[longer], round(sides[longer] / _drawn(rng, 1.0, most)))
        resized = (sides[0], sides[1])
    top, left = (
        int(rng.integers(side - crop + 1)) for side, crop in zip(resized, crop_hw, strict=True)
    )
    return Crop(frame_hw, resized, Region(top, left, *crop_hw))


def _drawn(rng: np.random.Generator, low: float, high: float) -> float:
    return low if low == high else float(np.exp(rng.uniform(np.log(low), np.log(high))))


def resized_to_hold(
    frame_hw: tuple[int, int], crop_hw: tuple[int, int], scale: float = 1.0
) -> tuple[int, int]:
    """The size of frames that are resized by `scale`, or by what just holds the crop if that is
    more."""
    scale = max(scale, *(crop / side for crop, side in zip(crop_hw, frame_hw, strict=True)))
    height, width = (
        max(crop, round(side * scale)) for crop, side in zip(crop_hw, frame_hw, strict=True)
    )
    return height, width


def at_crop(clip: TrainClip, crop: Crop) -> TrainClip:
    """The clip cut out of its frames."""
    return replace(labels_at(clip, crop), frames=crop.of(clip.frames))


def labels_at(clip: TrainClip, crop: Crop) -> TrainClip:
    """The labels of `clip` in px of the crop, where points are not visible outside it; its frames
    stay."""
    top, left, height, width = crop.window
    if crop.resizes:
        # the sides are whole numbers, so the two may differ a little
        by = np.array(crop.resized_hw)[::-1] / crop.frame_hw[::-1]
        clip = _moved(clip, lambda xy: (xy + 0.5) * by - 0.5)
    clip = _moved(clip, lambda xy: xy - (left, top))
    return replace(clip, visible=clip.visible & inside(clip.xy, (height, width)))


def flipped(clip: TrainClip) -> TrainClip:
    """Left and right swapped."""
    last = clip.frames.shape[2] - 1
    frames = np.empty_like(clip.frames, order="C")
    for out, frame in zip(frames, clip.frames, strict=True):
        cv2.flip(frame, 1, out)  # a copy by numpy, pixel by pixel, takes four times as long
    return _moved(replace(clip, frames=frames), lambda xy: xy * (-1, 1) + (last, 0))


def requeried(
    clip: TrainClip, rng: np.random.Generator, query_part: float | None = None
) -> TrainClip:
    """Queries outside the frames, in time or space, based anew: on the track's own position in a
    random frame that shows it.

    A point without such a frame cannot be asked for: none of its frames is valid any more.

    With `query_part`, a query that lies behind that part of the frames is based anew too: on the
    track's own position in the frame of that part that shows it and is nearest to where it was
    asked for. `moved` says how far that is. One without such a frame is treated as above.
    """
    size_hw = clip.frames.shape[1], clip.frames.shape[2]
    good = (clip.queries[:, 0] >= 0) & inside(clip.queries[:, 1:], size_hw)
    shown = clip.visible & clip.valid
    frame = np.where(shown, rng.random(shown.shape), -1.0).argmax(1)
    own = np.column_stack([frame, clip.xy[np.arange(len(frame)), frame]])
    queries = np.where(good[:, None], clip.queries, own).astype(np.float32)
    able = (good | shown.any(1))[:, None]
    moved = None
    if query_part is not None:
        queries, moved = _early(clip, queries, good, shown, query_part)
    return replace(
        clip,
        queries=queries,
        moved=moved,
        valid=clip.valid & able,
        visibility_valid=clip.visibility_valid & able,
    )


def _early(
    clip: TrainClip, queries: np.ndarray, good: np.ndarray, shown: np.ndarray, query_part: float
) -> tuple[np.ndarray, np.ndarray]:
    """The queries of `requeried` moved into the first `query_part` of the frames, and by how much;
    where that cannot be, as they are, and inf."""
    stop = min(int(shown.shape[1] * query_part), shown.shape[1] - 1) + 1
    own = good & (clip.queries[:, 0] < stop)
    rows = np.arange(len(queries))
    gap = np.zeros(shown.shape) if clip.gap is None else clip.gap
    far = np.where(shown[:, :stop], gap[:, :stop], np.inf)
    nearest = far.argmin(1)
    distance = far[rows, nearest]
    there = np.column_stack([nearest, clip.xy[rows, nearest]])
    moving = ~own & np.isfinite(distance)
    return (
        np.where(moving[:, None], there, queries).astype(np.float32),
        np.where(own, 0, distance).astype(np.float32),
    )


def chosen(clip: TrainClip, queries: int, rng: np.random.Generator) -> TrainClip:
    """`queries` random points of those with valid frames, the least `moved` first. Where there are
    fewer, some are repeated without a valid frame.

    Raises:
        UnusableSample: no point has a valid frame.
    """
    able = rng.permutation(np.flatnonzero(clip.valid.any(1)))
    if clip.moved is not None:
        able = able[np.argsort(clip.moved[able], kind="stable")]
    able = able[:queries]
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
        gap=None if clip.gap is None else clip.gap[rows],
        moved=None if clip.moved is None else clip.moved[rows],
    )


def _moved(clip: TrainClip, move: Callable[[np.ndarray], np.ndarray]) -> TrainClip:
    """All positions, of tracks and queries, through `move` ([..., 2] px -> [..., 2] px)."""
    queries = np.column_stack([clip.queries[:, 0], move(clip.queries[:, 1:])])
    return replace(clip, queries=queries.astype(np.float32), xy=move(clip.xy).astype(np.float32))
