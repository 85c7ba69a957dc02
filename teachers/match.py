"""Matching: look for each query in every frame, wherever it may be, then place it to a fraction of a pixel.

Describe  every fourth pixel of every frame, in the manner of DAISY (Tola et al. 2010): gradients by direction, smoothed, read at the
          point and on two rings around it; beside them the colour.
Search    all described places of a frame for the likest one. Places far from where the point was last seen cost a little more.
Place     the patch of the query is aligned there (`align.py`); a patch that looks different means that the point is hidden.
Jumps     a match far from where the point was last seen must be mutual: from there back to the query's frame, it leads to the query.
Turning   descriptors are upright. So the one looked for is renewed whenever a point is found, and its affine map starts the next
          alignment; the alignment stays with the query's own patch, so this does not drift.
Lost      frames without a match are filled in linearly between those with one. A point that comes back is found wherever it does.
Memory    descriptors are kept as float16: 400 MB for 80 frames of 384 x 680.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from teachers.align import Templates, sample, smooth
from teachers.classical import classical_info, graded, inside, outwards, require_positive
from teachers.errors import ConfigError
from teachers.interface import Mode, Teacher, Tracks

DIRECTIONS = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1).astype(np.float32)
RINGS_PX = (6, 12)
SMOOTHING_PX = (2.5, 5.0)
FLAT = 20.0
"""Added to the length of a gradient descriptor before dividing by it, so that flat places are like nothing but each other."""

BLOCK = 128
"""Queries are compared in blocks of this many rows, the last filled up: a row's result does not depend on how many there are."""


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """Where matches are looked for, and which are believed."""

    stride_px: int = 4
    """Distance of the described places."""
    far_px: float = 40.0
    """A match farther than this from where the point was last seen is a jump."""
    jump_cost: float = 0.3
    """Added to the squared distance of descriptors (0 to about 2) at a jump, and in part before."""
    mutual_px: float = 8.0
    """A jump must lead back to within this distance of the query."""
    patch_radius_px: int = 8
    """The patch of a query is 2 x radius + 1 wide."""
    iterations: int = 6
    """Of the alignment."""
    anchor_px: float = 6.0
    """The aligned place must be nearer than this to the match."""
    similar: float = 0.9
    """Least correlation with the query's patch."""

    def __post_init__(self) -> None:
        require_positive(self)
        if not self.similar < 1:
            raise ConfigError(f"similar = {self.similar}: must be in (0, 1), as correlations are.")


class MatchTeacher(Teacher):
    """The teacher `match`. Visibility is 1 for a patch that looks as in the query's frame, 1/2 at the least correlation asked for."""

    def __init__(
        self, *, name: str, checkpoint: str | None = None, device: str = "auto", mode: Mode = "predictor", **settings: Any
    ) -> None:
        self.settings = MatchSettings(**settings)
        architecture = "descriptor matching in every frame, patch alignment"
        self.info = classical_info(name=name, checkpoint=checkpoint, mode=mode, architecture=architecture, settings=self.settings)

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        settings = self.settings
        n, (t, height, width, _) = len(queries), frames.shape
        frames = np.ascontiguousarray(frames)
        cells = [describe(frame, settings.stride_px).astype(np.float16) for frame in frames]  # T of [h, w, C]
        templates = Templates(frames, queries, settings.patch_radius_px)

        query_t, everyone = queries[:, 0].astype(int), np.arange(n)
        xy, visibility = np.zeros((n, t, 2)), np.zeros((n, t))
        xy[everyone, query_t], visibility[everyone, query_t] = queries[:, 1:], 1
        original = np.zeros((n, cells[0].shape[2]), np.float32)
        for i in np.unique(query_t):
            original[query_t == i] = self._read(cells[i], queries[query_t == i, 1:])
        wanted, last, affine = original.copy(), xy[everyone, query_t], np.tile(np.eye(2), (n, 1, 1))

        for before, now, rows in outwards(query_t, t):
            joins = rows[query_t[rows] == before]
            wanted[joins], last[joins], affine[joins] = original[joins], queries[joins, 1:], np.eye(2)

            match = self._nearest(wanted[rows], cells[now], last[rows])
            found = templates.align(smooth(frames[now]), rows, match, affine[rows], settings.iterations)
            near = np.linalg.norm(found.xy - match, axis=1) < settings.anchor_px
            visible = graded(1 - found.similarity, 1 - settings.similar) * (near & inside(found.xy, height, width))
            jumps = np.flatnonzero((visible > 0.5) & (np.linalg.norm(found.xy - last[rows], axis=1) > settings.far_px))
            there = self._read(cells[now], found.xy)
            for i in np.unique(query_t[rows[jumps]]):
                some = jumps[query_t[rows[jumps]] == i]
                back = self._nearest(there[some], cells[i])
                visible[some] *= np.linalg.norm(back - queries[rows[some], 1:], axis=1) < settings.mutual_px

            xy[rows, now], visibility[rows, now] = found.xy, visible
            seen = visible > 0.5
            wanted[rows[seen]], last[rows[seen]], affine[rows[seen]] = there[seen], found.xy[seen], found.affine[seen]
        return Tracks(filled(xy, visibility > 0.5), visibility, np.full((n, t), np.nan))

    def _read(self, cells: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """float32 [n, C]: descriptors at any points, between the described places."""
        highest = np.array(cells.shape[1::-1]) - 1
        place = np.clip(xy / self.settings.stride_px, 0, highest)
        x, y = place.astype(int).T
        (right, below), (fx, fy) = (
            np.minimum([x + 1, y + 1], highest[:, None]),
            (place - np.floor(place)).astype(np.float32).T[..., None],
        )
        above = cells[y, x] * (1 - fx) + cells[y, right] * fx
        return above * (1 - fy) + (cells[below, x] * (1 - fx) + cells[below, right] * fx) * fy

    def _nearest(self, wanted: np.ndarray, cells: np.ndarray, last: np.ndarray | None = None) -> np.ndarray:
        """float64 [n, 2] px: the place [h, w, C] likest to each of [n, C]; where `last` is given, a place far from it costs more."""
        height, width, channels = cells.shape
        places = cells.reshape(-1, channels).astype(np.float32)
        length2 = np.square(places).sum(1)
        stride = self.settings.stride_px
        best = np.zeros(len(wanted), int)
        for start in range(0, len(wanted), BLOCK):
            block = wanted[start : start + BLOCK]
            full = np.zeros((BLOCK, channels), np.float32)
            full[: len(block)] = -2 * block
            cost = (full @ places.T)[: len(block)]
            cost += length2  # the squared distance, but for the length of `wanted`, which is the same everywhere
            if last is not None:
                jump_cost = np.float32(self.settings.jump_cost)
                x, y = (last[start : start + BLOCK] / stride).astype(np.float32).T
                dx2 = np.square(np.arange(width, dtype=np.float32) - x[:, None])[:, None, :]
                dy2 = np.square(np.arange(height, dtype=np.float32) - y[:, None])[:, :, None]
                share = jump_cost * np.float32(stride / self.settings.far_px) ** 2
                farther = share * dx2 + share * dy2
                cost += np.minimum(farther, jump_cost, out=farther).reshape(len(block), -1)
            best[start : start + BLOCK] = cost.argmin(1)
        return np.stack([best % width, best // width], axis=1) * float(stride)


def describe(frame: np.ndarray, stride_px: int) -> np.ndarray:
    """float32 [h, w, 151]: descriptors of the pixels (0, 0), (stride, 0), ... of a frame uint8 [H, W, 3]."""
    height, width = frame.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    slope = np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)], axis=-1)
    by_direction = np.maximum(slope @ DIRECTIONS.T, 0)
    fine, coarse = (cv2.GaussianBlur(by_direction, (0, 0), sigma) for sigma in SMOOTHING_PX)
    colour = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32) / 255, (0, 0), SMOOTHING_PX[0])

    places = np.stack(np.meshgrid(np.arange(0, width, stride_px), np.arange(0, height, stride_px)), axis=-1).astype(np.float32)
    gradients = [sample(fine, places)]
    gradients += [
        sample(image, places + radius * d) for image, radius in zip((fine, coarse), RINGS_PX, strict=True) for d in DIRECTIONS
    ]
    shape = np.concatenate(gradients, axis=-1)
    shape /= np.linalg.norm(shape, axis=-1, keepdims=True) + FLAT
    colours = [sample(colour, places)] + [sample(colour, places + RINGS_PX[1] * d) for d in DIRECTIONS[::2]]
    return np.concatenate([shape, *colours], axis=-1)


def filled(xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Tracks [N, T, 2] whose unseen places lie on the line between the seen ones around them; at the ends the nearest one stays."""
    frames = np.arange(xy.shape[1])
    lines = [[np.interp(frames, frames[s], track[s, axis]) for axis in (0, 1)] for track, s in zip(xy, seen, strict=True)]
    return np.array(lines).transpose(0, 2, 1)
