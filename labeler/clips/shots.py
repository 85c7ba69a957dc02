"""Shots: where a video cuts from one camera to another.

In   frames, one at a time, at any small size (96 px a short side is plenty). Out: the first frame
     of every new shot.

Only the signature of a frame is kept: a 32 x 32 picture and the histograms of its channels. The
step at frame t is the least distance between any of the three frames before t and any of the three
from t on. Across a hard cut, all nine pairs differ; around a flash of one or two frames, some pair
is similar. A cut is a step that is large, and large compared with the ordinary steps both before
and after it: in a fast pan every step is large, and at its start all those after it are. And
matching must fail across it: where blocks of a frame are found in the other, all moved alike, the
camera was jerked.

A dissolve, a fade, or a wipe is spread over many frames and is NOT found: the shot continues
through it. Within a clip that contains one, it is left to the agreement of the teachers, which ends
tracks where they differ. A shot of fewer than three frames may be taken for a flash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import cv2
import numpy as np

LEAST_STEP = 18.0
"""The least step of a cut, in grey levels. Measured on real films: 22 to 146 at cuts, the least of
them between two dark rooms; up to 15 at a jerk of the head."""
LEAST_RATIO = 2.0
"""A cut must be this many times the ordinary step."""
REACH = 3
"""Frames on either side that a step compares; a flash of up to REACH - 1 frames is not a cut."""
NEIGHBOURS = 5
"""Steps on either side whose median is the ordinary step."""
BLOCKS_ALIKE, ALIKE, NEAR_PX = 3, 0.9, 4
"""A frame shows what another does if at least this many of its blocks are found there, with at
least this correlation, and have moved alike to within this many px of a frame of 64 px. Of 36 jerks
by up to 0.6 of a frame, 33 have 3 blocks or more (up to 35); cuts between hand-held scenes have 0
to 2."""
BLOCK_LEVELS = 6.0
"""A block whose standard deviation is below this has too little texture to be found."""
GREY_SIDE = 64
"""Short side of the frames that are matched, px."""
_SIDE = 32
_BINS = 32


@dataclass(frozen=True)
class _Signature:
    picture: np.ndarray  # [32, 32, 3]  float32, grey levels
    cumulative: np.ndarray  # [3, 32]   share of the pixels up to each bin, by channel
    grey: np.ndarray  # uint8 [h, w], short side of 64 px at most

    def distance(self, other: _Signature) -> float:
        """The distance between two signatures, in grey levels: the mean change of a pixel, plus the
            earth mover's distance between the histograms.

        The first alone is nearly as large in a fast pan as at a cut; the second barely changes in a
        pan.
        """
        moved = np.abs(self.cumulative - other.cumulative).mean() * 256
        return float(np.abs(self.picture - other.picture).mean() + moved)


def find_cuts(
    frames: Iterable[np.ndarray],  # each uint8 [H, W, 3], all of one size
) -> list[int]:
    """Index of the first frame of each new shot, ascending; counted from the first frame given,
    which is never among them."""
    found = list(_steps(frames))
    steps = np.array([step for step, _ in found])
    return [
        t
        for t in range(1, len(steps))
        if steps[t] >= max(LEAST_STEP, LEAST_RATIO * _ordinary(steps, t)) and not found[t][1]
    ]


def shots(cuts: list[int], length: int) -> list[range]:
    """The shots of `length` frames, as ranges of frame indices; no shot where there is no frame."""
    edges = [0, *cuts, length]
    return [range(start, stop) for start, stop in pairwise(edges) if stop > start]


def _steps(frames: Iterable[np.ndarray]) -> Iterator[tuple[float, bool]]:
    """The step at every frame, 0 at the first, and whether, at a large one, matching goes across
    it. Holds six signatures at a time."""
    before: deque[_Signature] = deque(maxlen=REACH)
    after: deque[_Signature] = deque()

    def step() -> tuple[float, bool]:
        least = min((a.distance(b) for a in before for b in after), default=0.0)
        matched = least >= LEAST_STEP and any(
            _shows(a.grey, b.grey)
            for a, b in product([*before][:-3:-1], [*after][:2])  # the nearest frames first
        )
        before.append(after.popleft())
        return least, matched

    for frame in frames:
        after.append(_signature(frame))
        if len(after) == REACH:
            yield step()
    while after:  # the last frames have fewer than REACH from them on
        yield step()


def _shows(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether some part of a grey frame is in the other, at any place."""
    height, width = one.shape
    side = min(height, width) // 3
    if side < 4:
        return False
    rows, columns = (
        np.linspace(0, length - side, max(2, 2 * length // side - 1)).astype(int)
        for length in (height, width)
    )
    moves = []
    for y, x in product(rows, columns):
        block = one[y : y + side, x : x + side]
        if block.std() < BLOCK_LEVELS:
            continue
        _, score, _, (found_x, found_y) = cv2.minMaxLoc(
            cv2.matchTemplate(other, block, cv2.TM_CCOEFF_NORMED)
        )
        if score >= ALIKE:
            moves.append((found_y - y, found_x - x))
    apart = np.abs(np.array(moves).reshape(-1, 1, 2) - np.array(moves).reshape(1, -1, 2)).max(-1)
    near = NEAR_PX * min(height, width) / GREY_SIDE
    return bool(len(moves) and (apart <= near).sum(1).max() >= BLOCKS_ALIKE)


def _ordinary(steps: np.ndarray, t: int) -> float:
    """The larger of the medians of the steps before and after t; medians, so that another cut
    nearby does not count."""
    sides = steps[max(1, t - NEIGHBOURS) : t], steps[t + 1 : t + 1 + NEIGHBOURS]
    return max((float(np.median(side)) for side in sides if len(side)), default=0.0)


def _signature(frame: np.ndarray) -> _Signature:
    histograms = [
        np.bincount(frame[..., c].ravel() // (256 // _BINS), minlength=_BINS) for c in range(3)
    ]
    return _Signature(
        cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32),
        np.cumsum(histograms, axis=1) / frame[..., 0].size,
        _grey(frame),
    )


def _grey(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, GREY_SIDE / min(grey.shape))
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
