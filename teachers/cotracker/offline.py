"""CoTracker3 offline as a teacher: one window over the whole clip, or overlapping ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.cotracker.cotracker3 import PRESETS, CoTracker3
from teachers.cotracker.long_clips import WindowEntry, walk_both_ways
from teachers.cotracker.teacher import (
    CoTrackerModeSettings,
    CoTrackerSettings,
    CoTrackerTeacher,
    Group,
)
from teachers.errors import ConfigError
from teachers.info import Mode
from teachers.layers.clip_features import ClipFeatures
from teachers.published import PUBLISHED
from teachers.settings import require_whole
from teachers.tracks import VisibleRule


@dataclass(frozen=True, kw_only=True)
class CoTracker3OfflineSettings(CoTrackerSettings):
    """Settings, in addition to `CoTrackerSettings`; `max_frames` is the longest clip that is
    tracked at once."""

    overlap: int | None = None
    """The least number of frames that neighbouring windows share; None is half a window."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(1, overlap=self.shared_frames)
        if self.shared_frames >= self.max_frames:
            raise ConfigError(
                f"overlap = {self.overlap}: must be in 1..{self.max_frames - 1}, as a window has "
                f"{self.max_frames} frames."
            )

    @property
    def shared_frames(self) -> int:
        return self.max_frames // 2 if self.overlap is None else self.overlap


class CoTracker3OfflineTeacher(CoTrackerTeacher):
    """CoTracker3 over a whole clip at once.

    The time embedding is made for 60 frames and is stretched to other numbers, as the official code
    does. A clip of more than `max_frames` is tracked in overlapping windows (see `long_clips.py`);
    how surely a point is seen is visibility x confidence, 0 where it is not visible by the mode's
    rule. Each window has support points of its own, which in every mode are made anew for the
    reversed clip.
    """

    architecture = "CoTracker3 offline"
    evidence = "network:cotracker3"
    weights = PUBLISHED["cotracker3-offline"]
    presets = PRESETS
    network = CoTracker3
    settings_type = CoTracker3OfflineSettings
    settings: CoTracker3OfflineSettings

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        stored = super()._set_up(mode)
        self.overlap = self.settings.shared_frames
        return stored | {"max_frames": self.max_frames, "overlap": self.overlap}

    def _mode_settings(self, mode: Mode, resolution: tuple[int, int]) -> CoTrackerModeSettings:
        """`label` is the recipe's call, because that already covers the frames before a query."""
        if mode == "predictor":
            return CoTrackerModeSettings(
                iterations=6, resolution=resolution, support_grid=6, backward=True
            )
        if mode == "benchmark":
            return CoTrackerModeSettings(iterations=6, resolution=resolution, support_grid=5)
        return CoTrackerModeSettings(
            iterations=4, resolution=None, support_grid=0, support_points=100
        )

    def _rule(self, mode: Mode) -> VisibleRule:
        return VisibleRule("v*c", 0.6) if mode == "benchmark" else VisibleRule("v", 0.9)

    def _clip(
        self, features: ClipFeatures, own: Tensor, seed: int, asked: np.ndarray | None = None
    ) -> Tensor:
        if len(features) <= self.max_frames:
            return super()._clip(features, own, seed, asked)
        ahead, back = (
            partial(self._window, clip, seed) for clip in (features, features.reversed())
        )
        frames, window = len(features), self.max_frames
        return walk_both_ways(
            ahead, back, self._certainty, own, frames, window, self.overlap, asked
        )

    def _window(
        self, features: ClipFeatures, seed: int, first: int, entry: WindowEntry
    ) -> tuple[Tensor, list[Tensor]]:
        pyramid = features.window(first, self.max_frames)
        looks = self._looks(features, pyramid, entry.queries[None])
        if entry.looks:
            covered = entry.hidden[None, :, None, None]
            looks = [
                torch.where(covered, kept, new)
                for new, kept in zip(looks, entry.looks, strict=True)
            ]
        tracks, start = [], 0
        for group in self._groups(entry.queries, self.max_frames, features.size, seed):
            own = slice(start, start + len(group.own))
            tracks.append(
                self._together(features, pyramid, group, [level[:, own] for level in looks])
            )
            start = own.stop
        return torch.cat(tracks), [level[0] for level in looks]

    def _pass(self, features: ClipFeatures, groups: list[Group]) -> Tensor:
        pyramid = features.window(0, len(features))
        return torch.cat(
            [
                self._together(
                    features, pyramid, group, self._looks(features, pyramid, group.own[None])
                )
                for group in groups
            ]
        )

    def _factors(self, features: ClipFeatures) -> list[float]:
        return self.model.factors(self._raster(features.size))

    def _looks(
        self, features: ClipFeatures, pyramid: list[Tensor], queries: Tensor
    ) -> list[Tensor]:
        """`query_windows` in the frames of each size."""
        return self.model.looks(pyramid, queries, self._factors(features))

    def _together(
        self, features: ClipFeatures, pyramid: list[Tensor], group: Group, looks: list[Tensor]
    ) -> Tensor:  # -> [n, T, 4]
        """Tracks of a group's own points, whose appearance is `looks`, per level [1, n, W, C]."""
        support = self._looks(features, pyramid, group.support[None])
        every = [torch.cat(levels, 1) for levels in zip(looks, support, strict=True)]
        xy = group.points[:, :, None, 1:].expand(-1, -1, pyramid[0].shape[1], -1)
        found = self.model.refine_in_turn(
            pyramid,
            every,
            xy,
            torch.zeros_like(xy),
            self._factors(features),
            self.mode_settings.iterations,
            self.memory,
        )
        return found[-1].answer(len(group.own))

    def _certainty(self, tracks: Tensor) -> Tensor:  # [n, t, 4] -> [n, t]
        rule, sure = self.info.rule, tracks[..., 2] * tracks[..., 3]
        return torch.where(
            (sure if rule.quantity == "v*c" else tracks[..., 2]) > rule.threshold, sure, 0.0
        )
