"""LocoTrack as a teacher: modes, resolutions, long clips, and the half pixel between its raster and
ours.

| mode | frames are resized to | beside that |
|---|---|---|
| `predictor` | 256 x 256 | as the official predictor |
| `label` | 256 x 256 | a track goes through its query |
| `recipe` | 256 x 256 | as `benchmark`; no published recipe has this teacher |
| `benchmark` | 256 x 256 | as TAP-Vid measures it |

With another `resolution` points are matched on 256 x 256 px and refined on that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
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
from teachers.layers.resolutions import Size
from teachers.locotrack.network import (
    CPU_MEMORY,
    GPU_MEMORY,
    PRESETS,
    SMALL,
    Features,
    LocoTrack,
    LocoTrackConfig,
    Looks,
)
from teachers.settings import require_switch, require_whole
from teachers.tracks import Tracks, VisibleRule

Preset = Literal["official", "mini"]
RULE = VisibleRule("v*c", 0.5)
WEIGHTS_AT = "https://huggingface.co/datasets/hamacojr/LocoTrack-pytorch-weights"
LICENCE_OF_WEIGHTS = "not confirmed (perhaps Apache-2.0), see its page"


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a mode calls the network."""

    resolution: Size | None
    """(H, W) px that frames are resized to first; None keeps the clip's own size."""
    resolutions: tuple[Size, ...] | None = None
    """(H, W) px, multiples of 8: points are matched on the first, refined on the last; None is 256
    x 256, then growing to the size of the frames."""
    through_query: bool = False
    """Put each track through its query, as a label should go; the network pins only where it
    starts."""

    def __post_init__(self) -> None:
        require_switch(through_query=self.through_query)


def call_of(mode: Mode, config: LocoTrackConfig) -> Call:
    """The published call of each mode."""
    return Call(resolution=(config.raster, config.raster), through_query=mode == "label")


class LocoTrackTeacher(Teacher):
    """LocoTrack-B over a whole clip.

    A clip of more than `max_frames` frames goes in overlapping windows, see `overlapping`. Points
    are matched in each frame alone, so a window needs no query frame; what it lacks is how the
    track goes on beyond it.

    Settings:
        preset: "official" or "mini", which network; a checkpoint that says so itself needs none.
        resolution, resolutions, through_query: see `Call`; None keeps what the mode does, and
            resolution="own" the clip's own size.
        official_quirks: see `LocoTrackConfig`.
        max_frames: how many frames are held as features at once, 7.5 MB each for frames of 256 x
        256 px.
        memory: see `Memory`; None takes what suits the device.
        bf16: see `compute_in_bf16`.
    """

    architecture: ClassVar[str] = "LocoTrack-B"
    variant: ClassVar[Mapping[str, Any]] = {}
    """Fields of `LocoTrackConfig` in which this model differs."""
    presets: ClassVar[Mapping[str, Callable[..., LocoTrackConfig]]] = PRESETS
    """Configs of the network by name; called with `variant`."""
    network: ClassVar[type[LocoTrack]] = LocoTrack

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        resolution: Size | Literal["own"] | None = None,
        resolutions: Sequence[Size] | None = None,
        through_query: bool | None = None,
        official_quirks: bool = False,
        max_frames: int = 240,
        memory: Memory | None = None,
        bf16: bool = False,
    ) -> None:
        if checkpoint is None:
            raise no_weights(name, WEIGHTS_AT, LICENCE_OF_WEIGHTS)
        if preset not in PRESETS:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(PRESETS)}.")
        require_whole(1, max_frames=max_frames)
        require_switch(official_quirks=official_quirks, bf16=bf16)
        config = stored_config(checkpoint, PRESETS[preset](**self.variant))
        official = config == LocoTrackConfig.official(**self.variant)
        config = replace(config, official_quirks=official_quirks)
        changed: dict[str, Any] = {}
        if resolution is not None:
            changed["resolution"] = None if resolution == "own" else _size("resolution", resolution)
        if resolutions is not None:
            changed["resolutions"] = tuple(_size("resolutions", size) for size in resolutions)
        if through_query is not None:
            changed["through_query"] = through_query
        self.call: Call = replace(call_of(mode, config), **changed)
        self.max_frames = max_frames
        self.device = pick_device(device)
        self.memory = memory or (CPU_MEMORY if self.device.type == "cpu" else GPU_MEMORY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = LocoTrack(config).eval().requires_grad_(False)
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture
            if official
            else f"{self.architecture}, {millions:.1f} M parameters",
            mode=mode,
            visible_rule=str(RULE),
            licence=read_metadata(checkpoint).get(LICENCE, LICENCE_OF_WEIGHTS),
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
        own = (frames.shape[1], frames.shape[2])
        size = self.call.resolution or own
        ratio = np.array([size[1] / own[1], size[0] / own[0]], np.float32)
        corners = np.concatenate([queries[:, :1], (queries[:, 1:] + np.float32(0.5)) * ratio], 1)
        with torch.inference_mode():
            values = self._clip(frames, torch.from_numpy(corners)[None].to(self.device), size)
            require_finite(values, self.info.name)
            xy, wrong = (
                part[0].cpu().numpy() for part in (values[..., :2], torch.sigmoid(-values[..., 2:]))
            )
        xy = xy / ratio - np.float32(0.5)
        if self.call.through_query:
            xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return Tracks(xy, wrong[..., 0], wrong[..., 1])

    def _clip(self, frames: np.ndarray, queries: Tensor, size: Size) -> Tensor:  # -> [1, N, T, 4]
        if len(frames) <= self.max_frames:
            features = self._features(frames, size)
            looks = self.model.describe(features, queries, size)
            return self.model.track(features, looks, size, queries, self.memory)[-1]
        looks, parts = self._describe(frames, queries, size), []
        for window, kept in overlapping(len(frames), self.max_frames, self.max_frames):
            moved = queries - queries.new_tensor([window.start, 0, 0])
            features = self._features(frames[window], size)
            tracks = self.model.track(features, looks, size, moved, self.memory)[-1]
            parts.append(tracks[:, :, kept])
        return torch.cat(parts, 2)

    def _describe(self, frames: np.ndarray, queries: Tensor, size: Size) -> Looks:
        """`LocoTrack.describe` for a clip whose features are too many to hold."""
        found: Looks | None = None
        for first in range(0, len(frames), self.max_frames):
            block = frames[first : first + self.max_frames]
            moved = queries - queries.new_tensor([first, 0, 0])
            here = (moved[..., 0] >= 0) & (moved[..., 0] < len(block))  # [1, N]
            if here.any():
                inside = torch.where(here[..., None], moved, 0)
                seen = self.model.describe(self._features(block, size), inside, size)
                found = seen if found is None else found.where(~here, seen)
        assert found is not None
        return found

    def _features(self, frames: np.ndarray, size: Size) -> list[Features]:
        video = (
            torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)
        )  # Ray's are read-only
        if video.shape[-2:] != size:
            video = torch.cat(
                [
                    F.interpolate(part.float(), size, mode="bilinear", align_corners=False)
                    for part in video.split(self.memory.frames_per_block)
                ]
            )
        resolutions = self.call.resolutions or self.model.default_resolutions(size)
        return self.model.encode(video[None], resolutions, self.memory)


class LocoTrackSmallTeacher(LocoTrackTeacher):
    """LocoTrack-S over a whole clip."""

    architecture = "LocoTrack-S"
    variant = SMALL


def _size(name: str, value: Any) -> Size:
    try:
        height, width = (int(side) for side in value)
    except (TypeError, ValueError):
        height, width = 0, 0
    if height < 1 or width < 1:
        raise ConfigError(f"{name} = {value!r}: write height and width in px, such as [256, 256].")
    return height, width
