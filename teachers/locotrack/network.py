"""LocoTrack: match each query in every frame alone, then refine the track by local 4D correlation.

Paper    Cho et al. 2024, arXiv 2407.15420 (ECCV 2024).
Weights  `locotrack_base.ckpt`, `locotrack_small.ckpt`. This file is written from the paper; the
         parity tests show equal outputs. Attribute names are the keys of those files.
Raster   inside: positions are (x, y) in px of a 256 x 256 raster, (0, 0) is the CORNER of the
         top-left pixel, and going to a grid of another size is a multiplication. Only `teacher.py`
         knows of pixel centres.

Matching: a query's features times those of every cell of a frame, on two grids, give two cost maps;
one convolution and a soft argmax turn them into a position, an occlusion logit, and a logit of
"farther than 6 px off". Refinement: on three grids, the 7 x 7 features around the position are
multiplied with the 7 x 7 around the query; a small convolutional encoder reads these 49 x 49
products from both sides; and a transformer over time, half of whose heads look back and half ahead,
corrects position and logits. Tracks never see each other, so queries are computed in blocks that
fit the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.device import constant, sent
from teachers.layers.memory import Memory
from teachers.layers.resnet import PreActivationResNet
from teachers.layers.resolutions import Size, growing_resolutions, require_multiples
from teachers.locotrack.blocks import CorrelationEncoder, TrackMixer
from teachers.locotrack.config import MOTION_CHANNELS, MOTION_FREQUENCIES, LocoTrackConfig

STRIDE = 8
"""Stride of the coarse grid; the others have half of it and a quarter."""
ORDER = (1, 2, 0)
"""The order in which the published files have the grids of strides 2, 4, 8: 4 first."""
SMALL: dict[str, Any] = {
    "correlation_channels": (64, 128), "correlation_kernels": (5, 2), "correlation_strides": (4, 2),
    "width": 256, "heads": 4,
}  # fmt: skip

CPU_MEMORY = Memory(frames_per_block=1, points_per_block=768)
"""Blocks that fit the cache of a CPU core, measured."""
MAP_POINTS = 12
"""The cost maps of a query in a frame take as much memory as this many points that are refined."""
CORRELATED = 2
"""One in this many of the points of a block is correlated at a time."""
GPU_MEMORY = Memory(frames_per_block=32, points_per_block=16_384)


@dataclass(frozen=True)
class LocoTrackFeatures:
    """The frames of a clip at one resolution; every feature has length 1."""

    resolution: Size
    grids: list[Tensor]
    """[B, T, 1 + h + 1, 1 + w + 1, C] at strides 2, 4, 8; with a border of zeros, which stand for
    everything outside."""


@dataclass(frozen=True)
class QueryLooks:
    """The appearance of queries in their own frames."""

    matched: list[Tensor]
    """[B, N, C] at strides 4, 8 of the first resolution: the feature of the query itself."""
    windows: list[Tensor]
    """[B, N, (2 radius + 1)**2, C] at strides 2, 4, 8 of the last resolution; rows from the top, x
    fastest."""

    def where(self, keep: Tensor, other: QueryLooks) -> QueryLooks:
        """These where `keep` [B, N] is true, else the other's."""
        return QueryLooks(
            [
                torch.where(keep[..., None], *both)
                for both in zip(self.matched, other.matched, strict=True)
            ],
            [
                torch.where(keep[..., None, None], *both)
                for both in zip(self.windows, other.windows, strict=True)
            ],
        )


class LocoTrack(nn.Module):
    """The network. It expects frames and queries on the device of its weights, in whose precision
    it computes."""

    BF16_PARTS = ("torch_pips_mixer",)

    def __init__(self, config: LocoTrackConfig) -> None:
        super().__init__()
        grids = len(config.grid_channels)
        self.config = config
        inputs = 2 + grids * 2 * config.correlation_channels[-1] + MOTION_CHANNELS
        self.resnet_torch = PreActivationResNet(config.groups, config.blocks_per_group)
        self.torch_pips_mixer = TrackMixer(inputs, sum(config.grid_channels[1:]), config)
        self.cmdtop = nn.ModuleList(CorrelationEncoder(config) for _ in range(grids))
        self.cost_conv = nn.Conv2d(2, 1, 3)
        self.occ_linear = nn.Linear(6, 2)

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [B, N, 3] (t, x, y), px of the frames, corner raster; t is whole
        resolutions: Sequence[Size] | None = None,
        memory: Memory = CPU_MEMORY,
    ) -> Tensor:  # [1 + iterations, B, N, T, 4]
        """Tracks over all T frames, those before the query included.

        Args:
            resolutions: (H, W) px, multiples of 8. Points are matched on the first and refined on
                the last, and those between are not used; None takes `default_resolutions`.

        Returns:
            The matched points, then every refinement, the last of which is the answer: x, y in px
            of the frames, corner raster; logits of occlusion and of "farther than 6 px from the
            truth".
        """
        size = (frames.shape[-2], frames.shape[-1])
        features = self.encode(frames, resolutions or self.default_resolutions(size), memory)
        return self.track(features, self.describe(features, queries, size), size, queries, memory)

    def default_resolutions(self, size: Size) -> list[Size]:
        """The resolutions of the official forward pass for a video of (H, W) px."""
        return growing_resolutions(size, self.config.raster, STRIDE)

    def encode(
        self, frames: Tensor, resolutions: Sequence[Size], memory: Memory = CPU_MEMORY
    ) -> list[LocoTrackFeatures]:
        """Features at the first and at the last resolution; the same object if these are equal."""
        size = (frames.shape[-2], frames.shape[-1])
        used = list(resolutions)
        if self.config.official_quirks:
            for index in range(1, len(used)):
                used[index] = size if used[index - 1] == size else used[index]
        first = self._encode(frames, used[0], memory)
        return [first, first if used[-1] == used[0] else self._encode(frames, used[-1], memory)]

    def _encode(self, frames: Tensor, resolution: Size, memory: Memory) -> LocoTrackFeatures:
        require_multiples(resolution, STRIDE, STRIDE)
        encoded = [
            self._encode_block(block, resolution)
            for block in frames.flatten(0, 1).split(memory.frames_per_block)
        ]
        grids = [
            torch.cat(maps).unflatten(0, (len(frames), -1)) for maps in zip(*encoded, strict=True)
        ]
        return LocoTrackFeatures(resolution, grids)

    def _encode_block(self, frames: Tensor, resolution: Size) -> list[Tensor]:
        """[F, 3, H, W] -> [F, h, w, C] each."""
        images = frames.to(self.resnet_torch.initial_conv.weight.dtype) / 255 * 2 - 1
        if images.shape[-2:] != resolution:
            images = F.interpolate(images, resolution, mode="bilinear", align_corners=False)
        grids = (_unit_length(grid.permute(0, 2, 3, 1)) for grid in self.resnet_torch(images))
        return [F.pad(grid, (0, 0, 1, 1, 1, 1)) for grid in grids]

    def describe(
        self, features: Sequence[LocoTrackFeatures], queries: Tensor, size: Size
    ) -> QueryLooks:
        """The appearance of each query in its frame."""
        frame, share = queries[..., :1].round().long(), queries[..., None, 1:]
        share = share / constant(share, *size[::-1])  # [B, N, 1, 2]

        def windows(grid: Tensor, radius: int) -> Tensor:  # [B, N, (2 radius + 1)**2, C]
            at = share * _sides(grid, share) - 0.5
            return blend_rows(gather_rows(grid, at, radius, frame, border=True), at, radius)[
                :, :, 0
            ]

        first, last = features
        wide = [windows(grid, self.config.radius) for grid in last.grids]
        if first is last:
            centre = wide[0].shape[2] // 2
            return QueryLooks([part[:, :, centre] for part in wide[1:]], wide)
        return QueryLooks([windows(grid, 0)[:, :, 0] for grid in first.grids[1:]], wide)

    def track(
        self,
        features: Sequence[LocoTrackFeatures],
        looks: QueryLooks,
        size: Size,
        queries: Tensor,
        memory: Memory = CPU_MEMORY,
    ) -> Tensor:  # [1 + iterations, B, N, T, 4]
        """Match, then refine, over the frames of `features`; arguments and answer as of `forward`.

        Args:
            features: of `encode`.
            looks: of `describe`, perhaps from other frames; then the query's t lies outside these.
            size: (H, W) of the video.
        """
        first, last = features
        to_video = torch.cat(
            [constant(queries, *size[::-1]) / self.config.raster, queries.new_ones(2)]
        )
        own = queries[..., None, 1:] / to_video[:2]  # [B, N, 1, 2]
        here = torch.arange(first.grids[0].shape[1], device=own.device) == queries[..., :1].round()

        def matched(*looks: Tensor) -> Tensor:
            return self.match(first, looks)

        def refined(start: Tensor, *windows: Tensor) -> Tensor:  # -> [B, n, steps, T, 4]
            return torch.stack([start, *self.refine(last, windows, start, memory)], 2)

        batch, _, frames = here.shape
        start = memory.in_blocks(matched, *looks.matched, points_per_query=MAP_POINTS * batch)
        start = torch.cat([torch.where(here[..., None], own, start[..., :2]), start[..., 2:]], -1)
        steps = memory.in_blocks(refined, start, *looks.windows, points_per_query=batch * frames)
        return steps.movedim(2, 0) * to_video

    def match(self, features: LocoTrackFeatures, matched: Sequence[Tensor]) -> Tensor:
        """[B, N, C] at strides 4, 8 to [B, N, T, 4]: where each frame alone looks most like the
        query."""
        _, fine, coarse = features.grids
        side = (fine.shape[2] - 2, fine.shape[3] - 2)
        frames = zip(fine.unbind(1), coarse.unbind(1), strict=True)
        found = [
            self._match(matched[0] @ a.flatten(1, 2).mT, matched[1] @ b.flatten(1, 2).mT, side)
            for a, b in frames
        ]
        return torch.stack(found, 2) * torch.cat(
            [self.config.raster / _sides(fine, coarse), coarse.new_ones(2)]
        )

    def _match(self, high: Tensor, low: Tensor, side: Size) -> Tensor:  # [B, N, cells] -> [B, N, 4]
        """Cost maps of one frame, with zeros around, to positions in its cells and logits.

        Args:
            side: (height, width) of the finer map without its zeros.
        """
        height, width = side
        lead = high.shape[:2]
        high = high.view(-1, height + 2, width + 2)
        low = low.view(-1, height // 2 + 2, width // 2 + 2)[:, 1:-1, 1:-1]
        cost = high.new_zeros(len(high), 2, height + 2, width + 2)
        cost[:, 0, 1:-1, 1:-1] = enlarged(low)
        cost[:, 1] = high
        inner = cost[:, :, 1:-1, 1:-1]
        scores = self.cost_conv(cost.contiguous(memory_format=torch.channels_last))[:, 0]
        xy = soft_argmax(scores * self.config.softmax_temperature, self.config)
        statistics = torch.cat([inner.mean((2, 3)), inner.amax((2, 3)), inner.amin((2, 3))], -1)
        return torch.cat([xy, self.occ_linear(statistics)], -1).unflatten(0, lead)

    def refine(
        self,
        features: LocoTrackFeatures,
        windows: Sequence[Tensor],
        start: Tensor,
        memory: Memory = CPU_MEMORY,
    ) -> list[Tensor]:
        """Every iteration, [B, N, T, 4] each, from `start`; `windows` as in `QueryLooks`."""
        points = memory.points(start.device) // CORRELATED
        block = max(1, points // (start.shape[0] * start.shape[2]))  # queries
        scale = self.config.raster / constant(start, *features.resolution[::-1])
        steps, state = [], start
        for _ in range(self.config.iterations):
            state = state.detach()
            xy, logits = state.split(2, -1)
            correlations = []
            for index in ORDER:
                parts = zip(windows[index].split(block, 1), xy.split(block, 1), strict=True)
                grid = features.grids[index]
                read = [self.correlate(index, grid, *part) for part in parts]
                correlations.append(torch.cat(read, 1))
            inputs = torch.cat([logits, *correlations, self._motion(xy / scale)], -1)
            change = self.torch_pips_mixer(inputs.flatten(0, 1)).view(state.shape)
            state = torch.cat([xy + change[..., :2] * scale, logits + change[..., 2:]], -1)
            steps.append(state)
        return steps

    def correlate(self, index: int, grid: Tensor, window: Tensor, xy: Tensor) -> Tensor:
        """From [B, N, W, C] and [B, N, T, 2] px of the raster to [B, N, T, 2 C']: the encoded
        products of the cells around each position with those around the query."""
        at = xy * (_sides(grid, xy) / self.config.raster) - 0.5
        cells = gather_rows(grid, at, self.config.radius)  # [B, N, T, (2 radius + 2)**2, C]
        products = (cells.flatten(2, 3) @ window.mT).unflatten(2, cells.shape[2:4])
        products = blend_rows(products, at, self.config.radius)
        return self.cmdtop[ORDER.index(index)](products.flatten(0, 2)).view(*xy.shape[:3], -1)

    def _motion(self, xy: Tensor) -> Tensor:  # [B, N, T, 2] px of the refined frames
        """[B, N, T, MOTION_CHANNELS]: steps to and from the neighbouring frames, and their code."""
        step = (xy[:, :, 1:] - xy[:, :, :-1]) / self.config.raster
        motion = torch.cat([F.pad(-step, (0, 0, 0, 1)), F.pad(step, (0, 0, 1, 0))], -1)
        octaves = 2 ** torch.arange(MOTION_FREQUENCIES, device=xy.device)[:, None]
        angles = (motion[..., None, :] * octaves).flatten(3)
        return torch.cat([motion, angles.sin(), (angles + math.pi / 2).sin()], -1)


def enlarged(maps: Tensor) -> Tensor:  # [P, h, w] -> [P, 2 h, 2 w]
    """Bilinear between cell centres, as two matrix products: torch's own takes eight times as
    long."""
    down, across = (
        F.interpolate(
            torch.eye(side, device=maps.device, dtype=maps.dtype)[None], 2 * side, mode="linear"
        )[0]
        for side in maps.shape[1:]
    )
    return down.mT @ maps @ across


def soft_argmax(scores: Tensor, config: LocoTrackConfig) -> Tensor:  # [P, h, w] -> [P, 2]
    """Mean (x, y) of cell centres (corner raster) with the softmax of the scores as weights, over
    the cells strictly nearer than `argmax_radius` to the best one."""
    height, width = scores.shape[-2:]
    near = sent(torch.tensor(_nearer_than(config.argmax_radius)), scores.device)
    best = scores.flatten(1).argmax(1)
    rows = (best // width)[:, None] + near[:, 0]  # [P, cells]
    columns = (best % width)[:, None] + near[:, 1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    weights = scores.flatten(1).gather(1, index).masked_fill(~inside, -torch.inf).softmax(1)
    centres = torch.stack([columns, rows], -1).to(weights) + 0.5
    return (weights[..., None] * centres).sum(1)


def _nearer_than(radius: float) -> list[tuple[int, int]]:
    """Steps (dy, dx) to the cells that lie strictly nearer than that."""
    steps = range(1 - math.ceil(radius), math.ceil(radius))
    return [(dy, dx) for dy in steps for dx in steps if dy**2 + dx**2 < radius**2]


def gather_rows(
    grid: Tensor,  # [B, T, 1 + h + 1, 1 + w + 1, C], zero around
    xy: Tensor,  # [B, N, S, 2] cells, an integer is a cell's centre
    radius: int,
    frame: Tensor | None = None,  # [B, N, S] integer in [0, T); None is 0..T-1, and S = T
    border: bool = False,
) -> Tensor:  # [B, N, S, (2 radius + 2)**2, C]
    """Whole cells from `floor(xy) - radius` to `floor(xy) + radius + 1`; rows from the top, x
    fastest. Outside they are zero, or with `border` the nearest cell of the grid."""
    batch, frames, height, width, channels = grid.shape
    steps = torch.arange(1 - radius, radius + 3, device=xy.device)
    corner = xy.floor().long()
    column = (corner[..., 0, None] + steps).clamp(int(border), width - 1 - border)
    row = (corner[..., 1, None] + steps).clamp(int(border), height - 1 - border)
    clip = torch.arange(batch, device=xy.device)[:, None, None]
    frame = torch.arange(frames, device=xy.device) if frame is None else frame
    first = (clip * frames + frame) * (height * width)
    index = first[..., None, None] + row[..., :, None] * width + column[..., None, :]
    cells = grid.flatten(0, 3).index_select(0, index.flatten())
    return cells.view(*xy.shape[:-1], len(steps) ** 2, channels)


def blend_rows(cells: Tensor, xy: Tensor, radius: int) -> Tensor:
    """[..., (2 radius + 2)**2, C] of `gather_rows`, or products of them, to bilinear samples
    [..., (2 radius + 1)**2, C]."""
    side = 2 * radius + 2
    along_x, along_y = (xy - xy.floor())[..., None, None, None].unbind(-4)
    cells = cells.unflatten(-2, (side, side))
    cells = torch.lerp(cells[..., :-1, :, :], cells[..., 1:, :, :], along_y)
    return torch.lerp(cells[..., :-1, :], cells[..., 1:, :], along_x).flatten(-3, -2)


def _sides(grid: Tensor, like: Tensor) -> Tensor:  # [B, T, h, w, C] -> [2]
    """(w, h) without the zeros around."""
    return constant(like, grid.shape[3] - 2, grid.shape[2] - 2)


def _unit_length(grid: Tensor) -> Tensor:  # [..., C]
    return F.normalize(grid, dim=-1, eps=1e-6)
