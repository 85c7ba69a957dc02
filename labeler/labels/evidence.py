"""Evidence: numbers that speak for or against each position that a teacher gives.

In   frames, queries, and the tracks of K teachers on one clip. Out: `Evidence`: numbers about each
     position [K, N, T, OWN], and about each query and frame [N, T, SHARED].

A position is weighed by what its teacher says of it, by who else is there, by how alike its
surroundings are to the query's, by how it moves, and by what the points near it do. The last is
what tells *hidden* from *lost*: the queries that move with this one say where its surface is
now, and then either that position looks like the query, or other points are there, or nobody knows.

No number depends on a teacher's name or on the order of teachers; what speaks of the other
teachers is sorted, counted, or shared out. Everything is measured on the 256 x 256 raster, to
which frames are brought first, so that a clip's size does not matter.

Words      centre: the position of the medoid of the teachers that see the point (of all, where
           none does). trust: the share of the teachers that see it there. expected position: where
           a query would be if it moved with its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labeler.labels.agreement import RASTER
from labeler.labels.appearance import Appearance, bring, compare
from labeler.labels.neighbours import FAR_PX, Centre, Expected, centre_of, expect, norm
from teachers import Tracks, VisibleRule
from teachers.tracks import has_position

OWN = (
    "visibility", "visibility known", "confidence", "confidence known", "sees", "above threshold",
    "nearest", "second", "third", "nearest seeing", "second seeing", "third seeing",
    "within 1/4 px", "within 1 px", "within 2 px", "within 4 px", "within 8 px",
    "seeing within 1 px", "seeing within 2 px", "seeing within 4 px",
    "from centre", "alike", "alike, turned", "alike around", "alike, less the best other",
    "alike around, less the best other", "as the best other",
    "seems off", "seems off around", "as before", "as after", "colour", "contrast here",
    "speed", "speed after", "acceleration", "from expected", "as expected", "beside expected",
    "border", "least alike so far", "mean alike so far", "least alike around so far",
    "longest step so far", "mean agreement so far",
    "teacher sees", "teacher agrees", "teacher alike", "teacher as expected", "teacher's steps",
)  # fmt: skip
"""The numbers of a position: [K, N, T, len(OWN)]."""

SHARED = (
    "time", "in query frame", "seen", "teachers", "trust", "spread", "neighbours",
    "neighbours seen", "strangers", "points here", "alike where expected",
    "alike around where expected", "border of expected", "query contrast", "query corner",
    "query contrast around", "best alike", "best alike of seeing", "found again",
    "alike again", "trust so far", "least trust so far", "centre from expected",
)  # fmt: skip
"""The numbers of a query in a frame: [N, T, len(SHARED)]."""


@dataclass(frozen=True)
class Evidence:
    """Numbers about the positions of K teachers on one clip."""

    own: np.ndarray
    """float32 [K, N, T, len(OWN)]; 0 where there is no position."""
    shared: np.ndarray
    """float32 [N, T, len(SHARED)]."""
    placed: np.ndarray
    """bool [K, N, T]: where a teacher gives a position."""


def gather(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
    tracks: Mapping[str, Tracks],  # [N, T, ...] each, px of the clip
    rules: Mapping[str, VisibleRule],
) -> Evidence:
    """The evidence of one clip, teachers in the order of `tracks`."""
    names = list(tracks)
    n, t = len(queries), len(frames)
    if not names or not n:
        empty = np.zeros((len(names), n, t), bool)
        own = np.zeros((*empty.shape, len(OWN)), np.float32)
        return Evidence(own, np.zeros((n, t, len(SHARED)), np.float32), empty)
    scale = np.array([RASTER / frames.shape[2], RASTER / frames.shape[1]], np.float32)
    xy = np.stack([(tracks[name].xy + np.float32(0.5)) * scale - np.float32(0.5) for name in names])
    xy = np.where(has_position(xy)[..., None], xy, np.float32(np.nan))
    said = _Said.of([tracks[name] for name in names], [rules[name] for name in names])
    query_t = queries[:, 0].astype(int)
    query_xy = ((queries[:, 1:] + 0.5) * scale - 0.5).astype(np.float32)
    return _gather(frames, query_t, query_xy, xy, said)


@dataclass(frozen=True)
class _Said:
    """What teachers say of their positions: [K, N, T] each."""

    sees: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    above: np.ndarray
    """What the rule compares, less its threshold; 0 where a rule compares nothing."""

    @classmethod
    def of(cls, tracks: Sequence[Tracks], rules: Sequence[VisibleRule]) -> _Said:
        above = []
        for each, rule in zip(tracks, rules, strict=True):
            value = each.visibility if rule.quantity == "v" else each.visibility * each.confidence
            none = rule.quantity == "none"
            above.append(np.zeros_like(value) if none else np.nan_to_num(value - rule.threshold))
        return cls(
            np.stack([rule(each) for each, rule in zip(tracks, rules, strict=True)]),
            np.stack([each.visibility for each in tracks]),
            np.stack([each.confidence for each in tracks]),
            np.stack(above),
        )


def _gather(
    frames: np.ndarray, query_t: np.ndarray, query_xy: np.ndarray, xy: np.ndarray, said: _Said
) -> Evidence:
    placed, sees = has_position(xy), said.sees
    images = [bring(frame) for frame in frames]
    others, middle = _others(xy, placed, sees), centre_of(xy, placed, sees)
    seen = sees.sum(0) / np.maximum(placed.sum(0), 1)
    expected = expect(middle.xy, middle.trust, seen, query_t, query_xy)
    looks = compare(images, query_t, query_xy, xy, placed, expected)
    ago = np.arange(len(frames)) - query_t[:, None]
    own = _own(xy, placed, said, others, middle, expected, looks, ago)
    return Evidence(own, _shared(placed, sees, middle, expected, looks, ago), placed)


def _own(
    xy: np.ndarray, placed: np.ndarray, said: _Said, others: _Others, middle: Centre,
    expected: Expected, looks: Appearance, ago: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The numbers of each position; `ago` [N, T] is t less the query's."""
    before_query = ago < 0

    def towards(back: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of what links a frame with the one before and the next: on the query's side, beyond."""
        return np.where(before_query, on, back), np.where(before_query, back, on)

    speed, speed_beyond = towards(*_steps(xy))
    turn = np.zeros_like(speed)
    if xy.shape[2] > 2:
        turn[:, :, 1:-1] = np.nan_to_num(norm(xy[:, :, 2:] - 2 * xy[:, :, 1:-1] + xy[:, :, :-2]))
    off = xy - expected.xy
    from_expected = np.where(expected.known, np.nan_to_num(norm(off), nan=FAR_PX), FAR_PX)
    beside, _ = towards(*_steps(off))
    firm = np.exp(-from_expected / 3) * np.minimum(expected.weight, 1)
    alike, alike_around = looks.alike[1], looks.alike[2]
    share = others.within[2]
    by_teacher = [
        np.broadcast_to(_mean_where(placed, value)[:, None, None], placed.shape)
        for value in (said.sees, share, alike, from_expected < 3, np.log1p(turn))
    ]
    own = np.stack([
        np.nan_to_num(said.visibility, nan=0.5), np.isfinite(said.visibility),
        np.nan_to_num(said.confidence, nan=0.5), np.isfinite(said.confidence),
        said.sees, said.above,
        *np.log1p(others.nearest), *np.log1p(others.nearest_seeing),
        *others.within, *others.seeing_within,
        np.log1p(np.nan_to_num(norm(xy - middle.xy), nan=FAR_PX)),
        *looks.alike, *looks.less_best, looks.as_best, *np.log1p(looks.off),
        *towards(looks.as_last, looks.as_next), looks.colour, np.log1p(looks.contrast),
        np.log1p(speed), np.log1p(speed_beyond), np.log1p(turn),
        np.log1p(from_expected), firm, np.log1p(beside),
        np.clip(np.nan_to_num(_to_border(xy)), -4, 16) / 16,
        so_far(alike, ago, np.minimum), mean_so_far(alike, ago),
        so_far(alike_around, ago, np.minimum),
        so_far(np.log1p(np.where(ago == 0, 0, beside)), ago, np.maximum),
        mean_so_far(share, ago), *by_teacher,
    ], dtype=np.float32, casting="same_kind")  # fmt: skip
    own *= placed
    return np.moveaxis(own, 0, -1)


def _shared(
    placed: np.ndarray, sees: np.ndarray, middle: Centre,
    expected: Expected, looks: Appearance, ago: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The numbers of each query and frame."""
    teachers = np.maximum(placed.sum(0), 1)
    alike = looks.alike[1]
    best, best_seeing = _max_where(alike, placed), _max_where(alike, sees)
    sure = middle.trust * np.maximum(best_seeing, 0)
    from_centre = np.nan_to_num(norm(middle.xy - expected.xy), nan=FAR_PX)
    from_centre = np.where(expected.known, from_centre, FAR_PX)
    return np.stack([
        np.log1p(np.abs(ago)), ago == 0, sees.sum(0) / teachers, np.log(teachers),
        middle.trust, np.log1p(middle.spread), np.minimum(expected.weight, 4) / 4,
        expected.seen, expected.strangers, np.minimum(expected.points, 4) / 4,
        *looks.expected, np.clip(_to_border(expected.xy), -16, 32) / 16,
        *(np.broadcast_to(np.log1p(value)[:, None], ago.shape) for value in looks.query),
        best, best_seeing, beyond(sure, ago), beyond(best, ago),
        mean_so_far(sure, ago), so_far(sure, ago, np.minimum),
        np.log1p(from_centre),
    ], -1).astype(np.float32)  # fmt: skip


def _steps(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[K, N, T] px: from the frame before, and to the next one; 0 where there is none."""
    step = np.nan_to_num(norm(np.diff(xy, axis=2)))
    nothing = np.zeros((*xy.shape[:2], 1), step.dtype)
    return np.concatenate([nothing, step], 2), np.concatenate([step, nothing], 2)


def _to_border(xy: np.ndarray) -> np.ndarray:
    """px from positions [..., 2] to the raster's nearest border; negative outside."""
    inwards = np.minimum(xy, RASTER - 1 - xy)
    return np.minimum(inwards[..., 0], inwards[..., 1])


# Other teachers


@dataclass(frozen=True)
class _Others:
    """What the other teachers say about each position."""

    nearest: np.ndarray
    """[3, K, N, T] px: to the nearest others; FAR_PX where there are fewer."""
    nearest_seeing: np.ndarray
    within: np.ndarray
    """[5, K, N, T]: the share of the others within 1/4, 1, 2, 4, 8 px."""
    seeing_within: np.ndarray
    """[3, K, N, T]: the share of the others that see the point within 1, 2, 4 px."""


def _others(xy: np.ndarray, placed: np.ndarray, sees: np.ndarray) -> _Others:
    k, n, t, _ = xy.shape
    nearest = np.full((3, k, n, t), FAR_PX, np.float32)
    nearest_seeing = nearest.copy()
    within, seeing_within = np.zeros((5, k, n, t), np.float32), np.zeros((3, k, n, t), np.float32)
    count = np.maximum(placed.sum(0) - 1, 1)
    for i in range(k):
        distance = np.minimum(np.nan_to_num(norm(xy - xy[i]), nan=FAR_PX), FAR_PX)  # [K, N, T]
        distance[i] = FAR_PX
        seeing = np.where(sees, distance, FAR_PX)
        rows = min(3, k)
        nearest[:rows, i] = np.sort(distance, axis=0)[:rows]
        nearest_seeing[:rows, i] = np.sort(seeing, axis=0)[:rows]
        for row, px in enumerate((0.25, 1, 2, 4, 8)):
            within[row, i] = (distance <= px).sum(0) / count
        for row, px in enumerate((1, 2, 4)):
            seeing_within[row, i] = (seeing <= px).sum(0) / count
    return _Others(nearest, nearest_seeing, within, seeing_within)


# Along a track


def so_far(value: np.ndarray, ago: np.ndarray, what: np.ufunc) -> np.ndarray:
    """`what` (minimum or maximum) of `value` [..., N, T] from the query's frame to each frame;
    `ago` [N, T] is t less that."""
    none = np.inf if what is np.minimum else -np.inf
    on = what.accumulate(np.where(ago >= 0, value, none), axis=-1)
    back = what.accumulate(np.where(ago <= 0, value, none)[..., ::-1], axis=-1)[..., ::-1]
    return np.where(ago >= 0, on, back)


def mean_so_far(value: np.ndarray, ago: np.ndarray) -> np.ndarray:
    """The mean of `value` [..., N, T] from the query's frame to each frame."""
    on = np.cumsum(np.where(ago >= 0, value, 0), axis=-1)
    back = np.cumsum(np.where(ago <= 0, value, 0)[..., ::-1], axis=-1)[..., ::-1]
    return np.where(ago >= 0, on, back) / (np.abs(ago) + np.float32(1))


def beyond(value: np.ndarray, ago: np.ndarray) -> np.ndarray:
    """The highest `value` [..., N, T] (0 or more) in the frames farther from the query than each
    one."""
    on = np.maximum.accumulate(value[..., ::-1], axis=-1)[..., ::-1]
    back = np.maximum.accumulate(value, axis=-1)
    nothing = np.zeros_like(value[..., :1])
    on = np.concatenate([on[..., 1:], nothing], -1)
    back = np.concatenate([nothing, back[..., :-1]], -1)
    return np.maximum(np.where(ago >= 0, on, back), 0)


def _mean_where(placed: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[K]: each teacher's mean of `value` [K, N, T] over its positions; 0 where it has none."""
    return np.where(placed, value, 0).sum((1, 2)) / np.maximum(placed.sum((1, 2)), 1)


def _max_where(value: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where, value, -1).max(0)
