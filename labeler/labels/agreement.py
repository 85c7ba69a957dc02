"""Agreement: which teachers to believe, frame by frame.

In   the raw tracks of K teachers on one clip. Out: `Labels`, as the shard stores them: support,
     spread, state, valid [N, T], keep [N].
It filters and selects, never blends: the mean of the teachers trains a worse student than one
random teacher (CoTracker3, table 8). Distances are px of the 256 x 256 raster, whatever the clip's
size. A teacher that failed is NaN in its own row of axis K.

Teachers whose tracks rest on the same evidence (`TeacherInfo.evidence`) are a family: they fail
together, so together they are one opinion, and each has an equal part of it. Shares and sums over
teachers are shares and sums of opinions; with all families of one they are plain counts.

`agree_plain` is how people read the rule, `agree` is what runs; a test holds them equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from teachers import ConfigError, Tracks, VisibleRule
from teachers.tracks import has_position

RASTER = 256
DISPUTED, VISIBLE, OCCLUDED = 0, 1, 2
TIE = 1e-6
"""Opinions are sums of parts such as 1/3: what is so near to equal is equal."""


@dataclass(frozen=True, kw_only=True)
class AgreementConfig:
    """When a teacher's track becomes a label."""

    tau_px: float = 2.0
    """Teachers within this distance of their medoid agree; px of the 256 x 256 raster."""
    min_support: float = 0.6
    """Least share of the opinions that must agree on a visible point; teachers whose evidence is of
    one kind have one opinion together."""
    min_visible_frames: int = 8
    """A query is kept with at least this many valid, visible frames."""
    min_motion_px: float = 0.0
    """A query is kept if its track moves at least this far (diagonal of its bounding box, 256
    raster); 0 keeps still points."""

    def __post_init__(self) -> None:
        if not 0 < self.tau_px < math.inf:
            raise ConfigError(f"tau_px = {self.tau_px}: must be above 0 px; 2 is the default.")
        if not 0 < self.min_support <= 1:
            raise ConfigError(
                f"min_support = {self.min_support}: must be in (0, 1]; 0.6 keeps a point on which "
                "two of three teachers agree."
            )
        if self.min_visible_frames < 1:
            raise ConfigError(
                f"min_visible_frames = {self.min_visible_frames}: must be at least 1."
            )
        if not 0 <= self.min_motion_px < math.inf:
            raise ConfigError(
                f"min_motion_px = {self.min_motion_px}: must not be negative; 0 switches it off."
            )


@dataclass(frozen=True)
class Labels:
    """What the teachers agree on, per query and frame."""

    support: np.ndarray
    """float32 [N, T] in [0, 1]: of the opinions of the teachers with finite xy, the share that sees
    the point within tau of the medoid."""
    spread: np.ndarray
    """float32 [N, T] px of the 256 raster: median distance of the seeing teachers to their medoid;
    NaN if none sees it."""
    state: np.ndarray
    """uint8 [N, T]: 0 disputed, 1 visible (more than half of the opinions see it), 2 occluded (more
    than half do not; in a shard, only where `labeler.labels.hidden` has evidence for it)."""
    valid: np.ndarray
    """bool [N, T]: the unbroken run of good frames that holds the query frame; in a shard, without
    those in which most don't see the point and nothing says that it is hidden."""
    keep: np.ndarray
    """bool [N]: enough valid visible frames and motion."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The `AgreementConfig` and the teachers, as stored."""

    def __repr__(self) -> str:
        n, t = self.support.shape
        states = {"visible": VISIBLE, "occluded": OCCLUDED, "disputed": DISPUTED}
        shares = (
            f"{name} {(self.state == state).sum() / max(self.state.size, 1):.0%}"
            for name, state in states.items()
        )
        return f"Labels of {n} x {t} points x frames: {', '.join(shares)}; {self.keep.sum()} kept"


@dataclass(frozen=True)
class Stack:
    """The tracks of K teachers in one array each, in the order of their names, in the 256 x 256
    raster."""

    names: tuple[str, ...]
    xy: np.ndarray
    """float32 [K, N, T, 2] px of the 256 raster, origin as in the clip; NaN where a teacher failed
    or does not cover a frame."""
    sees: np.ndarray
    """bool [K, N, T]: each teacher's own visible rule applied; False where xy is NaN."""
    families: tuple[str, ...]
    """The evidence of each: teachers of equal evidence are one opinion."""


def stack(
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    size_hw: tuple[int, int],
    evidence: Mapping[str, str] | None = None,
) -> Stack:
    """Tracks in px of a clip of `size_hw`, by teacher, as one `Stack`. `evidence` is each teacher's
    `TeacherInfo.evidence`; a teacher that it does not name is a family of its own."""
    names = tuple(sorted(tracks))
    height, width = size_hw
    scale = np.array([RASTER / width, RASTER / height], np.float32)
    return Stack(
        names,
        np.stack([tracks[name].xy * scale for name in names]),
        np.stack([rules[name](tracks[name]) for name in names]),
        tuple((evidence or {}).get(name) or f"teacher:{name}" for name in names),
    )


def opinions(
    xy: np.ndarray,  # [K, N, T, 2]
    families: Sequence[str] | None,  # K
) -> np.ndarray:  # float [K, N, T]
    """How much each teacher counts: of the n teachers of a family that have a position, each 1 / n;
    0 where it has none. None: each teacher is a family."""
    tracking = has_position(xy)
    if families is None or len(set(families)) == len(families):
        return tracking.astype(float)
    same = np.array([[a == b for b in families] for a in families], float)
    return np.where(tracking, 1 / np.maximum(np.tensordot(same, tracking, 1), 1), 0.0)


def agree(
    xy: np.ndarray,  # [K, N, T, 2] px of the 256 raster
    sees: np.ndarray,  # [K, N, T]  bool
    query_frames: np.ndarray,  # [N] int
    config: AgreementConfig,
    families: Sequence[str] | None = None,  # K; None: each teacher is one
) -> Labels:
    """Labels of one clip. See `agree_plain` for the rule in a few lines."""
    return judge(xy, sees, query_frames, *medoids(xy, sees, families), config, families)


def judge(
    xy: np.ndarray,  # [K, N, T, 2] px of the 256 raster
    sees: np.ndarray,  # [K, N, T]  bool
    query_frames: np.ndarray,  # [N] int
    medoid: np.ndarray,  # [N, T] int
    distance: np.ndarray,  # [K, N, T] px of the 256 raster
    config: AgreementConfig,
    families: Sequence[str] | None = None,
) -> Labels:
    """`agree`, where the `medoids` are known: they do not depend on `config`, so several can be
    tried for the price of one."""
    weight = opinions(xy, families)
    count = weight.sum(0)
    support = _sum(weight, sees & (distance <= config.tau_px)) / np.maximum(count, 1)
    spread = _median_over_teachers(np.where(sees, distance, np.nan))
    more_see = 2 * _sum(weight, sees) - count
    state = np.where(more_see > TIE, VISIBLE, np.where(more_see < -TIE, OCCLUDED, DISPUTED)).astype(
        np.uint8
    )
    good = ((state == VISIBLE) & at_least(support, config.min_support)) | (state == OCCLUDED)
    valid = run_through(good, query_frames)
    shown = valid & (state == VISIBLE)
    keep = shown.sum(-1) >= config.min_visible_frames
    if config.min_motion_px > 0:
        keep &= extent(xy, medoid, shown) >= config.min_motion_px
    return Labels(support.astype(np.float32), spread, state, valid, keep)


def medoids(
    xy: np.ndarray,  # [K, N, T, 2]
    sees: np.ndarray,  # [K, N, T] bool
    families: Sequence[str] | None = None,  # K; None: each teacher is one
) -> tuple[np.ndarray, np.ndarray]:  # int [N, T], float32 [K, N, T]
    """The seeing teacher nearest to all seeing teachers (-1 if none sees), and every teacher's
    distance to it (NaN likewise). A distance counts as much as the opinion of the teacher to which
    it is.

    Ties go to the first name, so that the order in which teachers were added does not matter.
    """
    k = len(xy)
    weight = opinions(xy, families)
    total = np.where(sees, 0.0, np.inf)
    for i in range(k):
        for j in range(k):
            if i != j:
                away = weight[j] * _distance(xy[i], xy[j])
                total[i] += np.where(sees[i] & sees[j], away, 0.0)
    medoid = np.where(sees.any(0), total.argmin(0), -1)
    centre = np.take_along_axis(xy, np.maximum(medoid, 0)[None, ..., None], axis=0)[0]
    centre = np.where(medoid[..., None] >= 0, centre, np.nan)
    return medoid, np.stack([_distance(xy[i], centre) for i in range(k)])


def agreeing(
    xy: np.ndarray,  # [K, N, T, 2] px of the 256 raster
    sees: np.ndarray,  # [K, N, T] bool
    state: np.ndarray,  # [N, T] uint8
    tau_px: float,
    families: Sequence[str] | None = None,  # K; None: each teacher is one
) -> np.ndarray:  # bool [K, N, T]
    """Where each teacher agrees itself: it sees the point within tau of the medoid, or says
    occluded where `state` is occluded."""
    _, distance = medoids(xy, sees, families)
    finite = has_position(xy)
    return (sees & (distance <= tau_px)) | (finite & ~sees & (state == OCCLUDED))


def label(
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    queries: np.ndarray,
    size_hw: tuple[int, int],
    config: AgreementConfig,
    evidence: Mapping[str, str] | None = None,
) -> Labels:
    """Labels from stored tracks in px of the clip: what `label` and `relabel` write.

    Args:
        tracks: raw tracks by teacher, [N, T, ...] each.
        rules: each teacher's visible rule.
        queries: float32 [N, 3] as (t, x, y).
        size_hw: height and width of the clip in px.
        config: thresholds, in the 256 raster.
        evidence: each teacher's `TeacherInfo.evidence`; None: each is like no other.
    """
    stacked = stack(tracks, rules, size_hw, evidence)
    query_frames = queries[:, 0].astype(int)
    labels = agree(stacked.xy, stacked.sees, query_frames, config, stacked.families)
    settings = {
        **asdict(config),
        "teachers": {name: str(rules[name]) for name in stacked.names},
        "evidence": dict(zip(stacked.names, stacked.families, strict=True)),
    }
    return Labels(labels.support, labels.spread, labels.state, labels.valid, labels.keep, settings)


def run_through(good: np.ndarray, query_frames: np.ndarray) -> np.ndarray:
    """bool [N, T]: of `good` [N, T], the unbroken run that holds each query's frame [N]; empty
    where that frame is not good."""
    n, t = good.shape
    frame = np.arange(t)
    query = np.asarray(query_frames, int).reshape(n, 1)
    before = np.where(~good & (frame <= query), frame, -1).max(-1, initial=-1)
    after = np.where(~good & (frame >= query), frame, t).min(-1, initial=t)
    return (frame > before[:, None]) & (frame < after[:, None])


def extent(xy: np.ndarray, medoid: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """float [N]: diagonal of the box around each medoid track, over the frames that are `shown`
    [N, T]; 0 if none is."""
    centre = np.take_along_axis(xy, np.maximum(medoid, 0)[None, ..., None], axis=0)[0]
    low = np.where(shown[..., None], centre, np.inf).min(1)
    high = np.where(shown[..., None], centre, -np.inf).max(1)
    return np.where(shown.any(1), np.hypot(*(high - low).T), 0.0)


def agree_plain(
    xy: np.ndarray,
    sees: np.ndarray,
    query_frames: Sequence[int],
    config: AgreementConfig,
    families: Sequence[str] | None = None,
) -> Labels:
    """`agree`, one point and frame at a time."""
    k, n, t = sees.shape
    family = families or range(k)
    support, spread = np.zeros((n, t), np.float32), np.full((n, t), np.nan, np.float32)
    state, valid, keep = np.zeros((n, t), np.uint8), np.zeros((n, t), bool), np.zeros(n, bool)
    for i in range(n):
        centres = np.full((t, 2), np.nan)
        for f in range(t):
            tracking = [a for a in range(k) if np.isfinite(xy[a, i, f]).all()]
            seeing = [a for a in tracking if sees[a, i, f]]
            weight = {a: 1 / sum(family[a] == family[b] for b in tracking) for a in tracking}
            whole, seen = sum(weight.values()), sum(weight[a] for a in seeing)
            if abs(2 * seen - whole) > TIE:
                state[i, f] = VISIBLE if 2 * seen > whole else OCCLUDED
            if seeing:
                sums = [
                    sum(
                        weight[b] * float(_distance(xy[a, i, f], xy[b, i, f]))
                        for b in seeing
                        if b != a
                    )
                    for a in seeing
                ]
                centres[f] = xy[seeing[int(np.argmin(sums))], i, f]
                distances = {
                    a: _distance(xy[a, i, f], centres[f].astype(np.float32)) for a in seeing
                }
                near = [a for a in seeing if distances[a] <= config.tau_px]
                support[i, f] = sum(weight[a] for a in near) / whole
                spread[i, f] = np.median(list(distances.values()))

        def is_good(f: int, i: int = i) -> bool:
            return state[i, f] == OCCLUDED or (
                state[i, f] == VISIBLE and bool(at_least(support[i, f], config.min_support))
            )

        for step in (1, -1):
            f = int(query_frames[i])
            while 0 <= f < t and is_good(f):
                valid[i, f] = True
                f += step
        shown = valid[i] & (state[i] == VISIBLE)
        keep[i] = shown.sum() >= config.min_visible_frames
        if config.min_motion_px > 0 and keep[i]:
            keep[i] = np.linalg.norm(np.ptp(centres[shown], axis=0)) >= config.min_motion_px
    return Labels(support, spread, state, valid, keep)


def _sum(weight: np.ndarray, of: np.ndarray) -> np.ndarray:
    """[N, T]: the sum over teachers of `weight` [K, N, T] where `of` [K, N, T]."""
    return np.where(of, weight, 0.0).sum(0)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distance over the last axis; NaN where either is."""
    return np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1])


def at_least(support: np.ndarray, least: float) -> np.ndarray:
    """`support >= least` for shares of small counts: 3 of 5 is 0.6 although float32 says a little
    less or more."""
    return support >= least - 1e-6


def _median_over_teachers(distance: np.ndarray) -> np.ndarray:
    """Median over axis 0 of [K, N, T], NaN left out; NaN where all are."""
    ordered = np.sort(distance, axis=0)  # NaN sorts last
    count = np.isfinite(ordered).sum(0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    pick = [np.take_along_axis(ordered, index[None], axis=0)[0] for index in (low, high)]
    return ((pick[0] + pick[1]) / 2).astype(np.float32)
