"""Search: look for each query in every frame, wherever it may be, then locate it to a fraction of a
pixel.

A subclass defines how positions on a regular grid of every frame are described (`match.py`,
`xfeat/teacher.py`); everything else is here.

Search    all described positions of a frame for the likest one. Positions far from where the point
          was last seen cost a little more.
Locate    the patch of the query is aligned there (`patches.py`); a patch that looks different means
          that the point is hidden.
Jumps     a match far from where the point was last seen must be mutual: from there back to the
          query's frame, it leads to the query.
Turning   descriptors are upright. So the one looked for is renewed whenever a point is found, and
          its affine map starts the next alignment; the alignment stays with the query's own patch,
          so this does not drift.
Lost      frames without a match are filled in linearly between those with one. A point that comes
          back is found wherever it does.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from teachers.classical.bidirectional import (
    PATCH_ALIGNMENT,
    from_query_frame,
)
from teachers.classical.patches import AlignmentSettings, Templates, smooth
from teachers.classical.visibility import graded, in_frame
from teachers.interface import Teacher
from teachers.tracks import Tracks

BLOCK = 128
"""Queries are compared in blocks of this many rows, the last one filled up, so that the result of a
row does not depend on how many rows there are."""


@dataclass(frozen=True, kw_only=True)
class MatchSettings(AlignmentSettings):
    """Which matches are trusted.

    Attributes:
        far_px, jump_cost: a match farther than `far_px` from where the point was last seen is a
            jump: `jump_cost` is added to the squared distance of descriptors (0 to about 2), and
            part of it to a nearer match's.
        mutual_px: the way back from a jump must end within this distance of the query.
    """

    patch_radius_px: int = 8
    iterations: int = 6
    similar: float = 0.9
    far_px: float = 40.0
    jump_cost: float = 0.3
    mutual_px: float = 8.0


@dataclass(frozen=True)
class Described:
    """What every frame of a clip looks like around the positions of a grid."""

    cells: list[np.ndarray]
    """T of float16 [h, w, C]: descriptors, about 1 long."""
    first_px: np.ndarray
    """[2] (x, y): the position of the cell [0, 0]."""
    step_px: np.ndarray
    """[2] (x, y): the step from a cell to the next."""

    def read(self, t: int, xy: np.ndarray) -> np.ndarray:  # [n, 2] px -> float32 [n, C]
        """Descriptors of frame `t` at any points, between the described positions."""
        cells = self.cells[t]
        highest = np.array(cells.shape[1::-1]) - 1
        position = np.clip((xy - self.first_px) / self.step_px, 0, highest)
        x, y = position.astype(int).T
        (right, below), (fx, fy) = (
            np.minimum([x + 1, y + 1], highest[:, None]),
            (position - np.floor(position)).astype(np.float32).T[..., None],
        )
        above = cells[y, x] * (1 - fx) + cells[y, right] * fx
        return above * (1 - fy) + (cells[below, x] * (1 - fx) + cells[below, right] * fx) * fy


class MatchingTeacher(Teacher):
    """A tracker that searches. Subclasses define `settings` and `_describe`. Visibility is 1 for a
    patch that looks as it does in the query's frame, and 1/2 at the least correlation that is
    allowed.
    """

    evidence = PATCH_ALIGNMENT
    settings: MatchSettings
    between_cells: ClassVar[bool]
    """Whether a match lies at the vertex of the parabola through the likest cell and its
    neighbours, or on the cell."""

    @abc.abstractmethod
    def _describe(self, frames: np.ndarray) -> Described:
        """The descriptors of frames, uint8 [T, H, W, 3]."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        settings = self.settings
        n, (t, height, width, _) = len(queries), frames.shape
        frames = np.ascontiguousarray(frames)
        described = self._describe(frames)
        templates = Templates(frames, queries, settings.patch_radius_px)

        query_t, everyone = queries[:, 0].astype(int), np.arange(n)
        xy, visibility = np.zeros((n, t, 2)), np.zeros((n, t))
        xy[everyone, query_t], visibility[everyone, query_t] = queries[:, 1:], 1
        original = np.zeros((n, described.cells[0].shape[2]), np.float32)
        for i in np.unique(query_t):
            original[query_t == i] = described.read(i, queries[query_t == i, 1:])
        wanted, last, affine = original.copy(), xy[everyone, query_t], np.tile(np.eye(2), (n, 1, 1))

        for before, now, rows in from_query_frame(query_t, t):
            joins = rows[query_t[rows] == before]
            wanted[joins], last[joins], affine[joins] = (
                original[joins],
                queries[joins, 1:],
                np.eye(2),
            )

            match = self._nearest(wanted[rows], described, now, last[rows])
            found = templates.align(
                smooth(frames[now]), rows, match, affine[rows], settings.iterations
            )
            near = np.linalg.norm(found.xy - match, axis=1) < settings.anchor_px
            visible = graded(1 - found.similarity, 1 - settings.similar) * (
                near & in_frame(found.xy, height, width)
            )
            jumps = np.flatnonzero(
                (visible > 0.5) & (np.linalg.norm(found.xy - last[rows], axis=1) > settings.far_px)
            )
            there = described.read(now, found.xy)
            for i in np.unique(query_t[rows[jumps]]):
                some = jumps[query_t[rows[jumps]] == i]
                back = self._nearest(there[some], described, i)
                visible[some] *= (
                    np.linalg.norm(back - queries[rows[some], 1:], axis=1) < settings.mutual_px
                )

            xy[rows, now], visibility[rows, now] = found.xy, visible
            seen = visible > 0.5
            wanted[rows[seen]], last[rows[seen]], affine[rows[seen]] = (
                there[seen],
                found.xy[seen],
                found.affine[seen],
            )
        return Tracks(filled(xy, visibility > 0.5), visibility, np.full((n, t), np.nan))

    def _nearest(
        self, wanted: np.ndarray, described: Described, t: int, last: np.ndarray | None = None
    ) -> np.ndarray:
        """float64 [n, 2] px: the position in frame `t` likest to each of [n, C]; where `last` is
        given, a position far from it costs more."""
        cells = described.cells[t]
        height, width, channels = cells.shape
        positions = cells.reshape(-1, channels).astype(np.float32)
        length2 = np.square(positions).sum(1)
        best = np.zeros((len(wanted), 2))
        for start in range(0, len(wanted), BLOCK):
            block = wanted[start : start + BLOCK]
            full = np.zeros((BLOCK, channels), np.float32)
            full[: len(block)] = -2 * block
            cost = (full @ positions.T)[: len(block)]
            # the squared distance without the length of `wanted`, which is the same everywhere
            cost += length2
            if last is not None:
                jump_cost = np.float32(self.settings.jump_cost)
                x, y = (
                    ((last[start : start + BLOCK] - described.first_px) / described.step_px)
                    .astype(np.float32)
                    .T
                )
                share_x, share_y = (
                    jump_cost * np.float32(step / self.settings.far_px) ** 2
                    for step in described.step_px
                )
                dx2 = np.square(np.arange(width, dtype=np.float32) - x[:, None])[:, None, :]
                dy2 = np.square(np.arange(height, dtype=np.float32) - y[:, None])[:, :, None]
                farther = share_x * dx2 + share_y * dy2
                cost += np.minimum(farther, jump_cost, out=farther).reshape(len(block), -1)
            best[start : start + BLOCK] = _lowest(
                cost.reshape(-1, height, width), self.between_cells
            )
        return described.first_px + best * described.step_px


def _lowest(
    cost: np.ndarray,  # [n, h, w]
    between: bool,
) -> np.ndarray:  # [n, 2] (x, y)
    """The cell of least cost; `between` cells, the vertex of the parabola through it and its
    neighbours, by row and by column."""
    n, height, width = cost.shape
    cell = np.stack(np.divmod(cost.reshape(n, -1).argmin(1), width)[::-1], axis=1)
    if not between:
        return cell.astype(float)
    vertex, everyone, highest = cell.astype(float), np.arange(n), np.array([width, height]) - 1
    for axis, step in enumerate(np.eye(2, dtype=int)):
        low, middle, high = (
            cost[everyone, y, x]
            for x, y in (np.clip(cell + i * step, 0, highest).T for i in (-1, 0, 1))
        )
        bend = low + high - 2 * middle
        inner = (cell[:, axis] > 0) & (cell[:, axis] < highest[axis]) & (bend > 0)
        # at most half a cell, as the middle is the lowest
        vertex[inner, axis] += 0.5 * (low - high)[inner] / bend[inner]
    return vertex


def filled(xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Tracks [N, T, 2] whose unseen positions lie on the line between the seen ones around them; at
    the ends the nearest one stays."""
    frames = np.arange(xy.shape[1])
    lines = [
        [np.interp(frames, frames[s], track[s, axis]) for axis in (0, 1)]
        for track, s in zip(xy, seen, strict=True)
    ]
    return np.array(lines).transpose(0, 2, 1)
