"""Calibration: from which value on a checkpoint's points count as visible.

In   a tracker's tracks of clips with exact tracks, or with labels. Out: the `VisibleRule` that fits
     them best.
A published rule belongs to the published weights, and a calibrated one to those that it was chosen
for. Another network of that architecture, smaller or trained for less, is less sure of itself, and
by that rule hides points that it follows well.

The rule chosen is that with the highest average Jaccard (TAP-Vid), which counts both errors: a
point that is called hidden is lost, and one that is called visible must be near the truth. The
share of frames with the right flag would not do: by that, a tracker that has lost a point should
call it visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labeler.labels.agreement import RASTER
from student.clip import TestClip
from student.evaluation.metrics import THRESHOLDS_PX
from teachers.tracks import Tracks, VisibleRule

VALUES = np.arange(1, 100) / 100
"""Thresholds that are tried."""
LEAST_GAIN = 0.005
"""The rule of before stays, unless another one has a Jaccard that is higher by this."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The rule that fits, and what it gains."""

    rule: VisibleRule
    jaccard: float
    """Average Jaccard by it, in [0, 1], over all frames but the queries' own."""
    highest: float
    """By whichever rule is best, however little it gains."""
    before: VisibleRule
    jaccard_before: float

    @property
    def changed(self) -> bool:
        """Another rule than that of before fits."""
        return self.rule != self.before

    def __str__(self) -> str:
        said = f"visible where {self.rule}: AJ {100 * self.jaccard:.1f} on the calibration clips"
        if not self.changed:
            return f"{said}; no other rule is better by {100 * LEAST_GAIN:g}"
        return f"{said}, {100 * self.jaccard_before:.1f} by {self.before}, as before"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was chosen of a trained student; see `student.training.fitting`."""

    calibration: Calibration
    refinement: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the network's config that are other than before."""
    tried: tuple[tuple[Mapping[str, Any], float], ...] = ()
    """Every way to refine positions, that of before ({}) among them, with its average Jaccard in
    whole frames; empty if there was no choice."""

    def __str__(self) -> str:
        if not self.tried:
            return str(self.calibration)
        before, now = (
            next(jaccard for way, jaccard in self.tried if way == wanted)
            for wanted in ({}, self.refinement)
        )
        ways = [f"{name} {_said(value)}" for name, value in self.refinement.items()]
        said = (
            f"refined with {', '.join(ways)}: AJ {100 * now:.1f} in whole frames, was "
            f"{100 * before:.1f}"
            if ways
            else f"refined as before: AJ {100 * before:.1f} in whole frames"
        )
        return f"{said}; {self.calibration}"


def calibrated(
    tracks: Sequence[Tracks],
    clips: Sequence[TestClip],
    before: VisibleRule,
    known: Sequence[np.ndarray] | None = None,
) -> Calibration:
    """The rule that fits a tracker best.

    Args:
        tracks: of each clip's queries.
        before: the rule that the tracker has otherwise; one that compares nothing stays.
        known: bool [N, T] for each clip: frames of which it is known what is right. None: all.
    """
    if known is None:
        known = [np.ones_like(clip.visible) for clip in clips]
    parts = [
        _counted(one, clip, frames) for one, clip, frames in zip(tracks, clips, known, strict=True)
    ]
    visible, error, visibility, confidence = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )

    def jaccard(rule: VisibleRule) -> float:
        seen = rule.seen(visibility, confidence) & np.isfinite(error)
        hits = [(seen & visible & (error < px)).sum() for px in THRESHOLDS_PX]
        return float(np.mean([hit / max(visible.sum() + seen.sum() - hit, 1) for hit in hits]))

    jaccard_before = jaccard(before)
    best, kept, highest = before, jaccard_before, jaccard_before
    if before.quantity != "none":
        rules = [VisibleRule("v", value) for value in VALUES.tolist()]
        if np.isfinite(confidence).any():
            rules += [VisibleRule("v*c", value) for value in VALUES.tolist()]
        found = [jaccard(rule) for rule in rules]
        highest = max(jaccard_before, *found)
        if highest >= jaccard_before + LEAST_GAIN:
            kept, best = highest, rules[found.index(highest)]
    return Calibration(
        rule=best, jaccard=kept, highest=highest, before=before, jaccard_before=jaccard_before
    )


def _counted(
    tracks: Tracks, clip: TestClip, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """visible, error px of the raster (NaN where there is no position), visibility, confidence of
    the known frames but the queries' own, in a row each."""
    others = known & (np.arange(len(clip.frames)) != np.round(clip.queries[:, :1]))
    height, width = clip.frames.shape[1:3]
    off = (tracks.xy - clip.xy) * np.array([RASTER / width, RASTER / height])
    error = np.hypot(off[..., 0], off[..., 1])
    return tuple(
        each[others] for each in (clip.visible, error, tracks.visibility, tracks.confidence)
    )


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
