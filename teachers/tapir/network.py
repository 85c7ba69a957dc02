"""TAPIR, BootsTAPIR, and causal BootsTAPIR: match each query in every frame (`matching.py`), then
refine the whole track (`refinement.py`).

Paper    Doersch et al. 2023, arXiv 2306.08637; BootsTAPIR (extra convolutions, one more level):
         Doersch et al. 2024, arXiv 2402.00847.
Weights  dm-tapnet `tapir_checkpoint_panning.pt`, `bootstapir_checkpoint_v2.pt`,
         `causal_bootstapir_checkpoint.pt`, Apache-2.0. This file is written from the papers; the
         parity tests show equal outputs. Attribute names are the keys of those files.
Raster   inside: positions are (x, y) in px of a 256 x 256 raster, (0, 0) is the CORNER of the
         top-left pixel, and going to a grid of another size is a multiplication. Only `teacher.py`
         knows of pixel centres.

Large frames are refined a second time and more often, on finer grids. Tracks never see each other,
so queries are computed in blocks that fit the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.device import constant
from teachers.layers.memory import Memory
from teachers.layers.resnet import PreActivationResNet
from teachers.layers.resolutions import Size, require_multiples
from teachers.layers.sampling import sample_windows
from teachers.tapir.config import STRIDE, TapirConfig, default_resolutions
from teachers.tapir.extra_convolutions import ExtraConvolutions
from teachers.tapir.matching import MatchingHead, sides_of, soft_argmax
from teachers.tapir.mixer import REACH, Past, TemporalMixer
from teachers.tapir.path import at_once, likeliest_path, message_of
from teachers.tapir.refinement import refine

CPU_MEMORY = Memory(frames_per_block=1, points_per_block=768)
"""Blocks that fit the cache of a CPU core, measured."""
GPU_MEMORY = Memory(frames_per_block=32, points_per_block=32_768)
MAP_POINTS = 8
"""A cost map that is matched takes as much memory as this many points that are refined."""


@dataclass(frozen=True)
class TapirFeatures:
    """The frames of a clip at one resolution; every feature has length 1."""

    resolution: Size
    grids: list[Tensor]
    """[B, T, h, w, C]: the grids of `TapirConfig.channels` (strides 2, if there is one, 4, and 8),
    then the coarse grid pooled by 2, 4, ..."""


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
        """[B, N, T, 4]: the mean of the results at all resolutions."""
        return self.steps[self.iterations :: self.iterations].mean(0)


@dataclass(frozen=True)
class TapirLook:
    """How much the cells of each frame look like a query."""

    likelihood: Tensor
    """[B, N, T, h, w]: log likelihood of each cell, up to a constant for each map."""
    logits: Tensor
    """[B, N, T, 2]: occlusion, and "farther than 6 px off"."""


class Tapir(nn.Module):
    """The network. Runs on the device and in the precision of its weights; frames and queries must
    be on that device."""

    BF16_PARTS = ("torch_pips_mixer",)
    BF16_WEIGHTS = True

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
            resolutions: (H, W) px, multiples of 8, of the frames on which positions are refined,
                one after the other; None takes `default_resolutions`.
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
        """The features at each query in its frame: for each of `features`, [B, N, channels of all
        grids]."""
        frame, xy = queries[..., :1].round().long(), queries[..., None, 1:]
        share = xy / constant(xy, *size[::-1])
        described = []
        for level in features:
            parts = [
                sample_windows(grid, frame, share * sides_of(grid, xy) - 0.5, 0)[:, :, 0, 0]
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
        before: Tensor | None = None,
    ) -> TapirSteps:
        """Match, then refine, over the frames of `features`.

        Args:
            features: from `encode`.
            described: from `describe`, perhaps for other frames.
            size: (H, W) of the video.
            queries: [B, N, 3] as in `forward`; matched positions in their own frames are replaced
                by them. None replaces nothing.
            pasts: what a causal network remembers of the frames before, for each resolution;
                updated.
            before: of a network with a `path`, what `path_so_far` says of the frames before.
        """
        to_video = torch.cat(
            [constant(described[0], *size[::-1]) / self.config.raster, described[0].new_ones(2)]
        )
        matched = self.match(features[0], described[0], memory, before)
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
        self,
        features: TapirFeatures,
        described: Tensor,
        memory: Memory = CPU_MEMORY,
        before: Tensor | None = None,
    ) -> Tensor:
        """From [B, N, channels of all grids] to [B, N, T, 4]: where each frame looks most like the
        query, alone or, with `TapirConfig.path`, along the likeliest path through all frames;
        `before` as in `track`."""
        if self.config.path:
            blocks = _in_paths(described, before)
            return torch.cat([self._match_path(features, *block, memory) for block in blocks], 1)
        coarse, points, maps = self._to_match(features, described)

        def alone(points: Tensor) -> Tensor:  # [B, n, C] -> [B, n, T, 4]
            look = self._look(coarse, points)
            return self.locate(look, look.likelihood.flatten(3).argmax(3))

        return memory.in_blocks(alone, points, points_per_query=maps)

    def path_so_far(
        self,
        features: TapirFeatures,
        described: Tensor,
        memory: Memory = CPU_MEMORY,
        before: Tensor | None = None,
    ) -> Tensor:
        """[B, N, h, w]: what the frames of `features`, and those `before` them, say of where the
        points are in the next one, see `teachers.tapir.path.message_of`."""
        said = []
        for block, past in _in_paths(described, before):
            likelihood = self.look(features, block, memory).likelihood
            told = message_of(likelihood.flatten(0, 1), past)
            said.append(told.unflatten(0, likelihood.shape[:2]))
        return torch.cat(said, 1)

    def _match_path(
        self, features: TapirFeatures, described: Tensor, before: Tensor | None, memory: Memory
    ) -> Tensor:
        look = self.look(features, described, memory)
        paths = likeliest_path(look.likelihood.detach().flatten(0, 1), before)
        best = paths.view(look.logits.shape[:-1])

        def located(likelihood: Tensor, logits: Tensor, best: Tensor) -> Tensor:
            return self.locate(TapirLook(likelihood, logits), best)

        *_, maps = self._to_match(features, described)
        return memory.in_blocks(located, look.likelihood, look.logits, best, points_per_query=maps)

    def look(
        self, features: TapirFeatures, described: Tensor, memory: Memory = CPU_MEMORY
    ) -> TapirLook:
        """The first half of `match`."""
        coarse, points, maps = self._to_match(features, described)

        def packed(points: Tensor) -> Tensor:  # [B, n, C] -> [B, n, T, h * w + 2]
            look = self._look(coarse, points)
            return torch.cat([look.likelihood.flatten(3), look.logits], -1)

        found = memory.in_blocks(packed, points, points_per_query=maps)
        return TapirLook(
            found[..., :-2].unflatten(-1, (coarse.shape[2], coarse.shape[3])), found[..., -2:]
        )

    def locate(self, look: TapirLook, best: Tensor) -> Tensor:
        """The second half of `match`: [B, N, T, 4], around the best cells [B, N, T] int64, counted
        row after row."""
        likelihood = look.likelihood.flatten(0, 2)
        xy = soft_argmax(likelihood, best.flatten(), self.config.argmax_radius)
        cell_px = self.config.raster / constant(xy, likelihood.shape[2], likelihood.shape[1])
        return torch.cat([(xy * cell_px).view(*best.shape, 2), look.logits], -1)

    def _to_match(
        self, features: TapirFeatures, described: Tensor
    ) -> tuple[Tensor, Tensor, int]:  # [B, T, h, w, C], [B, N, C]
        """The grid in which points are matched, their features in it, and how many refined points
        take the memory of one that is matched."""
        coarse = features.grids[len(self.config.channels) - 1]
        points = described[..., -self.config.channels[-1] :]
        return coarse, points, MAP_POINTS * coarse.shape[0] * coarse.shape[1]

    def _look(self, coarse: Tensor, points: Tensor) -> TapirLook:
        batch, frames, height, width, _ = coarse.shape
        cost = (points @ coarse.flatten(1, 3).mT).view(-1, 1, height, width)
        likelihood, logits = self.torch_cost_volume_track_mods(cost)
        lead = (batch, points.shape[1], frames)
        return TapirLook(likelihood.view(*lead, height, width), logits.view(*lead, 2))

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
        refined = partial(
            refine, self.config, self.torch_pips_mixer, features.grids, features.resolution
        )
        points = start.shape[0] * start.shape[2]
        return memory.in_blocks(
            refined, described, start, *remembered, points_per_query=points
        ).movedim(2, 0)

    def no_past(self, points: int) -> Past:
        """[1, points, iterations, blocks, ...]: the past of points for which no frame has come
        yet."""
        config = self.config
        lead = (1, points, config.iterations, config.mixer_blocks, REACH)
        like = self.torch_pips_mixer.linear.weight
        return Past(
            like.new_zeros(*lead, 1, config.mixer_width),
            like.new_zeros(*lead, config.mixer_ratio, config.mixer_width),
        )


def _in_paths(
    described: Tensor,  # [B, N, C]
    before: Tensor | None,  # [B, N, h, w]
) -> Iterator[tuple[Tensor, Tensor | None]]:  # [B, n, C], [B * n, h, w]
    """The points in blocks whose paths are found together."""
    most = at_once(described)
    for first in range(0, max(1, described.shape[1]), most):
        block = slice(first, first + most)
        yield described[:, block], None if before is None else before[:, block].flatten(0, 1)


def _unit_length(grid: Tensor) -> Tensor:  # [F, C, h, w]
    return grid / grid.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
