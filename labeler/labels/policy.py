"""Policy: what a label policy is given about a clip, and what it answers.

    class Nearest(LabelPolicy):
        def choose(self, clip: Candidates, rng: np.random.Generator) -> Target: ...

`labeler.labels.policies` has those of this package; docs/add-a-policy.md writes another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from labeler.labels.agreement import RASTER, AgreementConfig, Stack, stack
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError, Tracks, VisibleRule
from teachers.tracks import has_position

NOT_JUDGED = (
    "no verifier has judged these labels: `tapdistill relabel URL` lets it, without a teacher."
)


@dataclass(frozen=True)
class Target:
    """What a student is trained on: one track per query."""

    xy: np.ndarray
    """float32 [N, T, 2] px of the clip; NaN where `used` is False, and where the position of a
    hidden point is not known."""
    visible: np.ndarray
    """bool [N, T]."""
    used: np.ndarray
    """bool [N, T]: frames that enter the loss."""
    teacher: np.ndarray
    """int [N, T]: index of the teacher whose position it is, in the order of `Candidates.names`; -1
    where it is no single teacher's, or there is none."""
    occluded: np.ndarray | None = None
    """bool [N, T]: frames that are called occluded, where not all of them are used; else None."""

    @property
    def called_occluded(self) -> np.ndarray:
        """bool [N, T]: frames that are called occluded, used or not."""
        return self.used & ~self.visible if self.occluded is None else self.occluded


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What is known of one clip's N queries in its T frames: what a policy chooses from."""

    tracks: Mapping[str, Tracks]
    """Raw tracks by teacher, [N, T, ...] each, px of the clip; NaN where a teacher failed."""
    rules: Mapping[str, VisibleRule]
    """When each teacher sees a point."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    """What each teacher's tracks rest on (`TeacherInfo.evidence`): teachers of equal evidence are
    one opinion. One that is not named is like no other."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y), px of the clip."""
    size_hw: tuple[int, int]
    """Of the clip, px."""
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    """When teachers agree, and how much of a query must be usable."""
    trust: TrustConfig = field(default_factory=TrustConfig)
    """When the verifier is believed."""
    verdict: ClipVerdict | None = None
    """What the verifier said; None where the clip was not judged."""
    truth_xy: np.ndarray | None = None
    """float32 [N, T, 2] px of the clip; None of real video."""
    truth_visible: np.ndarray | None = None
    """bool [N, T]."""

    @property
    def names(self) -> tuple[str, ...]:
        """The K teachers, sorted: the order along K everywhere."""
        return tuple(sorted(self.tracks))

    @cached_property
    def stack(self) -> Stack:
        """`xy` [K, N, T, 2] px of the 256 x 256 raster, and `sees` [K, N, T]."""
        return stack(self.tracks, self.rules, self.size_hw, self.evidence)

    @property
    def to_clip(self) -> np.ndarray:
        """float32 [2]: px of the clip in one px of the raster."""
        return np.array([self.size_hw[1] / RASTER, self.size_hw[0] / RASTER], np.float32)

    @property
    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact positions [N, T, 2] and visibility [N, T]. ConfigError where there are none."""
        if self.truth_xy is None or self.truth_visible is None:
            raise ConfigError("there are no exact tracks: only procedural video has them.")
        return self.truth_xy, self.truth_visible

    @property
    def judged(self) -> ClipVerdict:
        """The verdict. ConfigError where the clip was not judged."""
        if self.verdict is None:
            raise ConfigError(NOT_JUDGED)
        return self.verdict

    def right(self) -> np.ndarray:
        """float32 [K, N, T]: the probability that each teacher's position is right; 0 where it
        gives none. ConfigError as `judged`."""
        return np.where(has_position(self.stack.xy), self.judged.of(self.names), 0)


class LabelPolicy(ABC):
    """Chooses labels. Made without arguments, it keeps nothing from clip to clip."""

    needs_verdict: ClassVar[bool] = False
    """It works on clips that a verifier judged, and on no others."""
    uses_verdict: ClassVar[bool] = False
    """It looks at the verdict where there is one."""
    needs_truth: ClassVar[bool] = False
    """It is for video with exact tracks."""

    @abstractmethod
    def choose(self, clip: Candidates, rng: np.random.Generator) -> Target:
        """The labels of one clip. Whatever is drawn comes from `rng`; the clip is not changed."""


def weights(target: Target, clip: Candidates) -> np.ndarray:
    """float32 [N, T] in [0, 1]: the probability that each label is right, by the verifier.

    For a visible label, that the teacher's position is right, or the most trusted one if it is no
    single teacher's; otherwise, that the point is hidden.

    Raises:
        ConfigError: the clip was not judged.
    """
    right = clip.right()
    of_teacher = np.take_along_axis(right, np.maximum(target.teacher, 0)[None], axis=0)[0]
    of_position = np.where(target.teacher >= 0, of_teacher, right.max(0, initial=0))
    return np.where(target.visible, of_position, clip.judged.hidden).astype(np.float32)
