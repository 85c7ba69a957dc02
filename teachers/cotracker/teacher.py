"""The CoTrackers as teachers: modes, rasters, support points, and the pass over the reversed clip.

What a network does with the points of one pass is its own business; how passes are made, and what
becomes of their answers, is the same for all.

    frames --to raster--> features --> pass with the queries and their support
        --> [pass over the reversed clip] --> px of the clip
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.cotracker.support_points import frame_grid, grid_points, random_points
from teachers.cotracker.transformer import STRIDE
from teachers.errors import ConfigError
from teachers.info import Mode
from teachers.layers.branch import for_gpu
from teachers.layers.clip_features import ClipFeatures
from teachers.layers.device import sent
from teachers.layers.pyramid import least_side
from teachers.layers.resolutions import Size
from teachers.network_teacher import (
    NetworkTeacher,
    require_finite,
    reversed_queries,
    with_backward_pass,
)
from teachers.settings import overridden, require_switch, require_whole
from teachers.tracks import Tracks

MAX_FRAMES = 256
LOCAL_EXTENT_PX = 50.0
"""Side of the square around a query that is tracked alone; its support points lie in it, always at
frame 0."""


@dataclass(frozen=True, kw_only=True)
class CoTrackerModeSettings:
    """How the network is called in a mode."""

    iterations: int
    resolution: tuple[int, int] | None
    """(H, W) px that frames are resized to, multiples of 4; None keeps the clip's own size (sides
    that are not multiples of 4 are padded by repeating the last row and column, and so are frames
    that are too small for the network)."""
    support_grid: int
    """Support points per side, in a grid over frame 0."""
    support_points: int = 0
    """Support points drawn at random over space and time."""
    backward: bool = False
    """Take the frames before a query from a pass over the reversed clip, and the query's own frame
    from the query."""
    support_moves: bool = False
    """Whether the reversed clip gets a support grid of its own, over its own frame 0. The published
    predictors leave the grid where it was, in what is then the last frame; a model that goes window
    by window would meet it there only when it is of no more use."""
    single: bool = False
    """Track each query alone, with its own local support grid."""
    local_grid: int = 8
    """Points per side of that local grid."""

    def __post_init__(self) -> None:
        require_whole(1, iterations=self.iterations)
        require_whole(
            0,
            support_grid=self.support_grid,
            support_points=self.support_points,
            local_grid=self.local_grid,
        )
        require_switch(single=self.single)
        if self.resolution is None:
            return
        if len(self.resolution) != 2 or any(
            side % STRIDE or side < STRIDE for side in self.resolution
        ):
            raise ConfigError(
                f"resolution = {self.resolution}: must be height and width, multiples of {STRIDE}."
            )


@dataclass(frozen=True, kw_only=True)
class CoTrackerSettings:
    """Settings of these teachers; None keeps what the mode does."""

    iterations: int | None = None
    support_grid: int | None = None
    support_points: int | None = None
    local_grid: int | None = None
    resolution: tuple[int, int] | None = None
    """See `CoTrackerModeSettings` for these five."""
    single: bool = False
    """In mode "benchmark", track each query alone."""
    max_frames: int = MAX_FRAMES
    """How many frames are held as features at once, 8.4 MB each for frames of 384 x 512 px
    (official network)."""

    def __post_init__(self) -> None:
        require_whole(2, max_frames=self.max_frames)
        if self.resolution is not None:
            object.__setattr__(self, "resolution", tuple(self.resolution))


@dataclass(frozen=True)
class Group:
    """Points that are tracked together, so that they see each other; all are (t, x, y) in px of the
    raster."""

    own: Tensor
    """[n, 3] queries"""
    support: Tensor
    """[m, 3] points that nobody asked for, see `support_points.py`"""

    @property
    def points(self) -> Tensor:  # [1, n + m, 3]
        return torch.cat([self.own, self.support])[None]


class CoTrackerTeacher(NetworkTeacher):
    """A CoTracker. A subclass defines which network it is, how it is called in each mode, and when
    a point counts as visible."""

    tracks_jointly = True
    knows_hidden_points = True
    settings_type = CoTrackerSettings
    settings: CoTrackerSettings

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        if self.settings.single and mode != "benchmark":
            raise ConfigError(f"single tracking belongs to mode 'benchmark', not to {mode!r}.")
        self.max_frames = self.settings.max_frames
        self.mode_settings = overridden(
            self._mode_settings(mode, self.config.resolution), self.settings
        )
        return self._stored(self.mode_settings)

    @abc.abstractmethod
    def _mode_settings(self, mode: Mode, resolution: tuple[int, int]) -> CoTrackerModeSettings:
        """What the published code does in each mode; `resolution` is the one that the network is
        made for."""

    @abc.abstractmethod
    def _pass(self, features: ClipFeatures, groups: list[Group]) -> Tensor:  # -> [N, T, 4]
        """(x, y, visibility, confidence) of the own points of all groups."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            features = ClipFeatures(self._encode, frames)
            if len(frames) <= self.max_frames:
                # held from now on, so that a backward pass need not encode them again
                features.window(0, len(frames))
            scale = self._scale(features.size)
            own = self._to_own_raster(queries, scale)
            tracks = self._clip(features, own, seed, queries[:, 0].astype(int))
        result = self._to_tracks(tracks, scale)
        if self.mode_settings.backward or self.info.mode == "label":
            at_query = np.arange(len(queries)), queries[:, 0].astype(int)
            result.xy[at_query], result.visibility[at_query] = queries[:, 1:], 1
        return result

    def _clip(
        self, features: ClipFeatures, own: Tensor, seed: int, asked: np.ndarray | None = None
    ) -> Tensor:  # [N, 3] -> [N, T, 4]
        """Tracks over all frames; if the mode says so, the frames before a query come from the
        reversed clip. `asked` [N]: the queries' frames, where they are known without asking a
        GPU."""
        frames = len(features)
        groups = self._groups(own, frames, features.size, seed)
        tracks = self._pass(features, groups)
        if not self.mode_settings.backward:
            return tracks

        def backward(_: Tensor) -> Tensor:
            return self._pass(
                features.reversed(), [self._reversed(group, frames) for group in groups]
            )

        return with_backward_pass(
            tracks, own, backward, None if asked is None else bool((asked > 0).any())
        )

    def _groups(self, own: Tensor, frames: int, size: Size, seed: int) -> list[Group]:
        """The own points [N, 3] in groups that are tracked together, each with the support that the
        mode gives it."""
        height, width = self._raster(size)
        grid = frame_grid(self.mode_settings.support_grid, height, width)
        drawn = random_points(self.mode_settings.support_points, frames, height, width, seed)
        support = sent(torch.cat([grid, drawn]), self.device)
        if not self.mode_settings.single:
            return [Group(own, support)]
        around = _grids_around(own, self.mode_settings.local_grid)
        return [
            Group(point, torch.cat([grid, support]))
            for point, grid in zip(own.split(1), around, strict=True)
        ]

    def _reversed(self, group: Group, frames: int) -> Group:
        """The same group for the reversed clip."""
        return Group(
            reversed_queries(group.own, frames),
            group.support
            if self.mode_settings.support_moves
            else reversed_queries(group.support, frames),
        )

    def _encode(
        self, frames: np.ndarray
    ) -> list[Tensor]:  # uint8 [t, H, W, 3] -> per level [1, t, h, w, C]
        video = self._video(frames)
        size, raster = video.shape[-2:], self._raster((video.shape[-2], video.shape[-1]))
        if self.mode_settings.resolution:
            video = F.interpolate(video.float(), raster, mode="bilinear", align_corners=True)
        elif size != raster:
            video = F.pad(
                video.float(), (0, raster[1] - size[1], 0, raster[0] - size[0]), mode="replicate"
            )
        return self.model.encode(video[None], self.memory)

    def _raster(self, size: Size) -> Size:
        """(H, W) px of the frames as the network takes them, for frames of that size."""
        least = least_side(STRIDE, self.model.config.levels)
        height, width = (max(least, side + -side % STRIDE) for side in size)
        return self.mode_settings.resolution or (height, width)

    def _scale(self, size: Size) -> tuple[float, float]:
        """The factors (x, y) from px of frames of that size to px of the raster."""
        if self.mode_settings.resolution is None:
            return 1.0, 1.0
        (height, width), (rows, columns) = size, self.mode_settings.resolution
        return (columns - 1) / max(1, width - 1), (rows - 1) / max(1, height - 1)

    def _to_own_raster(
        self, queries: np.ndarray, scale: tuple[float, float]
    ) -> Tensor:  # [N, 3] -> [N, 3]
        return sent(torch.from_numpy(queries) * torch.tensor([1.0, *scale]), self.device)

    def _to_tracks(
        self, values: Tensor, scale: tuple[float, float]
    ) -> Tracks:  # [N, T, 4] px of the raster
        values = values.cpu()  # in one piece: the only wait
        require_finite(values[..., :3], self.info.name)  # CoTracker 2.1 knows no confidence
        xy, visibility, confidence = (part.numpy() for part in values.split((2, 1, 1), -1))
        return Tracks(xy / np.array(scale, np.float32), visibility[..., 0], confidence[..., 0])


def _grids_around(points: Tensor, side: int) -> Iterable[Tensor]:  # [N, 3] -> N of [side**2, 3]
    """Support points around each point, in frame 0."""
    extent = (LOCAL_EXTENT_PX, LOCAL_EXTENT_PX)
    if not for_gpu(points):
        return [grid_points(side, extent, (x, y)) for _, x, y in points.tolist()]
    # which must not be asked where the points are
    grid = sent(grid_points(side, extent, (0.0, 0.0)), points.device)
    where = torch.cat([torch.zeros_like(points[:, :1]), points[:, 1:]], 1)
    return (grid + where[:, None]).unbind()
