"""Label errors: how right labels are, where the truth is known.

In   what a label policy makes of the teachers' tracks, and clips with truth. Out: `LabelScore`,
     and its figures.
A label errs in three ways, and each has a figure of its own: a hidden point is called visible, a
visible one is called occluded, or its position is off. The query's own frame never counts: its
label is given. Frames of all clips are pooled, so a clip weighs as much as it has points and
frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from labeler.clips.queries import QueryConfig, sample_queries
from labeler.labels.agreement import RASTER, AgreementConfig
from labeler.labels.policies import Policy, Target, choose, uses_verdict
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict, judged
from student.clip import TestClip
from student.evaluation.metrics import THRESHOLDS_PX
from teachers import Teacher, Tracks, VisibleRule

OFF_PX = 4.0
"""A label is off if it is farther from the truth than that."""
VISIBLE_FIGURES = {
    "used": "truly visible frames that are labelled visible, % of them",
    "delta_avg": "of those, within 1, 2, 4, 8, 16 px of the truth, %, mean of the five",
    "median_px": "their median error, px",
    "off_4px": "of those, more than 4 px off, %",
    "wrongly_visible": "of the frames labelled visible, truly hidden, %",
}
OCCLUDED_FIGURES = {
    "wrongly_occluded": "truly visible frames that are labelled occluded, % of them",
    "truly_hidden": "of the frames labelled occluded, truly hidden, %",
    "occluded_px": "median error of the positions stored for those, px",
}
LABEL_FIGURES: Mapping[str, str] = VISIBLE_FIGURES | OCCLUDED_FIGURES
"""The figures of a label policy, and what each says. Px are those of the 256 x 256 raster."""
LABEL_SHARES = tuple(name for name in LABEL_FIGURES if not name.endswith("_px"))
"""Those that are shares, in [0, 1]."""
BEST: Mapping[str, Literal["max", "min"]] = {
    name: "max" if name in ("used", "delta_avg", "truly_hidden") else "min"
    for name in LABEL_FIGURES
}
"""Which end of a figure is the good one."""


@dataclass
class LabelScore:
    """Labels against the truth, added up clip by clip."""

    visible: int = 0
    """Truly visible frames."""
    hidden_shown: int = 0
    """Truly hidden frames that are labelled visible."""
    visible_occluded: int = 0
    """Truly visible frames that are labelled occluded."""
    hidden_occluded: int = 0
    """Truly hidden frames that are labelled occluded."""
    errors: list[np.ndarray] = field(default_factory=list)
    """px of the raster: of the truly visible frames that are labelled visible."""
    errors_occluded: list[np.ndarray] = field(default_factory=list)
    """px of the raster: of the positions stored for frames that are labelled occluded, where the
    truth says where the point is."""

    def add(self, target: Target, clip: TestClip) -> None:
        """One more clip."""
        height, width = clip.frames.shape[1:3]
        others = np.arange(len(clip.frames)) != clip.queries[:, :1]
        shown = target.used & target.visible & others
        occluded = target.called_occluded & others
        off = (target.xy - clip.xy) * np.array([RASTER / width, RASTER / height])
        error = np.hypot(off[..., 0], off[..., 1])
        self.visible += int((clip.visible & others).sum())
        self.hidden_shown += int((shown & ~clip.visible).sum())
        self.visible_occluded += int((occluded & clip.visible).sum())
        self.hidden_occluded += int((occluded & ~clip.visible).sum())
        self.errors.append(error[shown & clip.visible])
        placed = error[occluded & target.used]
        self.errors_occluded.append(placed[np.isfinite(placed)])

    def figures(self) -> dict[str, float]:
        """By the names of `LABEL_FIGURES`, shares in [0, 1]; NaN for one without anything to
        count."""
        error = _joined(self.errors)
        stored = _joined(self.errors_occluded)
        labelled = len(error) + self.hidden_shown
        return {
            "used": _share(len(error), self.visible),
            "delta_avg": float(np.mean([_share_of(error < d) for d in THRESHOLDS_PX])),
            "median_px": _median(error),
            "off_4px": _share_of(error > OFF_PX),
            "wrongly_visible": _share(self.hidden_shown, labelled),
            "wrongly_occluded": _share(self.visible_occluded, self.visible),
            "truly_hidden": _share(
                self.hidden_occluded, self.hidden_occluded + self.visible_occluded
            ),
            "occluded_px": _median(stored),
        }


def score_policy(
    policy: Policy,
    tracks: Mapping[str, Sequence[Tracks]],
    rules: Mapping[str, VisibleRule],
    clips: Sequence[TestClip],
    config: AgreementConfig,
    seed: int = 0,
    evidence: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """How right the labels of a policy are.

    Args:
        tracks: by teacher, of each clip.
        rules: each teacher's visible rule.
        seed: of what the policy draws.
        evidence: each teacher's `TeacherInfo.evidence`; None: each is like no other.

    Returns:
        The figures of `LABEL_FIGURES`, over all clips.
    """
    rng, score = np.random.default_rng(seed), LabelScore()
    for number, clip in enumerate(clips):
        found = {name: each[number] for name, each in tracks.items()}
        score.add(labels_of(policy, found, rules, clip, rng, config, evidence=evidence), clip)
    return score.figures()


def labels_of(
    policy: Policy,
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    clip: TestClip,
    rng: np.random.Generator,
    config: AgreementConfig,
    verdict: ClipVerdict | None = None,
    trust: TrustConfig | None = None,
    evidence: Mapping[str, str] | None = None,
) -> Target:
    """What a policy makes of the teachers' tracks of a clip with truth; `verdict` is that of the
    shipped verifier, made here where a policy looks at it and none is given."""
    if verdict is None and uses_verdict(policy):
        verdict = judged(clip.frames, clip.queries, tracks, rules)
    return choose(
        policy,
        tracks,
        rules,
        clip.queries,
        clip.frames.shape[1:3],
        rng,
        config,
        clip.xy,
        clip.visible,
        verdict=verdict,
        trust=trust,
        evidence=evidence,
    )


def compare_policies(
    policies: Sequence[str],
    trackers: Mapping[str, Teacher],
    clips: Iterable[TestClip],
    config: AgreementConfig,
    seed: int = 0,
    trust: TrustConfig | None = None,
    least_queries: int = 0,
) -> tuple[dict[str, LabelScore], pd.DataFrame]:
    """Each teacher's own labels, and those that each policy makes of all of them.

    One clip at a time is in memory.

    Args:
        least_queries: a clip with fewer gets more, drawn as for labels: a verifier judges a point
            by its neighbours. Their labels do not count.

    Returns:
        The scores over all clips, by the names of `trackers`, then of `policies`; and a row per
        clip and name: `labels`, `clip`, `points`, `frames`, the figures of `LABEL_FIGURES`.
    """
    scores = {name: LabelScore() for name in (*trackers, *policies)}
    rngs = {name: np.random.default_rng(seed) for name in scores}
    rules = {name: tracker.info.rule for name, tracker in trackers.items()}
    evidence = {name: tracker.info.evidence for name, tracker in trackers.items()}
    rows = []
    for clip in clips:
        asked = with_neighbours(clip, least_queries)
        tracks = {
            name: tracker.track(asked.frames, asked.queries) for name, tracker in trackers.items()
        }
        verdict = None
        if any(map(uses_verdict, policies)):
            verdict = judged(asked.frames, asked.queries, tracks, rules)
        for name in scores:
            policy, given = ("random", {name: tracks[name]}) if name in trackers else (name, tracks)
            of_all = labels_of(
                policy, given, rules, asked, rngs[name], config, verdict, trust, evidence
            )
            target = of_first(of_all, len(clip.queries))
            scores[name].add(target, clip)
            this = LabelScore()
            this.add(target, clip)
            count = {"points": len(clip.queries), "frames": len(clip.frames)}
            rows.append({"labels": name, "clip": clip.name, **count, **this.figures()})
    return scores, pd.DataFrame(rows)


def with_neighbours(clip: TestClip, least: int) -> TestClip:
    """The clip with at least `least` queries, its own first. The truth of the others is not known:
    they are visible nowhere."""
    missing = least - len(clip.queries)
    if missing <= 0:
        return clip
    more = sample_queries(clip.frames, QueryConfig(count=missing), 0).points
    unknown = np.full((len(more), *clip.xy.shape[1:]), np.nan, np.float32)
    return replace(
        clip,
        queries=np.concatenate([clip.queries, more]).astype(np.float32),
        xy=np.concatenate([clip.xy, unknown]),
        visible=np.concatenate([clip.visible, np.zeros(unknown.shape[:2], bool)]),
    )


def of_first(target: Target, queries: int) -> Target:
    """The labels of the first `queries` queries."""
    parts = {name: value[:queries] for name, value in vars(target).items() if value is not None}
    return replace(target, **parts)


def without_hidden_positions(clip: TestClip) -> TestClip:
    """The clip, where its truth does not say where hidden points are, whatever stands there."""
    return replace(clip, xy=np.where(clip.visible[..., None], clip.xy, np.float32(np.nan)))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _share_of(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
