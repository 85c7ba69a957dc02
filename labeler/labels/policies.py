"""Label policies: which teacher's track a student learns from, query by query.

    random            one teacher per query, drawn uniformly; ignores valid and keep (CoTracker3,
                      section 3.1). The reader of shards offers it one teacher a clip, as the
                      published script does, and so reads no other member
    random-agreeing   one teacher per query, drawn from those that agree in at least 8 valid visible
                      frames; used where it agrees itself, and as occluded only on the evidence of
                      `labeler.labels.hidden`
    verified          in each frame the position that the verifier trusts most, where it trusts it
                      enough; moved to the middle of those that lie around it
    random-verified   one teacher per query, drawn from those that the verifier trusts in at least 8
                      frames; used where it is trusted
    medoid            the teacher nearest to all seeing teachers, frame by frame (ablation)
    mean, median      of the seeing teachers, per coordinate, where they agree (ablations)
    mean-all, median-all  of all teachers, per coordinate, in every frame, as CoTracker3's table 8
                      compares them with random (worse); visible where most teachers see the point
    oracle            the teacher nearest to the truth, query by query, with its own visible flags:
                      the best that one teacher a query can teach, not a bound for policies that
                      choose in each frame

A policy is a function of what is stored (raw tracks, and the verifier's verdict), so it costs no
teacher and is chosen when the student is trained. One of another package is named by an entry point
of the group `tapdistill.policies`, or as "module:Class": see docs/add-a-policy.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

import numpy as np

from labeler.labels.agreement import (
    OCCLUDED,
    VISIBLE,
    AgreementConfig,
    agree,
    agreeing,
    extent,
    medoids,
)
from labeler.labels.blend import blend
from labeler.labels.hidden import is_hidden
from labeler.labels.policy import NOT_JUDGED, Candidates, LabelPolicy, Target, weights
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError, Tracks, VisibleRule
from teachers.registry import imported
from teachers.tracks import has_position

__all__ = [
    "POLICIES",
    "Candidates",
    "LabelPolicy",
    "Policy",
    "Target",
    "choose",
    "find",
    "names",
    "weights",
]

Policy = str
"""The name of a label policy, or "module:Class" for one that is registered nowhere."""
ENTRY_POINTS = "tapdistill.policies"
KINDS = {"float32": np.float32, "bool": np.bool_, "int": np.integer}


def choose(
    policy: Policy,
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    config: AgreementConfig | None = None,
    truth_xy: np.ndarray | None = None,  # [N, T, 2] px of the clip
    truth_visible: np.ndarray | None = None,  # [N, T]
    *,
    verdict: ClipVerdict | None = None,
    trust: TrustConfig | None = None,
    evidence: Mapping[str, str] | None = None,
) -> Target:
    """The labels of one clip by `policy`. For a stored clip, `Clip.target` is shorter.

    Args:
        verdict: what the verifier said; policies that need one raise a ConfigError without it.
        evidence: each teacher's `TeacherInfo.evidence`. Without it, each teacher is an opinion of
            its own; `label` counts teachers of equal evidence as one.

    Raises:
        ConfigError: no such policy, "oracle" without a truth, or "verified" without a verdict.
    """
    clip = Candidates(
        tracks=tracks,
        rules=rules,
        evidence=evidence or {},
        queries=queries,
        size_hw=size_hw,
        agreement=config or AgreementConfig(),
        trust=trust or TrustConfig(),
        verdict=verdict,
        truth_xy=truth_xy,
        truth_visible=truth_visible,
    )
    return chosen(policy, clip, rng)


def chosen(policy: Policy, clip: Candidates, rng: np.random.Generator) -> Target:
    """`choose`, of what is known of a clip in one piece."""
    rule = find(policy)
    if rule.needs_truth and (clip.truth_xy is None or clip.truth_visible is None):
        raise ConfigError(
            f"policy {policy!r} needs exact tracks: it is for procedural video, not for real one."
        )
    if rule.needs_verdict and clip.verdict is None:
        raise ConfigError(f"policy {policy!r}: {NOT_JUDGED}")
    return _checked(rule.choose(clip, rng), clip, policy)


def names() -> list[str]:
    """Names of the policies of this package, and of others that are installed."""
    return [*BUILT_IN, *sorted(point.name for point in _outside() if point.name not in BUILT_IN)]


def uses_verdict(policy: Policy) -> bool:
    """Whether a policy looks at the verdict; one of another package may."""
    rule = find(policy)
    return rule.needs_verdict or rule.uses_verdict if policy in BUILT_IN else True


def without_truth() -> list[str]:
    """Names of those of this package that real video can be labelled by, and of others that are
    installed."""
    return [name for name in names() if name not in BUILT_IN or not BUILT_IN[name].needs_truth]


def find(policy: Policy) -> LabelPolicy:
    """The policy of that name. An error that another package raises while it is imported is passed
    on.

    Raises:
        ConfigError: no such policy (the message lists those there are), or what has its name is
            none.
    """
    if policy in BUILT_IN:
        return BUILT_IN[policy]
    outside = {point.name: point.value for point in _outside()}
    where = policy if ":" in policy else outside.get(policy)
    if where is None:
        raise ConfigError(
            f"no label policy {policy!r}: there are {', '.join(names())}; or give 'module:Class' "
            "for one of your own (docs/add-a-policy.md)."
        )
    made = imported(f"label policy {policy!r}", where)()
    if not isinstance(made, LabelPolicy):
        raise ConfigError(
            f"label policy {policy!r}: {where!r} did not make a LabelPolicy: see "
            "docs/add-a-policy.md."
        )
    return made


class Random(LabelPolicy):
    """One teacher per query, drawn uniformly."""

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        xy = clip.stack.xy
        finite = has_position(xy)
        drawn = _draw(np.any(finite, axis=-1), rng)
        return _from_one_teacher(clip, finite, drawn)


class RandomAgreeing(LabelPolicy):
    """One teacher per query, drawn from those that agree; used where it agrees."""

    uses_verdict = True

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        xy, sees = clip.stack.xy, clip.stack.sees
        labels = agree(
            xy, sees, clip.queries[:, 0].astype(int), clip.agreement, clip.stack.families
        )
        tau_px, families = clip.agreement.tau_px, clip.stack.families
        agrees = agreeing(xy, sees, labels.state, tau_px, families) & labels.valid
        shown = agrees & sees & (labels.state == VISIBLE)
        enough = shown.sum(-1) >= clip.agreement.min_visible_frames
        return _from_one_teacher(clip, agrees & _proven(clip, labels.state), _draw(enough, rng))


class Verified(LabelPolicy):
    """In each frame the most trusted position, where it is trusted enough, moved to the middle of
    the positions that lie around it.

    The verifier says whether a position is within 2 px of the truth, not which of two such is the
    nearer; several teachers that found the same point say more about that than one does. Teachers
    that found another point have no part in it.

    Each frame stands for itself, so one such frame is enough, and the query's own is nearly always
    one. Agreement asks for eight, because it has no other sign that a query is followed at all.
    """

    needs_verdict = True

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        right, hidden = _trusted(clip)
        trust = clip.right()
        best = trust.argmax(0)
        visible = np.take_along_axis(right, best[None], axis=0)[0]
        keep = _worth_learning(clip, best, visible, least=1)[:, None]
        visible, hidden = visible & keep, hidden & keep
        xy, teacher = _positions(clip, best, visible), np.where(visible, best, -1)
        if clip.trust.blend_px > 0:
            middle, blended = blend(
                clip.stack.xy[:, visible], trust[:, visible], clip.trust.blend_px
            )
            xy[visible] = middle * clip.to_clip
            teacher[visible] = np.where(blended, -1, teacher[visible])
        return Target(xy, visible, visible | hidden, teacher)


class RandomVerified(LabelPolicy):
    """One teacher per query, drawn from those that are trusted; used where it is."""

    needs_verdict = True

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        right, hidden = _trusted(clip)
        whole = np.ones(hidden.shape, int)
        enough = np.stack(
            [
                _worth_learning(clip, whole * row, visible, clip.agreement.min_visible_frames)
                for row, visible in enumerate(right)
            ]
        )
        drawn = _draw(enough, rng)
        pick, keep = np.maximum(drawn, 0), (drawn >= 0)[:, None]
        visible = right[pick, np.arange(len(drawn))] & keep
        teacher = np.broadcast_to(pick[:, None], visible.shape)
        return Target(
            _positions(clip, teacher, visible),
            visible,
            visible | (hidden & keep),
            np.where(visible, teacher, -1),
        )


class Medoid(LabelPolicy):
    """The teacher nearest to all that see the point, frame by frame."""

    uses_verdict = True

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        medoid, _ = medoids(clip.stack.xy, clip.stack.sees, clip.stack.families)
        place = np.take_along_axis(clip.stack.xy, np.maximum(medoid, 0)[None, ..., None], axis=0)
        return _where_agreed(clip, place[0], medoid)


class _Blend(LabelPolicy):
    """A position computed for each coordinate, from the teachers that see the point."""

    uses_verdict = True
    way: ClassVar[str]

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        xy, sees = clip.stack.xy, clip.stack.sees
        seen = np.ma.masked_array(np.nan_to_num(xy), ~np.broadcast_to(sees[..., None], xy.shape))
        over_teachers = seen.mean if self.way == "mean" else partial(np.ma.median, seen)
        blended = np.asarray(over_teachers(axis=0).filled(np.nan), np.float32)
        return _where_agreed(clip, blended, np.full(blended.shape[:2], -1))


class Mean(_Blend):
    """The mean of those that see the point."""

    way = "mean"


class Median(_Blend):
    """The median of those that see the point, per coordinate."""

    way = "median"


class _BlendAll(LabelPolicy):
    """A position computed for each coordinate, from all teachers that give one, whether they see
    the point or not."""

    way: ClassVar[str]

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        xy, sees = clip.stack.xy, clip.stack.sees
        there = has_position(xy)
        known = np.ma.masked_array(np.nan_to_num(xy), ~np.broadcast_to(there[..., None], xy.shape))
        over_teachers = known.mean if self.way == "mean" else partial(np.ma.median, known)
        place = np.asarray(over_teachers(axis=0).filled(np.nan), np.float32)
        used = np.asarray(there.any(0))
        return Target(
            np.where(used[..., None], place * clip.to_clip, np.nan).astype(np.float32),
            used & (2 * (sees & there).sum(0) > there.sum(0)),
            used,
            np.full(used.shape, -1),
        )


class MeanAll(_BlendAll):
    """The mean of all teachers, as published."""

    way = "mean"


class MedianAll(_BlendAll):
    """The median of all teachers, per coordinate, as published."""

    way = "median"


class Oracle(LabelPolicy):
    """The teacher nearest to the truth, query by query."""

    needs_truth = True

    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        xy = clip.stack.xy
        truth_xy, truth_visible = clip.truth
        distance = np.hypot(*np.moveaxis(xy - truth_xy[None] / clip.to_clip, -1, 0))
        shown = truth_visible[None] & np.isfinite(distance)
        mean = np.where(shown, np.nan_to_num(distance), 0).sum(-1) / np.maximum(shown.sum(-1), 1)
        drawn = np.where(shown.any((0, 2)), np.where(shown.any(-1), mean, np.inf).argmin(0), -1)
        return _from_one_teacher(clip, has_position(xy), drawn)


BUILT_IN: Mapping[str, LabelPolicy] = {
    "random": Random(),
    "random-agreeing": RandomAgreeing(),
    "verified": Verified(),
    "random-verified": RandomVerified(),
    "medoid": Medoid(),
    "mean": Mean(),
    "median": Median(),
    "mean-all": MeanAll(),
    "median-all": MedianAll(),
    "oracle": Oracle(),
}
POLICIES: tuple[Policy, ...] = tuple(BUILT_IN)
"""Those of this package."""


def _outside() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINTS))


def _checked(target: Target, clip: Candidates, policy: Policy) -> Target:
    """The target, if it is what the contract says; else a ConfigError."""
    shape = len(clip.queries), next(iter(clip.tracks.values())).xy.shape[1]
    wrong = next(
        (
            f"{name} is {getattr(target, name).dtype} {getattr(target, name).shape}, not {kind} "
            f"{wanted}"
            for name, kind, wanted in (
                ("xy", "float32", (*shape, 2)),
                ("visible", "bool", shape),
                ("used", "bool", shape),
                ("teacher", "int", shape),
            )
            if getattr(target, name).shape != wanted
            or not np.issubdtype(getattr(target, name).dtype, KINDS[kind])
        ),
        "",
    )
    if not wrong and not has_position(target.xy)[target.used & target.visible].all():
        wrong = "a frame that it uses as visible has no position"
    if wrong:
        raise ConfigError(f"label policy {policy!r}: {wrong}: see docs/add-a-policy.md.")
    return target


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int [N]: a uniform draw among the teachers that `allowed` [K, N] names for each query; -1
    where it names none."""
    score = np.where(allowed, rng.random(allowed.shape), -1.0)
    return np.where(allowed.any(0), score.argmax(0), -1)


def _from_one_teacher(clip: Candidates, use: np.ndarray, drawn: np.ndarray) -> Target:
    """The track of the teacher that is `drawn` [N] for each query, where `use` [K, N, T] says."""
    rows, pick = np.arange(len(drawn)), np.maximum(drawn, 0)
    used = use[pick, rows] & (drawn >= 0)[:, None]
    return Target(
        _positions(clip, pick[:, None], used),
        clip.stack.sees[pick, rows] & used,
        used,
        np.where(used, pick[:, None], -1),
    )


def _where_agreed(clip: Candidates, xy: np.ndarray, teacher: np.ndarray) -> Target:
    """Positions `xy` [N, T, 2] (px of the raster) where the teachers agree that the point is
    visible."""
    stacked, query_frames = clip.stack, clip.queries[:, 0].astype(int)
    labels = agree(stacked.xy, stacked.sees, query_frames, clip.agreement, stacked.families)
    visible, kept = labels.state == VISIBLE, labels.valid & labels.keep[:, None]
    used = kept & visible
    return Target(
        np.where(used[..., None], xy * clip.to_clip, np.nan).astype(np.float32),
        visible,
        used,
        np.where(used, teacher, -1),
        kept & (labels.state == OCCLUDED) & _proven(clip, labels.state),
    )


def _proven(clip: Candidates, state: np.ndarray) -> np.ndarray:
    """bool [N, T]: all frames but those that most teachers don't see without any evidence that the
    point is hidden there: they may have lost it."""
    occluded = state == OCCLUDED
    if not occluded.any():
        return ~occluded
    said = None if clip.verdict is None else clip.verdict.hidden
    least = clip.trust.min_hidden
    return ~occluded | is_hidden(clip.tracks, clip.rules, clip.queries, clip.size_hw, said, least)


def _trusted(clip: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Where each position is trusted, bool [K, N, T], and where the point is hidden, bool [N, T];
    in no frame is it both."""
    right, said, least = clip.right(), clip.judged.hidden, clip.trust.min_hidden
    trusted = (right >= np.float32(clip.trust.min_right)) & (right >= said)
    hidden = is_hidden(clip.tracks, clip.rules, clip.queries, clip.size_hw, said, least)
    return trusted, hidden & ~trusted.any(0)


def _worth_learning(
    clip: Candidates, teacher: np.ndarray, shown: np.ndarray, least: int
) -> np.ndarray:
    """bool [N]: at least `least` frames that are `shown` [N, T], and motion in them; positions are
    those of the teachers [N, T]."""
    keep = shown.sum(-1) >= least
    if clip.agreement.min_motion_px > 0:
        keep &= extent(clip.stack.xy, teacher, shown) >= clip.agreement.min_motion_px
    return keep


def _positions(clip: Candidates, teacher: np.ndarray, where: np.ndarray) -> np.ndarray:
    """float32 [N, T, 2] px of the clip: the positions of the teachers [N, T]; NaN except at
    `where`."""
    teacher = np.broadcast_to(teacher, where.shape)
    xy = np.take_along_axis(clip.stack.xy, teacher[None, ..., None], axis=0)[0] * clip.to_clip
    return np.where(where[..., None], xy, np.nan).astype(np.float32)
