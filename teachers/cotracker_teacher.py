"""The CoTrackers as teachers: modes, rasters, support points, and the pass over the reversed clip.

What a network does with the points of one pass is its own; how the passes are made, and what becomes of them, is the same for all.

    frames --to raster--> encode once --> pass with the queries and their support --> [pass over the reversed clip] --> px of the clip
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.checkpoints import LICENCE, load_weights, read_metadata, stored_config
from teachers.device import pick_device
from teachers.errors import CheckpointError, ConfigError
from teachers.interface import Mode, Teacher, TeacherInfo, Tracks, VisibleRule
from teachers.memory import DEFAULT_MEMORY, Memory
from teachers.pyramid import least_side
from teachers.support import frame_grid, grid_points, random_points

STRIDE = 4
LOCAL_EXTENT_PX = 50.0
"""Side of the square around a query that is tracked alone; its support points lie in it, always at frame 0."""

Preset = Literal["official", "mini"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a mode calls the network."""

    iterations: int
    resolution: tuple[int, int] | None
    """(H, W) px that frames are resized to, multiples of 4; None keeps the clip's own size (sides that are no multiple of 4 are
    padded by their last row and column, and so are clips too small for the network)."""
    support_grid: int
    """Support points a side, in a grid over frame 0."""
    support_points: int = 0
    """Support points drawn over space and time."""
    backward: bool = False
    """Take the frames before a query from a pass over the reversed clip, and the query's own frame from the query."""
    support_moves: bool = False
    """In the reversed clip lay the support anew, over its own frame 0. The published predictors leave it where it was, in what is
    then the last frame; a model that goes window by window would meet it there when it is of no more use."""
    single: bool = False
    """Track each query alone, with its own local support grid."""
    local_grid: int = 8
    """Points a side of that local grid."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError(f"iterations = {self.iterations}: at least 1 is needed; the official predictor makes 6.")
        for name in ("support_grid", "support_points", "local_grid"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: it cannot be negative; 0 is none.")
        if self.resolution and any(side % STRIDE for side in self.resolution):
            raise ConfigError(f"resolution = {self.resolution}: height and width must be multiples of {STRIDE}.")


class CoTrackerTeacher(Teacher):
    """A subclass says which network, how each mode calls it, and when a point counts as visible.

    Settings:
        preset: "official" or "mini", which network; a checkpoint that says so itself needs none.
        iterations, support_grid, support_points, local_grid, resolution: see `Call`; None keeps what the mode does.
        single: in mode "benchmark", track each query alone.
        memory: see `Memory`.
    """

    architecture: ClassVar[str]
    weights_at: ClassVar[str]
    presets: ClassVar[Mapping[str, Callable[[], Any]]]
    """Configs of the network by name."""
    network: ClassVar[type[Any]]
    """Class of the network; made from a config."""

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        iterations: int | None = None,
        support_grid: int | None = None,
        support_points: int | None = None,
        resolution: tuple[int, int] | None = None,
        single: bool = False,
        local_grid: int | None = None,
        memory: Memory = DEFAULT_MEMORY,
    ) -> None:
        if preset not in self.presets:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(self.presets)}.")
        if single and mode != "benchmark":
            raise ConfigError(f"single tracking belongs to mode 'benchmark', not to {mode!r}.")
        config = self.presets[preset]()
        if checkpoint is not None:
            config = stored_config(checkpoint, config)
        official = config == self.presets["official"]()
        given = {
            "iterations": iterations, "support_grid": support_grid, "support_points": support_points, "resolution": resolution,
            "local_grid": local_grid,
        }  # fmt: skip
        changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        self.call: Call = replace(self._published_call(mode, config.resolution), single=single, **changed)
        self.device = pick_device(device)
        self.memory = memory
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = self.network(config).eval().requires_grad_(False)
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture if official else f"{self.architecture}, {millions:.1f} M parameters",
            mode=mode,
            visible_rule=str(self._rule(mode)),
            licence=_licence(checkpoint, official),
            checkpoint_sha256=self._load(checkpoint, name),
            settings=asdict(self.call),
        )
        self.model.to(self.device)

    @abc.abstractmethod
    def _published_call(self, mode: Mode, resolution: tuple[int, int]) -> Call:
        """What the publication's code does in each mode; `resolution` is the one that the network is meant for."""

    @abc.abstractmethod
    def _rule(self, mode: Mode) -> VisibleRule: ...

    @abc.abstractmethod
    def _pass(self, pyramid: list[Tensor], own: Tensor, support: Tensor) -> Tensor:  # [N, 3], [M, 3] -> [N, T, 4]
        """(x, y, visibility, confidence) of the own queries, which are tracked together with the support points."""

    def _load(self, checkpoint: str | None, name: str) -> str:
        """sha256 of the weights that went into the network, or "random"."""
        if checkpoint is None:
            raise CheckpointError(
                f"teacher {name!r} has no weights: get its file from {self.weights_at} (CC-BY-NC 4.0) and give it as "
                "`--checkpoint FILE`. `--checkpoint random` takes untrained weights, for tests only."
            )
        return "random" if checkpoint == "random" else load_weights(self.model, checkpoint, name)

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            video, scale = self._to_raster(frames)
            own = torch.from_numpy(queries) * torch.tensor([1.0, *scale])
            support = self._support(len(frames), video.shape[-2:], seed)
            pyramid = self.model.encode(video[None], self.memory)
            if self.call.single:
                local = (_local_grid(query, self.call.local_grid) for query in own.split(1))
                passes = zip(own.split(1), local, strict=True)
                tracks = torch.cat([self._pass(pyramid, query, torch.cat([grid, support])) for query, grid in passes])
            else:
                tracks = self._pass(pyramid, own, support)
            if self.call.backward:
                tracks = self._with_backward_pass(tracks, pyramid, own, support)
        result = self._to_tracks(tracks, scale)
        if self.call.backward or self.info.mode == "label":
            at_query = np.arange(len(queries)), queries[:, 0].astype(int)
            result.xy[at_query], result.visibility[at_query] = queries[:, 1:], 1
        return result

    def _support(self, frames: int, size: torch.Size, seed: int) -> Tensor:  # [M, 3]
        height, width = size
        grid = frame_grid(self.call.support_grid, height, width)
        return torch.cat([grid, random_points(self.call.support_points, frames, height, width, seed)])

    def _with_backward_pass(self, tracks: Tensor, pyramid: list[Tensor], own: Tensor, support: Tensor) -> Tensor:
        """[N, T, 4] `tracks`, with the frames before each query from the reversed clip."""
        frames = tracks.shape[1]
        frame, query_frame = torch.arange(frames, device=self.device), own[:, :1].to(self.device)
        if (query_frame > 0).any():
            there = support if self.call.support_moves else _reversed(support, frames)
            back = self._pass([grid.flip(1) for grid in pyramid], _reversed(own, frames), there)
            tracks = torch.where((frame < query_frame)[..., None], back.flip(1), tracks)
        return tracks

    def _to_raster(self, frames: np.ndarray) -> tuple[Tensor, tuple[float, float]]:
        """[T, 3, h, w] in 0..255 as the network takes them, and the factors (x, y) from px of the clip to px of these."""
        video = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)  # torch warns of read-only arrays: Ray's are
        height, width = video.shape[-2:]
        if self.call.resolution is None:
            least = least_side(STRIDE, self.model.config.levels)
            rest = (0, max(least - width, -width % STRIDE), 0, max(least - height, -height % STRIDE))
            return (F.pad(video.float(), rest, mode="replicate") if any(rest) else video), (1.0, 1.0)
        rows, columns = self.call.resolution
        scale = (columns - 1) / max(1, width - 1), (rows - 1) / max(1, height - 1)
        return F.interpolate(video.float(), (rows, columns), mode="bilinear", align_corners=True), scale

    def _to_tracks(self, values: Tensor, scale: tuple[float, float]) -> Tracks:  # [N, T, 4] px of the raster
        xy, visibility, confidence = (part.cpu().numpy() for part in values.split((2, 1, 1), -1))
        return Tracks(xy / np.array(scale, np.float32), visibility[..., 0], confidence[..., 0])


def _local_grid(query: Tensor, side: int) -> Tensor:  # [1, 3] -> [side**2, 3]
    x, y = query[0, 1:].tolist()
    return grid_points(side, (LOCAL_EXTENT_PX, LOCAL_EXTENT_PX), (x, y))


def _reversed(points: Tensor, frames: int) -> Tensor:  # [N, 3] -> [N, 3]
    """Queries of a clip as queries of the reversed clip."""
    return torch.cat([frames - 1 - points[:, :1], points[:, 1:]], 1)


def _licence(checkpoint: str | None, official: bool) -> str:
    known = read_metadata(checkpoint).get(LICENCE) if checkpoint else None
    return known or ("CC-BY-NC 4.0 (official weights)" if official else "Apache-2.0")
