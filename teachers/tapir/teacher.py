"""TAPIR and BootsTAPIR as teachers: modes, resolutions, long clips, and the half pixel between
their raster and ours.

| mode | frames are refined at | beside that |
|---|---|---|
| `predictor` | 256 x 256, then up to the clip's own size | as the official forward pass |
| `label` | 256 x 256 | through its query; a causal network goes back over the reversed clip |
| `recipe` | 256 x 256 | without the half pixel, as CoTracker3's training does |
| `benchmark` | 256 x 256 | as TAP-Vid measures it |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from teachers.checkpoints.files import (
    LICENCE,
    load_weights,
    no_weights,
    read_metadata,
    stored_config,
)
from teachers.errors import ConfigError
from teachers.finite import require_finite
from teachers.interface import Mode, Teacher, TeacherInfo
from teachers.layers.device import compute_in_bf16, pick_device
from teachers.layers.memory import Memory
from teachers.layers.overlapping import overlapping
from teachers.settings import require_switch, require_whole
from teachers.tapir.network import (
    BOOTSTAPIR,
    CPU_MEMORY,
    GPU_MEMORY,
    PRESETS,
    Features,
    Size,
    Tapir,
    TapirConfig,
    default_resolutions,
)
from teachers.tracks import Tracks, VisibleRule

Preset = Literal["official", "mini"]


@dataclass(frozen=True, kw_only=True)
class TapirCall:
    """How a mode calls the network."""

    resolutions: tuple[Size, ...] | None
    """(H, W) px of the frames that positions are refined on; None grows to the clip's own size, see
    `default_resolutions`."""
    backward: bool = False
    """Take the frames before a query from a pass over the reversed clip."""
    half_pixel: bool = True
    """Shift by half a pixel between our pixel centres and the network's corner raster; the
    published recipe forgets it."""
    through_query: bool = False
    """Put each track through its query, as a label should go; the network's own answer in that
    frame is near, not equal."""

    def __post_init__(self) -> None:
        require_switch(
            backward=self.backward, half_pixel=self.half_pixel, through_query=self.through_query
        )


RULE = VisibleRule("v*c", 0.5)


def call_of(mode: Mode, config: TapirConfig) -> TapirCall:
    """The published call of each mode; in `label`, a causal network also goes backwards."""
    own = ((config.raster, config.raster),)
    if mode == "predictor":
        return TapirCall(resolutions=None)
    if mode == "label":
        return TapirCall(resolutions=own, backward=config.causal, through_query=True)
    return TapirCall(resolutions=own, half_pixel=mode != "recipe")


class TapirTeacher(Teacher):
    """TAPIR over a whole clip.

    A clip of more than `max_frames` frames goes in overlapping windows, see `overlapping`.

    Settings:
        preset: "official" or "mini", which network; a checkpoint that says so itself needs none.
        resolutions, backward, half_pixel, through_query: see `TapirCall`; None keeps what the mode
            does.
        official_quirks: see `TapirConfig`.
        max_frames: how many frames are held as features at once, 3.5 MB each for frames of 256 x
            256 px.
        memory: see `Memory`; None takes what suits the device.
        bf16: see `compute_in_bf16`.
    """

    architecture: ClassVar[str] = "TAPIR"
    variant: ClassVar[Mapping[str, Any]] = {}
    """Fields of `TapirConfig` in which this model differs."""
    weights_at: ClassVar[str] = (
        "https://storage.googleapis.com/dm-tapnet/tapir_checkpoint_panning.pt"
    )
    presets: ClassVar[Mapping[str, Callable[..., TapirConfig]]] = PRESETS
    """Configs of the network by name; called with `variant`."""
    network: ClassVar[type[Tapir]] = Tapir

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        resolutions: Sequence[Size] | None = None,
        backward: bool | None = None,
        half_pixel: bool | None = None,
        through_query: bool | None = None,
        official_quirks: bool = False,
        max_frames: int = 480,
        memory: Memory | None = None,
        bf16: bool = False,
    ) -> None:
        if checkpoint is None:
            raise no_weights(name, self.weights_at, "Apache-2.0")
        if preset not in PRESETS:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(PRESETS)}.")
        require_whole(1, max_frames=max_frames)
        require_switch(official_quirks=official_quirks, bf16=bf16)
        config = stored_config(checkpoint, PRESETS[preset](**self.variant))
        official = config == TapirConfig.official(**self.variant)
        config = replace(config, official_quirks=official_quirks)
        given = {
            "resolutions": None
            if resolutions is None
            else tuple((int(height), int(width)) for height, width in resolutions),
            "backward": backward,
            "half_pixel": half_pixel,
            "through_query": through_query,
        }
        changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        self.call: TapirCall = replace(call_of(mode, config), **changed)
        self.max_frames = max_frames
        self.device = pick_device(device)
        self.memory = memory or (CPU_MEMORY if self.device.type == "cpu" else GPU_MEMORY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Tapir(config).eval().requires_grad_(False)
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture
            if official
            else f"{self.architecture}, {millions:.1f} M parameters",
            mode=mode,
            visible_rule=str(RULE),
            licence=read_metadata(checkpoint).get(LICENCE, "Apache-2.0"),
            checkpoint_sha256="random"
            if checkpoint == "random"
            else load_weights(self.model, checkpoint, name),
            settings=asdict(self.call)
            | {"official_quirks": official_quirks, "max_frames": max_frames, "bf16": bf16},
        )
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if bf16:
            compute_in_bf16(self.model)

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            result = self.to_tracks(self._clip(frames, self.to_corners(queries)))
        if self.call.through_query:
            result.xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return result

    def _clip(
        self, frames: np.ndarray, queries: Tensor
    ) -> Tensor:  # [T, H, W, 3], [1, N, 3] -> [1, N, T, 4]
        size = (frames.shape[1], frames.shape[2])
        resolutions = self.resolutions(size)
        if len(frames) <= self.max_frames:
            features = self.model.encode(self.to_video(frames), resolutions, self.memory)
            return self._window(
                features, self.model.describe(features, queries, size), size, queries
            )
        described = self._describe(frames, queries, resolutions)
        parts = []
        for window, kept in overlapping(
            len(frames), self.max_frames, self.model.config.reach * len(resolutions)
        ):
            features = self.model.encode(self.to_video(frames[window]), resolutions, self.memory)
            moved = queries - queries.new_tensor([window.start, 0, 0])
            parts.append(self._window(features, described, size, moved)[:, :, kept])
        return torch.cat(parts, 2)

    def _window(
        self, features: Sequence[Features], described: Sequence[Tensor], size: Size, queries: Tensor
    ) -> Tensor:
        """[1, N, T, 4] in the frames of the features; if the mode says so, frames before a query
        from the reversed clip."""
        tracks = self.model.track(features, described, size, queries, memory=self.memory).answer
        frames = tracks.shape[2]
        before = torch.arange(frames, device=self.device) < queries[..., :1]  # [1, N, T]
        if not (self.call.backward and before.any()):
            return tracks
        reversed_features = [
            replace(level, grids=[grid.flip(1) for grid in level.grids]) for level in features
        ]
        reversed_queries = torch.cat([frames - 1 - queries[..., :1], queries[..., 1:]], -1)
        back = self.model.track(
            reversed_features, described, size, reversed_queries, memory=self.memory
        ).answer
        return torch.where(before[..., None], back.flip(2), tracks)

    def _describe(
        self, frames: np.ndarray, queries: Tensor, resolutions: Sequence[Size]
    ) -> list[Tensor]:
        """`Tapir.describe` for a clip whose features are too many to hold."""
        size = (frames.shape[1], frames.shape[2])
        described = [queries.new_zeros(1)] * (1 + len(resolutions))
        for first in range(0, len(frames), self.max_frames):
            block = self.to_video(frames[first : first + self.max_frames])
            moved = queries - queries.new_tensor([first, 0, 0])
            here = (moved[..., 0] >= 0) & (moved[..., 0] < block.shape[1])
            if here.any():
                inside = torch.where(here[..., None], moved, 0)
                seen = self.model.describe(
                    self.model.encode(block, resolutions, self.memory), inside, size
                )
                described = [
                    torch.where(here[..., None], new, old)
                    for new, old in zip(seen, described, strict=True)
                ]
        return described

    def resolutions(self, size: Size) -> Sequence[Size]:
        """What positions are refined on for frames of (H, W) px."""
        return self.call.resolutions or default_resolutions(size, self.model.config)

    def to_video(self, frames: np.ndarray) -> Tensor:  # [T, H, W, 3] -> [1, T, 3, H, W]
        """Frames as the network takes them."""
        # torch warns of read-only arrays: Ray's are
        return torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)[None]

    def to_corners(self, queries: np.ndarray) -> Tensor:  # [N, 3] -> [1, N, 3]
        """Queries (t, x, y) from pixel centres to the corner raster."""
        return torch.from_numpy(queries + np.array([0, self._shift, self._shift], np.float32))[
            None
        ].to(self.device)

    def to_tracks(self, values: Tensor) -> Tracks:  # [1, N, T, 4]
        """What the network says, from the corner raster to pixel centres, from logits of what is
        wrong to probabilities."""
        require_finite(values, self.info.name)
        xy, occlusion, distance = (
            part[0].cpu().numpy()
            for part in (values[..., :2], *torch.sigmoid(-values[..., 2:]).unbind(-1))
        )
        return Tracks(xy - np.float32(self._shift), occlusion, distance)

    @property
    def _shift(self) -> float:
        return 0.5 if self.call.half_pixel else 0.0


class BootsTapirTeacher(TapirTeacher):
    """BootsTAPIR over a whole clip."""

    architecture = "BootsTAPIR"
    variant = BOOTSTAPIR
    weights_at = "https://storage.googleapis.com/dm-tapnet/bootstap/bootstapir_checkpoint_v2.pt"
