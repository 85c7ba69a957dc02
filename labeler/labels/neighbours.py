"""Neighbours: where a query would be if it moved with the points around it.

In   the centre of the teachers' positions [N, T, 2] and how far it is trusted. Out: `Expected`: for
     each query and frame a position, the map of its surroundings to there, and who else is there.

An affine map is fitted to the trusted points that moved with the query while it was seen. It tells
*hidden* from *lost*: it says where the query's surface is when no teacher knows. Distances are px
of the 256 x 256 raster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from teachers.tracks import has_position

NEIGHBOURS = 12
FAR_PX = 64.0
"""The distance that is assumed where none is known."""
NEAR_PX = 32.0
"""Points within about this distance are neighbours."""
OTHERS = 128
"""Points that are asked who is near a position: no more, evenly drawn from all."""


@dataclass(frozen=True)
class Centre:
    """Where most teachers are."""

    xy: np.ndarray
    """[N, T, 2]: the medoid of those that see the point, of all where none does; NaN without
    any."""
    spread: np.ndarray
    """[N, T] px: the median distance of those teachers from there."""
    trust: np.ndarray
    """[N, T]: the share of all teachers that see the point within 2 px of there."""


def centre_of(
    xy: np.ndarray,  # [K, N, T, 2] px of the raster
    placed: np.ndarray,  # bool [K, N, T]
    sees: np.ndarray,  # bool [K, N, T]
) -> Centre:
    """A tie (two teachers are always one) goes to the position farther left and up: the order of
    teachers must not matter."""
    asked: np.ndarray = np.where(sees.any(0), sees, placed)
    total = np.where(asked, 1e-3 * xy[..., 0] + 3e-4 * xy[..., 1], np.inf)
    for i in range(len(xy)):
        distance = norm(xy - xy[i])
        total += np.where(asked & asked[i], distance, 0)
    medoid_xy = np.take_along_axis(xy, total.argmin(0)[None, ..., None], axis=0)[0]
    away = np.where(asked, np.minimum(norm(xy - medoid_xy), FAR_PX), np.inf)
    middle = np.maximum(asked.sum(0) - 1, 0) // 2
    spread = np.minimum(np.take_along_axis(np.sort(away, axis=0), middle[None], axis=0)[0], FAR_PX)
    trust = (sees & (away <= 2)).sum(0) / np.maximum(placed.sum(0), 1)
    medoid_xy[~np.logical_or.reduce(placed)] = np.nan
    return Centre(medoid_xy, spread, trust.astype(np.float32))


@dataclass(frozen=True)
class Expected:
    """Where each query would be if it moved with the points around it."""

    xy: np.ndarray
    """float32 [N, T, 2] px of the raster, finite everywhere."""
    affine: np.ndarray
    """float32 [N, T, 2, 2]: from an offset to the query to the offset in this frame."""
    weight: np.ndarray
    """[N, T]: how many trusted neighbours say so."""
    seen: np.ndarray
    """[N, T]: the share of the teachers that see the neighbours."""
    strangers: np.ndarray
    """[N, T] in [0, 1]: of the trusted points near that position, those that don't move with it."""
    points: np.ndarray
    """[N, T]: how many trusted points are near that position."""

    @property
    def known(self) -> np.ndarray:
        """bool [N, T]."""
        return self.weight > 0.1


def expect(
    centre: np.ndarray,  # [N, T, 2] NaN where unknown
    trust: np.ndarray,  # [N, T]
    seen: np.ndarray,  # [N, T]
    query_t: np.ndarray,  # [N]
    query_xy: np.ndarray,  # [N, 2]
) -> Expected:
    """What the neighbours expect: an affine map, fitted to those that move with the query."""
    n, t, _ = centre.shape
    trust = np.where(has_position(centre), trust, 0).astype(np.float32)
    filled = np.where(has_position(centre)[..., None], centre, query_xy[:, None]).astype(np.float32)
    m = min(NEIGHBOURS, n - 1)
    rows = np.arange(n)
    neighbour, distance = _neighbours(filled, trust, query_t, query_xy, m)
    offset = filled[neighbour, query_t[:, None]] - query_xy[:, None]  # [N, M, 2]
    trust_then = trust[neighbour, query_t[:, None]] * np.exp(-np.square(distance / NEAR_PX))
    moved = np.moveaxis(filled, -1, 0)[:, neighbour]  # [2, N, M, T]
    trusted = trust[neighbour] * trust_then[..., None]  # [N, M, T]

    # Who moves with the query, judged in the frames in which both are trusted.
    kept_off = offset[..., None] + filled[:, None].swapaxes(-1, -2)  # [N, M, 2, T]
    stray = np.hypot(*(moved - np.moveaxis(kept_off, 2, 0)))
    both = trusted * trust[:, None] * (np.arange(t) != query_t[:, None])[:, None]
    stray = (stray * both).sum(-1) / np.maximum(both.sum(-1), 1e-6)
    with_it = np.where(both.sum(-1) > 0.5, np.exp(-stray / (2 + 0.15 * distance)), 0.3)
    weight = trusted * with_it[..., None].astype(np.float32)

    xy, affine = _fit(offset, moved, weight)
    for _ in range(2):
        told = xy[..., None] + affine @ offset[:, None].swapaxes(-1, -2)  # [N, T, 2, M]
        stray = moved - np.transpose(told, (2, 0, 3, 1))
        off = np.square(stray[0]) + np.square(stray[1])
        xy, affine = _fit(offset, moved, weight / (1 + off / 9))
    total = weight.sum(1)
    known = total > 0.1
    xy = np.where(known[..., None], xy, filled)
    affine = np.where(known[..., None, None], affine, np.eye(2, dtype=np.float32))
    kept = np.maximum(with_it.sum(-1, keepdims=True), 1e-6)
    neighbours_seen = (seen[neighbour] * with_it[..., None]).sum(1) / kept
    xy[rows, query_t] = query_xy
    affine[rows, query_t] = np.eye(2)
    strangers, points = _strangers(filled, trust, query_t, query_xy, xy, affine)
    return Expected(
        xy.astype(np.float32), affine.astype(np.float32), total, neighbours_seen, strangers, points
    )


def _neighbours(
    centre: np.ndarray, trust: np.ndarray, query_t: np.ndarray, query_xy: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """int [N, m], px [N, m]: the trusted points nearest to each query in its own frame."""
    n = len(query_t)
    index, distance = np.zeros((n, m), int), np.zeros((n, m), np.float32)
    if not m:
        return index, distance
    for t in np.unique(query_t):
        rows = np.flatnonzero(query_t == t)
        away = norm(centre[:, t] - query_xy[rows, None]) + FAR_PX * (trust[:, t] < 0.3)
        away[np.arange(len(rows)), rows] = np.inf
        index[rows] = np.argpartition(away, m - 1, axis=1)[:, :m]
        distance[rows] = np.take_along_axis(away, index[rows], 1)
    return index, distance


def _fit(
    offset: np.ndarray,  # [N, M, 2]
    moved: np.ndarray,  # [2, N, M, T]
    weight: np.ndarray,  # [N, M, T]
) -> tuple[np.ndarray, np.ndarray]:  # [N, T, 2], [N, T, 2, 2]
    """Weighted least squares of `moved` = xy + affine @ offset, drawn towards no turn and no
    zoom."""
    total = weight.sum(1) + np.float32(1e-6)  # [N, T]
    share = weight / total[:, None]
    x, y = offset[..., 0], offset[..., 1]
    powers = np.stack([x, y, x * x, x * y, y * y], 1)  # [N, 5, M]
    mean_x, mean_y, xx, xy, yy = np.moveaxis(powers @ share, 1, 0)  # [N, T] each
    ridge = 4 + 10 / total  # px squared: few neighbours, or near ones, tell no turn
    a, b, d = xx - mean_x * mean_x + ridge, xy - mean_x * mean_y, yy - mean_y * mean_y + ridge
    determinant = a * d - b * b
    ones = np.stack([np.ones_like(x), x, y], 1)  # [N, 3, M]
    position, affine = [], []
    for axis in (0, 1):
        mean, with_x, with_y = np.moveaxis(ones @ (share * moved[axis]), 1, 0)
        with_x, with_y = with_x - mean * mean_x, with_y - mean * mean_y
        (with_x, with_y)[axis][:] += ridge
        along_x = (with_x * d - with_y * b) / determinant
        along_y = (with_y * a - with_x * b) / determinant
        position.append(mean - along_x * mean_x - along_y * mean_y)
        affine.append(np.stack([along_x, along_y], -1))
    return np.stack(position, -1), np.stack(affine, -2)


def _strangers(
    centre: np.ndarray, trust: np.ndarray, query_t: np.ndarray, query_xy: np.ndarray,
    where: np.ndarray, affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """[N, T] each: of the trusted points near `where`, the share that was not there beside the
    query, and would not be if it moved with it; their number."""
    n, t, _ = centre.shape
    strangers, points = np.zeros((n, t), np.float32), np.zeros((n, t), np.float32)
    asked = np.unique(np.linspace(0, n - 1, min(n, OTHERS)).astype(int))
    centre, trust = centre[asked], trust[asked]
    then = centre[:, query_t].swapaxes(0, 1) - query_xy[:, None]  # [N, other, 2]
    known = trust[:, query_t].T > 0.3  # [N, other]
    itself = asked == np.arange(n)[:, None]
    for frame in range(t):
        x, y = (centre[:, frame, axis] - where[:, frame, axis, None] for axis in (0, 1))
        squared = x * x + y * y
        near = (squared < NEAR_PX**2) & (trust[:, frame] > 0) & ~itself
        row, other = np.nonzero(near)
        away = squared[near]
        counts = trust[other, frame] * np.exp(away / -64)
        told = (affine[row, frame] @ then[row, other, :, None])[..., 0]
        apart = np.hypot(x[near] - told[:, 0], y[near] - told[:, 1]) / (8 + 0.5 * np.sqrt(away))
        strange = np.where(known[row, other], np.minimum(apart, 1), 0.5)
        points[:, frame] = np.bincount(row, counts, n)
        strangers[:, frame] = np.bincount(row, counts * strange, n) / (points[:, frame] + 0.05)
    return strangers, points


def norm(vectors: np.ndarray) -> np.ndarray:
    """[...]: the lengths of `vectors` [..., 2]."""
    return np.sqrt(np.square(vectors[..., 0]) + np.square(vectors[..., 1]))
