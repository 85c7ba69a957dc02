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
"""Where there is no distance: as far as that."""
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
    """The neighbours' say: an affine map, fitted to those that move with the query."""
    n, t, _ = centre.shape
    trust = np.where(has_position(centre), trust, 0).astype(np.float32)
    filled = np.where(has_position(centre)[..., None], centre, query_xy[:, None]).astype(np.float32)
    m = min(NEIGHBOURS, n - 1)
    rows = np.arange(n)
    neighbour, distance = _neighbours(filled, trust, query_t, query_xy, m)
    offset = filled[neighbour, query_t[:, None]] - query_xy[:, None]  # [N, M, 2]
    trust_then = trust[neighbour, query_t[:, None]] * np.exp(-np.square(distance / NEAR_PX))
    moved = filled[neighbour]  # [N, M, T, 2]
    trusted = trust[neighbour] * trust_then[..., None]  # [N, M, T]

    # Who moves with the query, judged in the frames in which both are trusted.
    stray = norm(moved - filled[:, None] - offset[:, :, None])
    both = trusted * trust[:, None] * (np.arange(t) != query_t[:, None])[:, None]
    stray = (stray * both).sum(-1) / np.maximum(both.sum(-1), 1e-6)
    with_it = np.where(both.sum(-1) > 0.5, np.exp(-stray / (2 + 0.15 * distance)), 0.3)
    weight = trusted * with_it[..., None]

    xy, affine = _fit(offset, moved, weight)
    for _ in range(2):
        told = xy[:, None] + np.einsum("ntij,nmj->nmti", affine, offset)
        xy, affine = _fit(offset, moved, weight / (1 + np.square(norm(moved - told) / 3)))
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
    offset: np.ndarray, moved: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of `moved` = xy + affine @ offset, drawn towards no turn and no
    zoom."""
    total = weight.sum(1) + 1e-6  # [N, T]
    share = weight / total[:, None]
    mean = np.einsum("nmt,nmi->nti", share, offset)
    mean_moved = np.einsum("nmt,nmti->nti", share, moved)
    second = (
        np.einsum("nmt,nmi,nmj->ntij", share, offset, offset)
        - mean[..., :, None] * mean[..., None, :]
    )
    cross = (
        np.einsum("nmt,nmti,nmj->ntij", share, moved, offset)
        - mean_moved[..., :, None] * mean[..., None, :]
    )
    ridge = 4.0 + 10.0 / total  # px squared: few neighbours, or near ones, tell no turn
    a, b, d = second[..., 0, 0] + ridge, second[..., 0, 1], second[..., 1, 1] + ridge
    cross = cross + ridge[..., None, None] * np.eye(2)
    determinant = a * d - b * b
    inverse = (
        np.stack([np.stack([d, -b], -1), np.stack([-b, a], -1)], -2) / determinant[..., None, None]
    )
    affine = cross @ inverse
    return mean_moved - np.einsum("ntij,ntj->nti", affine, mean), affine


def _strangers(
    centre: np.ndarray, trust: np.ndarray, query_t: np.ndarray, query_xy: np.ndarray,
    where: np.ndarray, affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """[N, T] each: of the trusted points near `where`, the share that was not there beside the
    query, and would not be if it moved with it; their number."""
    n, t, _ = centre.shape
    strangers, points = np.zeros((n, t), np.float32), np.zeros((n, t), np.float32)
    asked = np.unique(np.linspace(0, n - 1, min(n, OTHERS)).astype(int))
    itself = np.flatnonzero(np.arange(n)[:, None] == asked)
    centre, trust = centre[asked], trust[asked]
    then_x, then_y = (centre[:, query_t, axis].T - query_xy[:, axis, None] for axis in (0, 1))
    known = trust[:, query_t].T > 0.3  # [N, other]
    known.flat[itself] = False
    for frame in range(t):
        to_x, to_y = affine[:, frame, 0], affine[:, frame, 1]
        x, y = (centre[:, frame, axis] - where[:, frame, axis, None] for axis in (0, 1))
        squared = np.square(x) + np.square(y)
        near = trust[:, frame] * np.exp(squared / -64)
        near.flat[itself] = 0
        x -= to_x[:, :1] * then_x + to_x[:, 1:] * then_y
        y -= to_y[:, :1] * then_x + to_y[:, 1:] * then_y
        apart = np.sqrt(np.square(x) + np.square(y)) / (8 + 0.5 * np.sqrt(squared))
        strange = np.where(known, np.minimum(apart, 1), 0.5)
        points[:, frame] = near.sum(1)
        strangers[:, frame] = (near * strange).sum(1) / (points[:, frame] + 0.05)
    return strangers, points


def norm(vectors: np.ndarray) -> np.ndarray:
    """[...]: the lengths of `vectors` [..., 2]."""
    return np.sqrt(np.square(vectors[..., 0]) + np.square(vectors[..., 1]))
