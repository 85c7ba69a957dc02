"""CoTracker 2.1: refine all tracks of a window together, each with a feature that follows its
point.

Paper    Karaev et al. 2023, arXiv 2307.07635 (the second model of its authors, with virtual
         tracks). Names below are the paper's.
Weights  facebook/cotracker, `cotracker2v1.pth`, CC-BY-NC 4.0. This file is written from the paper;
         the parity tests show equal outputs. Attribute names are the keys of that file.
Raster   px of the frames that go in, an integer is a pixel centre. Inside, coordinates are in
         cells: px / 4.

It differs from CoTracker3 in this: a track has one feature per frame, which the iterations change,
and from which its visibility is read at the end; the products of that feature with those around the
present position go into the token directly; there is no confidence; and points whose query is still
to come are hidden from the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teachers.cotracker.refinements import Refinements
from teachers.cotracker.transformer import MINI_SIZES, STRIDE, CoTrackerSizes, TrackTransformer
from teachers.cotracker.windows import WindowNetwork, WindowStart
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.layers.pyramid import ResidualEncoder, encode_pyramid
from teachers.layers.resolutions import Size
from teachers.layers.sampling import (
    WindowOffsets,
    blend_cells,
    gather_cells,
    sample_at_once,
    sample_products,
    sample_windows,
    window_offsets,
    with_frame,
)
from teachers.layers.time_embedding import time_embedding

SMALL = 64 * 64
"""Cells of the largest grid of which a GPU multiplies all with each feature: the products of more
take more memory than the samples of 7 x 7 cells of 128 channels."""
FLOW_SCALE = 1000.0
"""The fastest sine of the flow embedding turns almost this often (in radians) per cell."""


@dataclass(frozen=True, kw_only=True)
class CoTracker2Config(CoTrackerSizes):
    """Sizes of the network. The defaults are those of the official model: 45.5 M parameters, as in
    `cotracker2v1.pth`."""

    window: int = 16
    """Frames in a window."""
    resolution: tuple[int, int] = (384, 512)
    """(H, W) px of the frames that the position embedding is made for; points outside get that of
    the border."""
    radius: int = 3
    """Windows of correlation are (2 radius + 1)**2 cells."""
    flow_channels: int = 64
    """How many sines and cosines encode a point's displacement in x, and likewise in y."""
    layers: int = 6

    @classmethod
    def mini(cls) -> CoTracker2Config:
        """0.8 M parameters, for two CPU cores."""
        return cls(resolution=(192, 256), flow_channels=16, width=96, **MINI_SIZES)

    @property
    def token_channels(self) -> int:
        """Channels of a token: displacement in x and y with its sines and cosines, correlation,
        feature, whether the point is being tracked, and visibility."""
        return (
            2
            + 2 * self.flow_channels
            + self.levels * (2 * self.radius + 1) ** 2
            + self.channels
            + 2
        )


COTRACKER2_PRESETS = {"official": CoTracker2Config, "mini": CoTracker2Config.mini}


class FeatureUpdateTransformer(TrackTransformer):
    """Turns the tokens of all tracks in all frames into corrections of position and feature."""

    def __init__(self, config: CoTracker2Config) -> None:
        super().__init__(config)
        self.flow_head = nn.Linear(config.width, 2 + config.channels)

    def forward(
        self, tokens: Tensor, unseen: Tensor
    ) -> Tensor:  # [B, N, S, token_channels], [B, N] -> [B, N, S, 2 + channels]
        return self.flow_head(self.attend(tokens, unseen))


class CoTracker2(WindowNetwork):
    """The network. Runs on the device of its weights; frames and queries must be there too."""

    BF16_PARTS = ("fnet", "updateformer")
    BF16_WEIGHTS = True
    first_visibility = 10.0
    hides_unseen = True
    time_emb: Tensor  # [1, window, token_channels]
    pos_emb: Tensor  # [1, token_channels, H / 4, W / 4]

    def __init__(self, config: CoTracker2Config) -> None:
        super().__init__()
        self.config = config
        height, width = config.resolution
        self.register_buffer("time_emb", time_embedding(config.window, config.token_channels))
        self.register_buffer(
            "pos_emb", position_embedding(height // STRIDE, width // STRIDE, config.token_channels)
        )
        self.fnet = ResidualEncoder(config.stages, config.channels, STRIDE)
        self.updateformer = FeatureUpdateTransformer(config)
        self.norm = nn.GroupNorm(1, config.channels)
        self.track_feat_updater = nn.Sequential(
            nn.Linear(config.channels, config.channels), nn.GELU()
        )
        self.vis_predictor = nn.Sequential(nn.Linear(config.channels, 1))
        # an untrained network leaves the points where they are
        nn.init.normal_(self.updateformer.flow_head.weight, std=1e-3)

    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of features, per level [B, T, h, w, C]; see
        `encode_pyramid`."""
        return encode_pyramid(self.fnet, frames, self.config.levels, memory, unit_length=False)

    def factors(self, size: Size) -> list[float]:
        return [1.0]

    def appearance(
        self, pyramid: list[Tensor], queries: Tensor, factors: Sequence[float]
    ) -> list[Tensor]:  # [B, N, 3] -> one [B, N, C]
        """The feature at each query, in its frame."""
        return [
            sample_windows(pyramid[0], queries[..., :1].long(), queries[..., None, 1:] / STRIDE, 0)[
                :, :, 0, 0
            ]
        ]

    def refine_window(
        self, pyramid: list[Tensor], start: WindowStart, iterations: int, memory: Memory
    ) -> list[Refinements]:
        """Improve the tracks of one window. No gradient flows through positions from one iteration
        to the one before."""
        frames = self.config.window
        (feature,) = start.appearance
        feature = feature[:, :, None].expand(-1, -1, frames, -1)
        xy = start.xy / STRIDE
        frame = start.first_frame + torch.arange(frames, device=xy.device)
        tracked = (frame >= start.query_frame[..., None]).to(xy.dtype)
        if start.first_frame:
            tracked[..., : frames // 2] = 0  # in the overlap, the window before has done it
        unseen = start.query_frame >= start.first_frame + frames
        given = torch.stack([tracked, start.logits[..., 0]], -1)
        place = self._position_embedding(xy[:, :, :1]) + self.time_emb
        offsets = window_offsets(pyramid, xy, self.config.radius)
        steps = []
        for _ in range(iterations):
            xy = xy.detach()
            correlation = self.correlation(pyramid, feature, xy, memory, offsets)
            parts = [self._flow_embedding(xy), correlation, feature, given]
            tokens = torch.cat(parts, -1).add_(place)
            move, change = self.updateformer(tokens, unseen).split((2, self.config.channels), -1)
            xy = xy + move
            feature = feature + self.track_feat_updater(self._normed(change))
            steps.append(xy * STRIDE)
        visibility = self.vis_predictor(feature)[None, ..., 0]
        return [Refinements(torch.stack(steps), visibility, torch.full_like(visibility, math.nan))]

    def correlation(
        self,
        pyramid: list[Tensor],
        feature: Tensor,
        xy: Tensor,
        memory: Memory,
        offsets: Sequence[WindowOffsets] | None = None,  # of `window_offsets`, if known
    ) -> Tensor:
        """[B, N, S, C] features and [B, N, S, 2] cells to [B, N, S, levels * (2 radius + 1)**2]
        products with what lies around."""
        offsets = window_offsets(pyramid, xy, self.config.radius) if offsets is None else offsets

        def block(feature: Tensor, xy: Tensor) -> Tensor:
            if offsets:
                return self._correlation_at_once(pyramid, offsets, feature, xy)
            return self._correlation(pyramid, feature, xy)

        return memory.in_blocks(block, feature, xy, points_per_query=len(xy) * xy.shape[2])

    def _correlation(self, pyramid: list[Tensor], feature: Tensor, xy: Tensor) -> Tensor:
        frame = torch.arange(xy.shape[2], device=xy.device)[None, None]
        # contiguous in memory: products are then four times faster
        feature = (feature[..., None, :] / math.sqrt(self.config.channels)).mT
        products = []
        for level, grid in enumerate(pyramid):
            at = xy / 2**level
            # [B, N, S, (2 radius + 2)**2, C]
            cells = gather_cells(grid, frame, at, self.config.radius)
            products.append(blend_cells(cells @ feature, at, self.config.radius)[..., 0])
        return torch.cat(products, -1)

    def _correlation_at_once(
        self, pyramid: list[Tensor], offsets: Sequence[WindowOffsets], feature: Tensor, xy: Tensor
    ) -> Tensor:
        """`_correlation` in as few passes over the memory as there can be: of small grids the
        products are sampled, of large ones the features."""
        feature = feature / math.sqrt(self.config.channels)
        at = with_frame(xy, torch.arange(xy.shape[2], device=xy.device)[None, None], pyramid[0])
        products = []
        for grid, offset in zip(pyramid, offsets, strict=True):
            if grid.shape[2] * grid.shape[3] <= SMALL:
                products.append(sample_products(grid, feature, xy, offset))
                continue
            sampled = sample_at_once(grid, at, offset).flatten(1, 2)  # [C, B * N * S, W]
            product = sampled.permute(1, 2, 0) @ feature.flatten(0, 2)[..., None]
            products.append(product.view(*xy.shape[:3], -1))
        return torch.cat(products, -1)

    def _flow_embedding(
        self, xy: Tensor
    ) -> Tensor:  # [B, N, S, 2] cells -> [B, N, S, 2 + 2 * flow_channels]
        """The displacement from the window's first frame, then its sines and cosines, alternating,
        for x and then for y."""
        channels = self.config.flow_channels
        way = xy - xy[:, :, :1]
        frequency = torch.arange(0, channels, 2, device=xy.device, dtype=xy.dtype) * (
            FLOW_SCALE / channels
        )
        angles = way[..., None] * frequency
        return torch.cat([way, torch.stack([angles.sin(), angles.cos()], -1).flatten(3)], -1)

    def _position_embedding(
        self, xy: Tensor
    ) -> Tensor:  # [B, N, 1, 2] cells -> [B, N, 1, token_channels]
        grid = self.pos_emb.permute(0, 2, 3, 1)[:, None]
        first = torch.zeros_like(xy[None, ..., 0].flatten(1, 2), dtype=torch.long)
        return sample_windows(grid, first, xy.flatten(0, 1)[None], 0)[0, ..., 0, :].unflatten(
            0, xy.shape[:2]
        )

    def _normed(self, change: Tensor) -> Tensor:  # [B, N, S, C]
        return self.norm(change.flatten(0, 2)).view(change.shape)


def position_embedding(
    height: int, width: int, channels: int
) -> Tensor:  # [1, channels, height, width]
    """`time_embedding` of the column in the first half of the channels, and of the row in the
    second."""
    columns, rows = (
        time_embedding(width, channels // 2)[0].T,
        time_embedding(height, channels // 2)[0].T,
    )
    return torch.cat(
        [columns[:, None].expand(-1, height, -1), rows[..., None].expand(-1, -1, width)]
    )[None]
