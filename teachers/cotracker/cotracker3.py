"""CoTracker3: refine all tracks of a clip together, by correlation with what each point looked like
in its query frame.

Paper    Karaev et al. 2024, arXiv 2410.11831; the transformer with virtual tracks is that of
         CoTracker, arXiv 2307.07635.
Weights  facebook/cotracker3, CC-BY-NC 4.0: `scaled_offline.pth` and `baseline_offline.pth`,
         `scaled_online.pth` and `baseline_online.pth`. This file is written from the papers; the
         parity tests show equal outputs. Attribute names are the keys of those files, "virual"
         included.
Raster   px of the frames that go in; an integer is a pixel centre. Inside, coordinates are in
         cells: px / 4, without a half-pixel shift, and half of that at each coarser level of the
         pyramid.

A pass encodes every frame, builds a pyramid, and cuts out a window of features around each query
in its frame. It then refines `iterations` times: those windows are correlated with windows around
the current positions, and a transformer that attends over time and between tracks corrects
positions, visibility, and confidence. `refine` works on any run of frames and from any start, so
the online model, which goes window by window, calls the same network several times.

Online, each window starts from the answer of the one before. A query whose frame no window has
reached yet has zero features: its tracks there are the position of the query plus noise, and later
windows replace them. Positions are handed over without gradient, the logits of visibility and
confidence with it.

The published models make one pass, on the frames that go in. A network with `sides` makes several,
on small frames first; a pass begins at the positions where the one before ended, and judges
visibility and confidence anew, also where a window begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.cotracker.refinements import Refinements
from teachers.cotracker.sizes import factors_of, resized, scaled
from teachers.cotracker.transformer import MINI_SIZES, STRIDE, CoTrackerSizes, Mlp, TrackTransformer
from teachers.cotracker.windows import WindowNetwork, WindowStart
from teachers.layers.clip_features import together
from teachers.layers.device import constant
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.layers.pyramid import ResidualEncoder, encode_pyramid
from teachers.layers.resolutions import Size
from teachers.layers.sampling import (
    WindowOffsets,
    blend_cells,
    gather_cells,
    rounded_for_products,
    sample_at_once,
    sample_windows,
    window_offsets,
    with_frame,
)
from teachers.layers.time_embedding import time_embedding

MOTION_FREQUENCIES = 10
MOTION_CHANNELS = 4 * (1 + 2 * MOTION_FREQUENCIES)
"""Channels of motion: steps to the next and from the last frame (x, y each), with sines and
cosines."""


@dataclass(frozen=True, kw_only=True)
class CoTracker3Config(CoTrackerSizes):
    """Sizes of the network. The defaults are those of the official model: 25.5 M parameters, as in
    `scaled_offline.pth` and `baseline_offline.pth`."""

    window: int = 60
    """Frames that the time embedding is made for; it is resized for other lengths."""
    resolution: tuple[int, int] = (384, 512)
    """(H, W) px of the frames that the network is meant for. This sets the scale of the motion
    input, whatever the actual size of the frames."""
    radius: int = 3
    """Windows are (2 radius + 1)**2 cells."""
    correlation_hidden: int = 384
    correlation_channels: int = 256
    """Channels that the (2 radius + 1)**4 products of one level are reduced to, and channels of the
    hidden layer between."""
    layers: int = 3
    sides: tuple[int, ...] = ()
    """Short sides in px of the frames on which tracks are refined, one after the other: where
    frames are small, a point is found from far away; where they are large, its position becomes
    exact. () is published: once, on the frames that go in."""

    @classmethod
    def mini(cls, **changes: Any) -> CoTracker3Config:
        """1.3 M parameters; trains on a CPU core."""
        sizes: dict[str, Any] = dict(
            window=24,
            resolution=(256, 256),
            radius=2,
            correlation_hidden=96,
            correlation_channels=48,
            width=128,
        )
        return cls(**{**MINI_SIZES, **sizes, **changes})

    @property
    def token_channels(self) -> int:
        return 2 + self.levels * self.correlation_channels + MOTION_CHANNELS


PRESETS: Mapping[str, Callable[..., CoTracker3Config]] = {
    "official": CoTracker3Config,
    "mini": CoTracker3Config.mini,
}


class VisibilityUpdateTransformer(TrackTransformer):
    """Turns the tokens of all tracks in all frames into corrections of position, visibility, and
    confidence."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__(config)
        self.flow_head = nn.Linear(config.width, 2)
        self.vis_conf_head = nn.Linear(config.width, 2)

    def forward(
        self, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:  # [B, N, T, token_channels] -> [B, N, T, 2], [B, N, T, 2]
        x = self.attend(tokens)
        return self.flow_head(x), self.vis_conf_head(x)


class CoTracker3Network(nn.Module):
    """What the offline and the online model have in common. Runs on the device of its weights; its
    input must be there too."""

    BF16_PARTS = ("fnet", "updateformer", "corr_mlp")
    BF16_WEIGHTS = True
    time_emb: Tensor  # [1, window, token_channels]

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.config = config
        samples = (2 * config.radius + 1) ** 2
        self.register_buffer("time_emb", time_embedding(config.window, config.token_channels))
        self.fnet = ResidualEncoder(config.stages, config.channels, STRIDE)
        self.updateformer = VisibilityUpdateTransformer(config)
        self.corr_mlp = Mlp(
            samples * samples, config.correlation_hidden, config.correlation_channels, "none"
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head in (self.updateformer.flow_head, self.updateformer.vis_conf_head):
            # so that an untrained network leaves the points where they are
            nn.init.normal_(head.weight, std=1e-3)

    def factors(self, size: Size) -> list[float]:
        """The sizes of the frames on which tracks are refined, relative to frames of `size`
        (H, W)."""
        return factors_of(self.config.sides, size, self.config.resolution)

    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of unit-length features, per level
        [B, T, h, w, C]; see `encode_pyramid`. With several `factors`, one pyramid for each, in a
        row."""
        factors = self.factors((frames.shape[-2], frames.shape[-1]))
        return [level for factor in factors for level in self.encode_at(frames, factor, memory)]

    def encode_at(
        self, frames: Tensor, factor: float, memory: Memory = DEFAULT_MEMORY
    ) -> list[Tensor]:
        """`encode` of frames that are resized by one factor, in blocks."""
        levels = self.config.levels
        if factor == 1:
            return encode_pyramid(self.fnet, frames, levels, memory, unit_length=True)
        parts = [
            self.encode_at(resized(block, factor, levels), 1.0, memory)
            for block in frames.split(memory.frames(frames.device), 1)
        ]
        return [together(grids) for grids in zip(*parts, strict=True)]

    def looks(
        self, pyramid: list[Tensor], queries: Tensor, factors: Sequence[float]
    ) -> list[Tensor]:  # -> per level of each factor [B, N, W, C]
        """`query_windows` in frames that are resized by each of the factors; the pyramid has their
        levels in a row."""
        found, levels = [], self.config.levels
        for i, factor in enumerate(factors):
            there = torch.cat([queries[..., :1], scaled(queries[..., 1:], factor)], -1)
            found += self.query_windows(pyramid[i * levels : (i + 1) * levels], there)
        return found

    def query_windows(
        self, pyramid: list[Tensor], queries: Tensor
    ) -> list[Tensor]:  # [B, N, 3] -> per level [B, N, W, C]
        """What each query looks like in its frame; W = (2 radius + 1)**2."""
        frame = queries[..., :1].long()
        xy = queries[..., None, 1:] / STRIDE
        return [
            sample_windows(grid, frame, xy / 2**level, self.config.radius)[:, :, 0]
            for level, grid in enumerate(pyramid)
        ]

    def refine(
        self,
        pyramid: list[Tensor],  # per level [B, T, h, w, C]
        query_windows: list[Tensor],  # per level [B, N, W, C]
        xy: Tensor,  # [B, N, T, 2] px, where to start
        visibility: Tensor,  # [B, N, T] logits to start from
        confidence: Tensor,  # [B, N, T] logits to start from
        iterations: int,
        memory: Memory = DEFAULT_MEMORY,
    ) -> Refinements:
        """Improve tracks over the frames of the pyramid.

        No gradient flows through positions from one iteration to the one before; it does through
        the logits, which are running sums.
        """
        time = self._time_embedding(xy.shape[2])
        xy = xy / STRIDE
        offsets = window_offsets(pyramid, xy, self.config.radius)
        rounded = rounded_for_products(pyramid)
        steps = []
        for _ in range(iterations):
            xy = xy.detach()
            correlation = self.correlation(pyramid, query_windows, xy, memory, offsets, rounded)
            tokens = torch.cat(
                [visibility[..., None], confidence[..., None], correlation, self._motion(xy)], -1
            ).add_(time)
            move, logits = self.updateformer(tokens)
            xy = xy + move
            visibility = visibility + logits[..., 0]
            confidence = confidence + logits[..., 1]
            steps.append((xy * STRIDE, visibility, confidence))
        every_xy, every_visibility, every_confidence = (
            torch.stack(values) for values in zip(*steps, strict=True)
        )
        return Refinements(every_xy, every_visibility, every_confidence)

    def refine_in_turn(
        self,
        pyramid: list[Tensor],  # per level of each factor [B, T, h, w, C]
        looks: list[Tensor],  # per level of each factor [B, N, W, C]
        xy: Tensor,  # [B, N, T, 2] px, where to start
        logits: Tensor,  # [B, N, T, 2] visibility and confidence that each pass starts from
        factors: Sequence[float],
        iterations: int,
        memory: Memory,
    ) -> list[Refinements]:
        """`refine` on frames that are resized by each of the factors: a pass begins at the
        positions where the one before ended, and judges visibility anew. All in px of frames that
        are not resized."""
        visibility, confidence = logits.unbind(-1)
        found, levels = [], self.config.levels
        for i, factor in enumerate(factors):
            part = slice(i * levels, (i + 1) * levels)
            start = scaled(xy, factor)
            answer = self.refine(
                pyramid[part], looks[part], start, visibility, confidence, iterations, memory
            )
            found.append(replace(answer, xy=scaled(answer.xy, 1 / factor)))
            xy = found[-1].xy[-1]
        return found

    def correlation(
        self,
        pyramid: list[Tensor],
        query_windows: list[Tensor],
        xy: Tensor,  # [B, N, T, 2] cells of level 0
        memory: Memory = DEFAULT_MEMORY,
        offsets: Sequence[WindowOffsets] | None = None,  # of `window_offsets`, if known
        rounded: Sequence[Tensor] | None = None,  # of `rounded_for_products`
    ) -> Tensor:  # [B, N, T, levels * correlation_channels]
        """Products of every cell around a query with every cell around its present position,
        reduced by one MLP (section 3.2)."""
        offsets = window_offsets(pyramid, xy, self.config.radius) if offsets is None else offsets

        def block(xy: Tensor, *query_windows: Tensor) -> Tensor:
            if offsets:
                return self._correlation_at_once(pyramid, offsets, query_windows, xy)
            return self._correlation(pyramid, query_windows, xy, rounded)

        return memory.in_blocks(block, xy, *query_windows, points_per_query=len(xy) * xy.shape[2])

    def _correlation(
        self,
        pyramid: list[Tensor],
        query_windows: Sequence[Tensor],
        xy: Tensor,
        rounded: Sequence[Tensor] | None = None,
    ) -> Tensor:
        frame = torch.arange(xy.shape[2], device=xy.device)[None, None]
        reduced = []
        copies: Sequence[Tensor | None] = rounded or [None] * len(pyramid)
        for level, (grid, query, copy) in enumerate(
            zip(pyramid, query_windows, copies, strict=True)
        ):
            at = xy / 2**level
            # [B, N, T, (2 radius + 2)**2, C]
            cells = gather_cells(grid, frame, at, self.config.radius, copy)
            # one matrix product a query, over all frames
            products = cells.flatten(2, 3) @ query.transpose(2, 3)
            # [B, N, T, W, W]
            products = blend_cells(products.unflatten(2, cells.shape[2:4]), at, self.config.radius)
            reduced.append(self.corr_mlp(products.flatten(3)))
        return torch.cat(reduced, -1)

    def _correlation_at_once(
        self,
        pyramid: list[Tensor],
        offsets: Sequence[WindowOffsets],
        query_windows: Sequence[Tensor],
        xy: Tensor,
    ) -> Tensor:
        """`_correlation` with features that are sampled before they are multiplied."""
        frame = torch.arange(xy.shape[2], device=xy.device)[None, None]
        at = with_frame(xy, frame, pyramid[0])
        reduced = []
        for grid, offset, query in zip(pyramid, offsets, query_windows, strict=True):
            sampled = sample_at_once(grid, at, offset)  # [C, B * N, T, W]
            # one matrix product a query: [B * N, T * W, C] @ [B * N, C, W]
            products = sampled.flatten(2).permute(1, 2, 0) @ query.flatten(0, 1).mT
            reduced.append(self.corr_mlp(products.view(*xy.shape[:3], -1)))
        return torch.cat(reduced, -1)

    def _motion(self, xy: Tensor) -> Tensor:  # [B, N, T, 2] cells -> [B, N, T, MOTION_CHANNELS]
        height, width = self.config.resolution
        step = (xy[:, :, 1:] - xy[:, :, :-1]) / (constant(xy, width, height) / STRIDE)
        to_next, from_last = F.pad(-step, (0, 0, 0, 1)), F.pad(step, (0, 0, 1, 0))
        motion = torch.cat([to_next, from_last], -1)
        angles = (
            motion[..., None, :] * 2 ** torch.arange(MOTION_FREQUENCIES, device=xy.device)[:, None]
        ).flatten(3)
        return torch.cat([motion, angles.sin(), (angles + math.pi / 2).sin()], -1)

    def _time_embedding(self, frames: int) -> Tensor:  # [1, T, token_channels]
        if frames == self.config.window:
            return self.time_emb
        return F.interpolate(
            self.time_emb.transpose(1, 2), frames, mode="linear", align_corners=False
        ).transpose(1, 2)


class CoTracker3(CoTracker3Network):
    """The offline model: every pass is over all frames."""

    def forward(
        self, frames: Tensor, queries: Tensor, iterations: int = 4, memory: Memory = DEFAULT_MEMORY
    ) -> Refinements:
        """Tracks over all T frames, those before the query included, by the last pass. Sizes that
        `encode` refuses are a ConfigError.

        Args:
            frames: [B, T, 3, H, W] in 0..255, of any dtype.
            queries: [B, N, 3] (t, x, y), px of the frames; t is cut to an integer.
        """
        return self.passes(frames, queries, iterations, memory)[-1]

    def passes(
        self, frames: Tensor, queries: Tensor, iterations: int = 4, memory: Memory = DEFAULT_MEMORY
    ) -> list[Refinements]:
        """`forward`, with the tracks of each pass: one for each of the `factors`."""
        factors = self.factors((frames.shape[-2], frames.shape[-1]))
        pyramid = self.encode(frames, memory)
        looks = self.looks(pyramid, queries, factors)
        xy = queries[:, :, None, 1:].expand(-1, -1, frames.shape[1], -1)
        unknown = torch.zeros_like(xy)
        return self.refine_in_turn(pyramid, looks, xy, unknown, factors, iterations, memory)


WINDOW = 16

ONLINE_PRESETS = {
    "official": lambda: replace(CoTracker3Config(), window=WINDOW),
    "mini": lambda: replace(CoTracker3Config.mini(), window=WINDOW),
}


class CoTracker3Online(CoTracker3Network, WindowNetwork):
    """The online model."""

    first_visibility = 0.0

    def appearance(
        self, pyramid: list[Tensor], queries: Tensor, factors: Sequence[float]
    ) -> list[Tensor]:
        return self.looks(pyramid, queries, factors)

    def refine_window(
        self, pyramid: list[Tensor], start: WindowStart, iterations: int, memory: Memory
    ) -> list[Refinements]:
        # a pass on other frames than those of the window before judges visibility anew
        logits = start.logits if len(start.factors) == 1 else torch.zeros_like(start.logits)
        return self.refine_in_turn(
            pyramid, start.appearance, start.xy, logits, start.factors, iterations, memory
        )
