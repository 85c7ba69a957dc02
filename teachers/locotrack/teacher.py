"""LocoTrack as a teacher: modes, resolutions, long clips, and the half pixel between its raster and
ours.

| mode | frames are resized to | beside that |
|---|---|---|
| `predictor` | 256 x 256 | as the official predictor |
| `label` | 256 x 256 | a track goes through its query |
| `recipe` | 256 x 256 | as `benchmark`; no published recipe has this teacher |
| `benchmark` | 256 x 256 | as TAP-Vid measures it |

With another `resolution`, points are matched at 256 x 256 px and refined at that resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.errors import TeacherError
from teachers.info import Mode
from teachers.layers.device import constant, sent
from teachers.layers.overlapping import overlapping
from teachers.layers.resolutions import Size
from teachers.locotrack.config import PRESETS, LocoTrackConfig
from teachers.locotrack.network import (
    CPU_MEMORY,
    GPU_MEMORY,
    SMALL,
    LocoTrack,
    LocoTrackFeatures,
    QueryLooks,
)
from teachers.network_teacher import NetworkTeacher, require_finite
from teachers.published import PUBLISHED
from teachers.settings import checked_size, overridden, require_switch, require_whole
from teachers.tracks import Tracks, VisibleRule

RULE = VisibleRule("v*c", 0.5)


@dataclass(frozen=True, kw_only=True)
class LocoTrackModeSettings:
    """How the network is called in a mode."""

    resolution: Size | None
    """(H, W) px that frames are resized to first; None keeps the clip's own size."""
    resolutions: tuple[Size, ...] | None = None
    """(H, W) px, multiples of 8: points are matched on the first, refined on the last; None is 256
    x 256, then growing to the size of the frames."""
    through_query: bool = False
    """Make each track go through its query, as a label should; the network only starts there."""

    def __post_init__(self) -> None:
        require_switch(through_query=self.through_query)


def mode_settings_of(mode: Mode, config: LocoTrackConfig) -> LocoTrackModeSettings:
    """The published call of each mode."""
    return LocoTrackModeSettings(
        resolution=(config.raster, config.raster), through_query=mode == "label"
    )


@dataclass(frozen=True, kw_only=True)
class LocoTrackSettings:
    """Settings of these teachers; None keeps what the mode does."""

    resolution: Size | Literal["own"] | None = None
    """See `LocoTrackModeSettings`; "own" is the clip's own size."""
    resolutions: Sequence[Size] | None = None
    through_query: bool | None = None
    """See `LocoTrackModeSettings` for these two."""
    official_quirks: bool = False
    """See `LocoTrackConfig`."""
    max_frames: int = 240
    """How many frames are held as features at once, 7.5 MB each for frames of 256 x 256 px."""

    def __post_init__(self) -> None:
        require_whole(1, max_frames=self.max_frames)
        require_switch(official_quirks=self.official_quirks)
        if self.resolution not in (None, "own"):
            size = checked_size("resolution", self.resolution)
            object.__setattr__(self, "resolution", size)
        if self.resolutions is not None:
            sizes = tuple(checked_size("resolutions", size) for size in self.resolutions)
            object.__setattr__(self, "resolutions", sizes)


class LocoTrackTeacher(NetworkTeacher):
    """LocoTrack-B over a whole clip.

    A clip of more than `max_frames` frames is tracked in overlapping windows, see `overlapping`.
    Points are matched in each frame alone, so a window need not hold the query's frame; all that it
    lacks is how the track goes on beyond it.
    """

    architecture = "LocoTrack-B"
    evidence = "network:locotrack"
    weights = PUBLISHED["locotrack-base"]
    presets = PRESETS
    network = LocoTrack
    memory_format = torch.channels_last
    cpu_memory, gpu_memory = CPU_MEMORY, GPU_MEMORY
    settings_type = LocoTrackSettings
    config_settings = ("official_quirks",)
    settings: LocoTrackSettings
    rule = RULE

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.max_frames = self.settings.max_frames
        self.mode_settings = overridden(mode_settings_of(mode, self.config), self.settings)
        if self.settings.resolution == "own":
            self.mode_settings = replace(self.mode_settings, resolution=None)
        return self._stored(self.mode_settings, "official_quirks", "max_frames")

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        own = (frames.shape[1], frames.shape[2])
        size = self.mode_settings.resolution or own
        ratio = np.array([size[1] / own[1], size[0] / own[0]], np.float32)
        corners = np.concatenate([queries[:, :1], (queries[:, 1:] + np.float32(0.5)) * ratio], 1)
        with torch.inference_mode():
            points = sent(torch.from_numpy(corners)[None], self.device)
            values = self._clip(frames, points, size, queries[:, 0].astype(int))
            values = values.cpu()  # in one piece: the only wait
            require_finite(values, self.info.name)
            xy, wrong = (
                part[0].numpy() for part in (values[..., :2], torch.sigmoid(-values[..., 2:]))
            )
        xy = xy / ratio - np.float32(0.5)
        if self.mode_settings.through_query:
            xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return Tracks(xy, wrong[..., 0], wrong[..., 1])

    def _clip(
        self, frames: np.ndarray, queries: Tensor, size: Size, asked: np.ndarray
    ) -> Tensor:  # [T, H, W, 3], [1, N, 3] -> [1, N, T, 4]
        """`asked` [N]: the queries' frames, known without asking a GPU."""
        if len(frames) <= self.max_frames:
            features = self._features(frames, size)
            looks = self.model.describe(features, queries, size)
            return self.model.track(features, looks, size, queries, self.memory)[-1]
        looks, parts = self._describe(frames, queries, size, asked), []
        for window, kept in overlapping(len(frames), self.max_frames, self.max_frames):
            moved = queries - constant(queries, window.start, 0, 0)
            features = self._features(frames[window], size)
            tracks = self.model.track(features, looks, size, moved, self.memory)[-1]
            parts.append(tracks[:, :, kept])
        return torch.cat(parts, 2)

    def _describe(
        self, frames: np.ndarray, queries: Tensor, size: Size, asked: np.ndarray
    ) -> QueryLooks:
        """`LocoTrack.describe` for a clip whose features are too many to hold."""
        found: QueryLooks | None = None
        for first in range(0, len(frames), self.max_frames):
            block = frames[first : first + self.max_frames]
            if ((asked >= first) & (asked < first + len(block))).any():
                moved = queries - constant(queries, first, 0, 0)
                here = (moved[..., 0] >= 0) & (moved[..., 0] < len(block))  # [1, N]
                inside = torch.where(here[..., None], moved, 0)
                seen = self.model.describe(self._features(block, size), inside, size)
                found = seen if found is None else found.where(~here, seen)
        if found is None:
            raise TeacherError("no query lies in the clip.")
        return found

    def _features(self, frames: np.ndarray, size: Size) -> list[LocoTrackFeatures]:
        video = self._video(frames)
        if video.shape[-2:] != size:
            video = torch.cat(
                [
                    F.interpolate(part.float(), size, mode="bilinear", align_corners=False)
                    for part in video.split(self.memory.frames_per_block)
                ]
            )
        resolutions = self.mode_settings.resolutions or self.model.default_resolutions(size)
        return self.model.encode(video[None], resolutions, self.memory)


class LocoTrackSmallTeacher(LocoTrackTeacher):
    """LocoTrack-S over a whole clip."""

    architecture = "LocoTrack-S"
    variant = SMALL
    weights = PUBLISHED["locotrack-small"]
