"""TAPIR, BootsTAPIR, causal BootsTAPIR: match each query in every frame alone, then refine the
whole track.

Paper    Doersch et al. 2023, arXiv 2306.08637; BootsTAPIR (extra convolutions, one more level):
         Doersch et al. 2024, arXiv 2402.00847.
Weights  dm-tapnet `tapir_checkpoint_panning.pt`, `bootstapir_checkpoint_v2.pt`,
         `causal_bootstapir_checkpoint.pt`, Apache-2.0. This file is written from the papers; the
         parity tests show equal outputs. Attribute names are the keys of those files.
Raster   inside: positions are (x, y) in px of a 256 x 256 raster, (0, 0) is the CORNER of the
         top-left pixel, and going to a grid of another size is a multiplication. Only `teacher.py`
         knows of pixel centres.

Matching: a query's feature times the features of every cell of a frame gives a cost map; two
convolutions and a soft argmax turn it into a position, an occlusion logit, and a logit of "farther
than 6 px off". Refinement: products with the 7 x 7 cells around the position, on each grid of a
pyramid, go through a mixer over time that corrects all three and the feature of the point;
repeated, and again on finer grids for large frames. Tracks never see each other, so queries are
computed in blocks that fit the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.correlation import correlate, correlate_maps
from teachers.layers.device import constant
from teachers.layers.matching_sizes import MINI_MATCHING, MatchingSizes
from teachers.layers.memory import Memory
from teachers.layers.resnet import PreActivationResNet, same_padding
from teachers.layers.resolutions import Size, growing_resolutions, require_multiples
from teachers.layers.sampling import sample_windows
from teachers.tapir.extra_convolutions import ExtraConvolutions
from teachers.tapir.mixer import REACH, Past, TemporalMixer

STRIDE = 8
"""Of the coarse grid; the fine one has half of it."""


@dataclass(frozen=True, kw_only=True)
class TapirConfig(MatchingSizes):
    """Sizes of the network. The defaults are those of TAPIR, 31.1 M parameters, as in
    `tapir_checkpoint_panning.pt`; BootsTAPIR, 54.7 M, has the changes of `BOOTSTAPIR`."""

    finest_channels: int = 0
    """The mini: channels of one more grid, of stride 2, for precision below a pixel; 0 has none, as
    published."""
    extra_blocks: int = 0
    """BootsTAPIR: further residual blocks on the coarse grid, `extra_ratio` times as wide
    inside."""
    extra_ratio: int = 4
    pyramid_levels: int = 0
    """BootsTAPIR: how often the coarse grid is pooled by 2 for further correlations."""
    matching_channels: tuple[int, int, int] = (16, 32, 16)
    mixer_width: int = 512
    mixer_ratio: int = 4
    mixer_blocks: int = 12
    causal: bool = False
    """No frame sees a later one in the mixer."""
    official_quirks: bool = False
    """Do as the torch release does where it is wrong: it scales x by the height of the grid in
    correlations (up to 5 px off on grids that are not square), and does not resize to a listed
    resolution if the one before is the size of the video."""

    @classmethod
    def mini(cls, **changes: Any) -> TapirConfig:
        """0.45 M parameters; trains on a CPU core. Beside being small it has a grid of stride 2."""
        sizes: dict[str, Any] = dict(
            finest_channels=24,
            extra_ratio=2,
            matching_channels=(8, 16, 8),
            mixer_width=128,
            mixer_ratio=2,
            mixer_blocks=4,
        )
        return cls(**(MINI_MATCHING | sizes | changes))

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each grid that describes a point, from fine to coarse; the last is the coarse grid, in
        which points are matched."""
        finest = (self.finest_channels,) if self.finest_channels else ()
        return (*finest, self.groups[1], self.groups[3])

    @property
    def reach(self) -> int:
        """How many frames away, at most, something can change a track at one resolution."""
        one_way = 2 * self.mixer_blocks * self.iterations
        return one_way * (REACH if self.causal else 1)


PRESETS: Mapping[str, Callable[..., TapirConfig]] = {
    "official": TapirConfig,
    "mini": TapirConfig.mini,
}
BOOTSTAPIR: dict[str, Any] = {"pyramid_levels": 1, "extra_blocks": 5}
CAUSAL_BOOTSTAPIR: dict[str, Any] = BOOTSTAPIR | {"causal": True}


CPU_MEMORY = Memory(frames_per_block=1, points_per_block=768)
"""What fits the cache of a CPU core, measured."""
GPU_MEMORY = Memory(frames_per_block=32, points_per_block=16_384)
MAP_POINTS = 8
"""A cost map holds as much while it is matched as so many points while they are refined."""


@dataclass(frozen=True)
class TapirFeatures:
    """The frames of a clip at one resolution; every feature has length 1."""

    resolution: Size
    grids: list[Tensor]
    """[B, T, h, w, C]: those of `TapirConfig.channels` (strides 2 if there is one, 4, 8), then the
    coarse grid pooled by 2, 4, ..."""


@dataclass(frozen=True)
class TapirSteps:
    """A forward pass: the matched points, then every refinement of every resolution, all of which
    enter the training loss."""

    steps: Tensor
    """[1 + resolutions * iterations, B, N, T, 4]: x, y in px of the video, corner raster; logits of
    occlusion and of "farther than 6 px from the truth"."""
    iterations: int

    @property
    def answer(self) -> Tensor:
        """[B, N, T, 4]: the mean over the resolutions of what each arrived at."""
        return self.steps[self.iterations :: self.iterations].mean(0)


class MatchingHead(nn.Module):
    """Cost maps to positions, occlusion, and expected distance (section 3.2)."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.temperature, self.radius = config.softmax_temperature, config.argmax_radius
        first, second, third = config.matching_channels
        self.hid1 = nn.Conv2d(1, first, 3, padding=1)
        self.hid2 = nn.Conv2d(first, 1, 3, padding=1)
        self.hid3 = nn.Conv2d(first, second, 3, stride=2)
        self.hid4 = nn.Linear(second, third)
        self.occ_out = nn.Linear(third, 2)

    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """[P, 1, h, w] to positions [P, 2] in cells (corner raster), and logits [P, 2] of occlusion
        and distance."""
        hidden = self.hid1(cost.contiguous(memory_format=torch.channels_last)).relu_()
        weights = (self.temperature * self.hid2(hidden)).flatten(1).softmax(1)
        xy = soft_argmax(weights.unflatten(1, cost.shape[-2:]), self.radius)
        pooled = self.hid3(same_padding(hidden, self.hid3)).relu_().mean((2, 3))
        return xy, self.occ_out(self.hid4(pooled).relu_())


def soft_argmax(weights: Tensor, radius: float) -> Tensor:  # [P, h, w] -> [P, 2]
    """Mean (x, y) of cell centres, weighted, over the cells strictly nearer than `radius` to the
    one with the largest weight."""
    height, width = weights.shape[-2:]
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=weights.device) + 0.5 for side in (height, width)),
        indexing="ij",
    )
    centres = torch.stack([columns, rows], -1).flatten(0, 1).to(weights)  # [h * w, 2]
    weights = weights.flatten(1)
    best = centres[weights.argmax(1)]  # [P, 2]
    near = (centres - best[:, None]).square().sum(-1) < radius**2
    weights = weights * near
    return weights @ centres / weights.sum(1, keepdim=True).clamp(min=1e-12)


class Tapir(nn.Module):
    """The network. Runs on the device and in the precision of its weights; frames and queries must
    be on that device."""

    BF16_PARTS = ("torch_pips_mixer",)

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.config = config
        features = sum(config.channels)
        correlations = (len(config.channels) + config.pyramid_levels) * (2 * config.radius + 1) ** 2
        self.resnet_torch = PreActivationResNet(
            config.groups, config.blocks_per_group, config.finest_channels
        )
        self.torch_cost_volume_track_mods = MatchingHead(config)
        self.torch_pips_mixer = TemporalMixer(
            4 + features + correlations,
            4 + features,
            config.mixer_width,
            config.mixer_ratio,
            config.mixer_blocks,
            config.causal,
        )
        if config.extra_blocks:
            self.extra_convs = ExtraConvolutions(
                config.channels[-1], config.extra_ratio, config.extra_blocks
            )

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        # [B, N, 3] (t, x, y), px of the frames, corner raster; t is a whole number
        queries: Tensor,
        resolutions: Sequence[Size] | None = None,
        memory: Memory = CPU_MEMORY,
    ) -> TapirSteps:
        """Tracks over all T frames, those before the query included.

        Args:
            resolutions: (H, W) px, multiples of 8, of the frames that positions are refined on, one
                after the other; None takes `default_resolutions`.
        """
        size = (frames.shape[-2], frames.shape[-1])
        features = self.encode(
            frames, resolutions or default_resolutions(size, self.config), memory
        )
        return self.track(
            features, self.describe(features, queries, size), size, queries, memory=memory
        )

    def encode(
        self, frames: Tensor, resolutions: Sequence[Size], memory: Memory = CPU_MEMORY
    ) -> list[TapirFeatures]:
        """Features for matching, then those for each of `resolutions`; equal neighbours are the
        same object."""
        size = (frames.shape[-2], frames.shape[-1])
        features = [self._encode(frames, (self.config.raster, self.config.raster), memory)]
        for resolution in resolutions:
            before = features[-1]
            if self.config.official_quirks and before.resolution == size:
                resolution = size
            features.append(
                before
                if resolution == before.resolution
                else self._encode(frames, resolution, memory)
            )
        return features

    def _encode(self, frames: Tensor, resolution: Size, memory: Memory) -> TapirFeatures:
        require_multiples(resolution, STRIDE, STRIDE * 2**self.config.pyramid_levels)
        blocks = [
            self._encode_block(block, resolution)
            for block in frames.flatten(0, 1).split(memory.frames_per_block)
        ]
        *finer, coarse = (torch.cat(maps) for maps in zip(*blocks, strict=True))
        if self.config.extra_blocks:
            coarse = self.extra_convs(coarse, memory.frames_per_block)
        grids = [*finer, _unit_length(coarse)]
        for _ in range(self.config.pyramid_levels):
            grids.append(F.avg_pool2d(grids[-1], 2))
        return TapirFeatures(
            resolution,
            [
                grid.permute(0, 2, 3, 1).contiguous().unflatten(0, (len(frames), -1))
                for grid in grids
            ],
        )

    def _encode_block(self, frames: Tensor, resolution: Size) -> list[Tensor]:
        """[F, 3, H, W] -> [F, C, h, w] each, from fine to coarse; the coarse one of any length."""
        images = frames.to(self.resnet_torch.initial_conv.weight.dtype) / 255 * 2 - 1
        if images.shape[-2:] != resolution:
            images = F.interpolate(images, resolution, mode="bilinear", align_corners=False)
        shallow, fine, coarse = self.resnet_torch(images)
        maps = (
            [fine] if not self.config.finest_channels else [self.resnet_torch.finest(shallow), fine]
        )
        return [*map(_unit_length, maps), coarse]

    def describe(
        self, features: Sequence[TapirFeatures], queries: Tensor, size: Size
    ) -> list[Tensor]:
        """What each query looks like in its frame: for each of `features` [B, N, channels of all
        grids]."""
        frame, xy = queries[..., :1].round().long(), queries[..., None, 1:]
        share = xy / constant(xy, *size[::-1])
        described = []
        for level in features:
            parts = [
                sample_windows(grid, frame, share * _sides(grid, xy) - 0.5, 0)[:, :, 0, 0]
                for grid in level.grids[: len(self.config.channels)]
            ]
            described.append(torch.cat(parts, -1))
        return described

    def track(
        self,
        features: Sequence[TapirFeatures],
        described: Sequence[Tensor],
        size: Size,
        queries: Tensor | None = None,
        pasts: Sequence[Past] | None = None,
        memory: Memory = CPU_MEMORY,
    ) -> TapirSteps:
        """Match, then refine, over the frames of `features`.

        Args:
            features: of `encode`.
            described: of `describe`, perhaps from other frames.
            size: (H, W) of the video.
            queries: [B, N, 3] as in `forward`; matched positions in their own frames are replaced
                by them. None replaces nothing.
            pasts: what a causal network remembers of the frames before, for each resolution;
                updated.
        """
        to_video = torch.cat(
            [constant(described[0], *size[::-1]) / self.config.raster, described[0].new_ones(2)]
        )
        matched = self.match(features[0], described[0], memory)
        xy, logits = matched.split(2, -1)
        if queries is not None:
            # [B, N, T]
            here = torch.arange(xy.shape[2], device=xy.device) == queries[..., :1].round()
            xy = torch.where(
                here[..., None], (queries[..., 1:] / to_video[:2]).to(xy.dtype)[:, :, None], xy
            )
        steps = [torch.cat([xy, logits], -1)[None]]
        for index, (level, points) in enumerate(zip(features[1:], described[1:], strict=True)):
            start = torch.cat([steps[-1][-1, ..., :2], logits], -1)
            steps.append(
                self.refine(level, points, start, None if pasts is None else pasts[index], memory)
            )
        return TapirSteps(torch.cat(steps) * to_video, self.config.iterations)

    def match(
        self, features: TapirFeatures, described: Tensor, memory: Memory = CPU_MEMORY
    ) -> Tensor:
        """[B, N, channels of all grids] to [B, N, T, 4]: where each frame alone looks most like the
        query."""
        coarse = features.grids[len(self.config.channels) - 1]
        batch, frames, height, width, _ = coarse.shape
        cells = coarse.flatten(1, 3).mT  # [B, C, T * h * w]
        cell_px = self.config.raster / _sides(coarse, described)

        def matched(points: Tensor) -> Tensor:  # [B, n, C] -> [B, n, T, 4]
            xy, logits = self.torch_cost_volume_track_mods(
                (points @ cells).view(-1, 1, height, width)
            )
            return torch.cat([xy * cell_px, logits], -1).view(batch, -1, frames, 4)

        points = described[..., -self.config.channels[-1] :]
        return memory.in_blocks(matched, points, points_per_query=MAP_POINTS * batch * frames)

    def refine(
        self,
        features: TapirFeatures,
        described: Tensor,  # [B, N, channels of all grids]
        start: Tensor,  # [B, N, T, 4] px of the raster, logits
        past: Past | None = None,  # [B, N, iterations, blocks, ...]; B must be 1
        memory: Memory = CPU_MEMORY,
    ) -> Tensor:  # [iterations, B, N, T, 4]
        """Every iteration at one resolution."""
        remembered = () if past is None else (past.first, past.second)
        refined = partial(self._refine, features)
        points = start.shape[0] * start.shape[2]
        return memory.in_blocks(
            refined, described, start, *remembered, points_per_query=points
        ).movedim(2, 0)

    def _refine(
        self,
        features: TapirFeatures,
        described: Tensor,
        start: Tensor,
        first: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:  # [B, N, iterations, T, 4]
        raster = self.config.raster
        xy, logits = start.split(2, -1)
        batch, _, frames, _ = xy.shape
        move_scale = raster / constant(xy, *features.resolution[::-1])
        # [B, N, T, channels of all grids]
        point = described[:, :, None].expand(-1, -1, frames, -1)
        correlated = (
            partial(correlate_maps, x_by_height=True) if self.config.official_quirks else correlate
        )
        unused = torch.zeros_like(xy)  # where PIPs had the position
        steps = []
        for iteration in range(self.config.iterations):
            past = (
                None
                if first is None or second is None
                else Past(first[0, :, iteration], second[0, :, iteration])
            )
            parts = list(point.split(self.config.channels, -1))
            parts += parts[-1:] * self.config.pyramid_levels
            correlations = [
                correlated(grid, part, xy / raster * _sides(grid, xy), self.config.radius)
                for grid, part in zip(features.grids, parts, strict=True)
            ]
            inputs = torch.cat([unused, logits, point, *correlations], -1)
            change = self.torch_pips_mixer(inputs.flatten(0, 1), past).unflatten(0, (batch, -1))
            xy = xy + change[..., :2] * move_scale
            logits = logits + change[..., 2:4]
            point = point + change[..., 4:]
            steps.append(torch.cat([xy, logits], -1))
        return torch.stack(steps, 2)

    def no_past(self, points: int) -> Past:
        """[1, points, iterations, blocks, ...]: of points that no frame has come for."""
        config = self.config
        lead = (1, points, config.iterations, config.mixer_blocks, REACH)
        like = self.torch_pips_mixer.linear.weight
        return Past(
            like.new_zeros(*lead, 1, config.mixer_width),
            like.new_zeros(*lead, config.mixer_ratio, config.mixer_width),
        )


def default_resolutions(size: Size, config: TapirConfig) -> list[Size]:
    """The resolutions that the official forward pass refines on."""
    least = STRIDE * 2**config.pyramid_levels
    return growing_resolutions(size, config.raster, STRIDE, least)


def _sides(grid: Tensor, like: Tensor) -> Tensor:  # [B, T, h, w, C] -> [2]
    """(w, h)"""
    return constant(like, grid.shape[3], grid.shape[2])


def _unit_length(grid: Tensor) -> Tensor:  # [F, C, h, w]
    return grid / grid.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
