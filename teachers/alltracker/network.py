"""AllTracker: where every pixel of one frame goes, in all frames of a clip.

Paper    Harley et al. 2025, arXiv 2506.07310 (ICCV 2025). Section numbers below are the paper's.
Weights  `alltracker.pth`, `alltracker_tiny.pth`. This file is written from the paper; the parity
         tests show equal outputs. Attribute names are the keys of those files.
Raster   an integer is a pixel's or a cell's CENTRE. Flow is (dx, dy), in cells inside and in px
         outside.

A clip is processed in windows of 16 frames, each compared with the query frame. Frames become
features at stride 8 (3.1), and every cell of the query frame is multiplied with every cell of each
frame, at five levels (3.2). Then, four times, a network that mixes over time and over space reads
the products around where each cell has moved to, and corrects flow, visibility, and confidence
(3.4). At the end, these are upsampled to every pixel. The next window starts from the second half
of this one.

Speed: whatever does not change between iterations, or between windows, is computed once: features,
products, and the query frame's part of the input. Only the last iteration is upsampled, and only
for the frames that are asked for. Frames and cells are computed in blocks that fit the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.alltracker.blocks import (
    Fast,
    Maps,
    UpdateBlock,
    _head,
    few_outputs,
    on_maps,
    pointwise,
)
from teachers.alltracker.config import MEAN, MOST_PRODUCTS, PADDED_TO, STD, STRIDE, AllTrackerConfig
from teachers.alltracker.convnext import ConvNeXt
from teachers.errors import ConfigError
from teachers.layers.device import constant
from teachers.layers.memory import Memory
from teachers.layers.pyramid import ResidualEncoder
from teachers.layers.resolutions import Size
from teachers.layers.time_embedding import time_embedding
from teachers.layers.winograd import square_form, square_form_of

TINY: dict[str, Any] = {"convnext": False, "stages": (64, 96, 128, 128)}

CPU_MEMORY = Memory(frames_per_block=1, points_per_block=4096)
"""Blocks that fit the cache of a CPU core, measured; a point is a cell in a frame."""
GPU_MEMORY = Memory(frames_per_block=16, points_per_block=2**20)


@dataclass(frozen=True)
class FlowState:
    """What is known about every cell of the query frame in S frames of a window: its flow in cells,
    the logits of visibility and confidence (an eighth of those in the answer), and a hidden
    state."""

    flow: Tensor  # [S, h, w, 2]
    logits: Tensor  # [S, h, w, 2]
    hidden: Tensor  # [S, h, w, C]


@dataclass(frozen=True)
class FlowWindow:
    """The answer of one window, which begins with frame `first` of the clip and holds `frames` of
    its frames; those after them repeat the last."""

    first: int
    frames: int
    state: FlowState


@dataclass(frozen=True)
class Padding:
    """How much is added to a frame: half of it at the left and the top, rounded down, and the rest
    at the right and the bottom."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, size: Size, least: int = PADDED_TO) -> Padding:
        """The padding of frames of (H, W) px to multiples of `PADDED_TO`, and to at least `least` a
        side."""
        height, width = (max(least, side + -side % PADDED_TO) - side for side in size)
        return cls(width // 2, width - width // 2, height // 2, height - height // 2)

    def add(self, frames: Tensor) -> Tensor:  # [F, 3, H, W] float -> padded
        """Pad frames by repeating their outermost pixels."""
        around = (self.left, self.right, self.top, self.bottom)
        return F.pad(frames, around, mode="replicate") if any(around) else frames

    def cut(self, maps: Tensor) -> Tensor:  # [F, H, W, C] padded -> without
        height, width = maps.shape[1:3]
        return maps[:, self.top : height - self.bottom, self.left : width - self.right]


class AllTracker(nn.Module):
    """The network. Runs on the device and in the precision of its weights; frames must be on that
    device."""

    time_emb: Tensor  # [1, window, C]

    def __init__(self, config: AllTrackerConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.register_buffer("time_emb", time_embedding(config.window, channels))
        if config.convnext:
            self.cnn = ConvNeXt(config.stages, config.blocks, config.mlp_ratio)
            self.dot_conv = nn.Conv2d(config.stages[-1], config.feature_channels, 1)
        else:
            first, second, third, fourth = config.stages
            self.fnet = ResidualEncoder((first, second, third, fourth), channels, STRIDE)
        self.upsample_weight = nn.Sequential(
            nn.Conv2d(channels, config.head_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.head_channels, 9 * STRIDE**2, 1),
        )
        self.flow_head = _head(channels, config.head_channels)
        self.visconf_head = _head(channels, config.head_channels)
        self.update_block = UpdateBlock(config)

    @property
    def BF16_PARTS(self) -> tuple[str, ...]:
        encoder = "cnn" if self.config.convnext else "fnet"
        return (encoder, "update_block.motion_encoder", "update_block.refine")

    # --- features

    def encode(self, frames: Tensor, padding: Padding, memory: Memory = CPU_MEMORY) -> Tensor:
        """[T, 3, H, W] 0..255, any dtype, to features [T, h, w, C] of the padded frames."""
        return torch.cat(
            [self._encode(part, padding) for part in frames.split(memory.frames_per_block)]
        )

    def _encode(self, frames: Tensor, padding: Padding) -> Tensor:
        dtype = self.time_emb.dtype
        mean, std = (constant(self.time_emb, *values)[:, None, None] for values in (MEAN, STD))
        images = padding.add((frames.to(dtype) / 255 - mean) / std)
        if min(images.shape[-2:]) < self.config.least_side:
            raise ConfigError(
                f"frames of {images.shape[-1]} x {images.shape[-2]} px with their padding: the "
                f"network needs at least {self.config.least_side} a side."
            )
        images = images.contiguous(memory_format=torch.channels_last)
        if self.config.convnext:
            return pointwise(self.cnn(images.permute(0, 2, 3, 1)), self.dot_conv)
        return self.fnet(images).permute(0, 2, 3, 1).contiguous()

    # --- windows

    def windows(
        self,
        features: Callable[[int, int], Tensor],
        frames: int,
        window: int | None = None,
        stride: int | None = None,
        memory: Memory = CPU_MEMORY,
    ) -> Iterator[FlowWindow]:
        """Go through a clip whose frame 0 is the query frame.

        Args:
            features: `features(first, n)` gives those of n frames from `first` on, fewer at the
                clip's end, [t, h, w, C].
            frames: of the clip, at least 2. Of two, the window is frame 1 alone, as published.
            window: frames in a window; None is the network's.
            stride: frames from a window to the next, at most half a window, which is what None is.
        """
        window = window or self.config.window
        stride = stride or window // 2
        pair = frames == 2
        time = self.time_emb[0, 1:2] if pair else self.time_embedding(window)
        looks = self.looks(features(0, window)[0])
        products: Products | None = None
        state: FlowState | None = None
        for first in (1,) if pair else window_starts(frames, window, stride):
            grids = features(first, window)
            products = Products(looks.features, grids, self.config, memory, products, stride)
            steps = self.iterate(looks, products, time, handed_on(state, stride))
            state = deque(steps, maxlen=1)[0]  # the states before it are let go
            yield FlowWindow(first, len(grids), state)

    def time_embedding(self, window: int) -> Tensor:  # [S, C]
        if window == self.config.window:
            return self.time_emb[0]
        return F.interpolate(self.time_emb.mT, window, mode="linear", align_corners=False)[0].T

    def looks(self, features: Tensor) -> QueryFrame:
        """The context of the query frame, [h, w, C]."""
        channels = self.config.channels
        return QueryFrame(features, features[..., :channels], features[..., -channels:])

    def iterate(
        self, looks: QueryFrame, products: Products, time: Tensor, state: FlowState | None = None
    ) -> Iterator[FlowState]:
        """The state after each iteration over one window.

        Args:
            time: [S, C]; S may be more than the frames of `products`, whose last is then repeated.
            state: what flow and logits start from; None is zeros.
        """
        memory, channels, block = products.memory, self.config.channels, self.update_block
        shape = (len(time), *looks.hidden.shape)
        hidden = looks.hidden.expand(shape)
        zero = time.new_zeros(*shape[:-1], 2)
        flow, logits = (zero, zero) if state is None else (state.flow, state.logits)
        weight = block.compressor.weight[:, :, 0, 0]
        of_context = weight[:, channels : 2 * channels].T
        context = F.linear(looks.context, of_context.T, block.compressor.bias)
        contexts = time @ of_context  # [S, C]
        used = torch.cat([weight[:, :channels], weight[:, 2 * channels :]], 1)
        fast = self._fast(zero)
        for _ in range(self.config.iterations):
            flow, logits = flow.detach(), logits.detach()

            def compressed(first: int, last: int) -> Tensor:
                now = flow[first:last]  # noqa: B023
                motion = block.motion_encoder(products.around(first, now), now, fast)
                parts = torch.cat([hidden[first:last], motion, logits[first:last]], -1)  # noqa: B023
                return F.linear(parts, used) + (context + contexts[first:last, None, None])

            x = torch.cat(
                [compressed(*span) for span in _spans(len(time), memory.frames_per_block)]
            )
            x = block.refine(x, memory)
            ends = []
            for part in x.split(memory.frames_per_block):
                end = pointwise(part, block.final_conv)
                ends.append((end, *self.corrections(end, fast.heads)))
            hidden, moves, changes = (torch.cat(parts) for parts in zip(*ends, strict=True))
            flow, logits = flow + moves, logits + changes
            yield FlowState(flow, logits, hidden)

    def corrections(self, hidden: Tensor, fast: Maps | None = None) -> tuple[Tensor, Tensor]:
        """[F, h, w, C] -> [F, h, w, 2] each, of flow and of logits."""
        if fast is None:
            weight, bias = self._heads()
            seen = F.conv2d(hidden.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
        else:
            seen = fast(hidden)
        flow, visconf = seen.relu_().chunk(2, -1)
        return (
            few_outputs(flow, _layer(self.flow_head, 2)),
            few_outputs(visconf, _layer(self.visconf_head, 2)),
        )

    def _heads(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first convolutions of both heads, as one."""
        first = [_layer(head, 0) for head in (self.flow_head, self.visconf_head)]
        bias = [layer.bias for layer in first if layer.bias is not None]
        return torch.cat([layer.weight for layer in first]), torch.cat(bias)

    def _fast(self, like: Tensor) -> Fast:
        encoder = self.update_block.motion_encoder
        return Fast(
            square_form_of(encoder.convc2, like),
            square_form_of(encoder.conv, like),
            square_form(*self._heads(), like),
        )

    # --- answers

    def upsample(self, state: FlowState, index: slice | Tensor) -> Tensor:  # -> [F, H, W, 4]
        """Flow in px, and the logits of visibility and confidence, of some frames of a window, at
        every pixel of the padded frames: a weighted mean of the nine cells around (3.4)."""
        weights = on_maps(_layer(self.upsample_weight, 0), state.hidden[index]).relu_()
        weights = pointwise(weights, _layer(self.upsample_weight, 2)) / 4
        frames, height, width, _ = weights.shape
        weights = weights.view(frames, height, width, 9, STRIDE**2).softmax(3)
        values = STRIDE * torch.cat([state.flow[index], state.logits[index]], -1)
        around = F.pad(values, (0, 0, 1, 1, 1, 1))  # zero outside
        taps = [around[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        near = torch.stack(taps, 3)  # [F, h, w, 9, 4]
        full = (weights.mT @ near).view(frames, height, width, STRIDE, STRIDE, 4)
        return full.transpose(2, 3).reshape(frames, height * STRIDE, width * STRIDE, 4)


@dataclass(frozen=True)
class QueryFrame:
    """The query frame."""

    features: Tensor
    """[h, w, C]"""
    hidden: Tensor
    """[h, w, C']: what the hidden state starts with, in every frame of every window."""
    context: Tensor
    """[h, w, C']"""


@dataclass
class Products:
    """Products of every cell of the query frame with every cell of the frames of a window (3.2)."""

    query: Tensor
    """[h, w, C]"""
    frames: Tensor
    """[t, h, w, C]"""
    config: AllTrackerConfig
    memory: Memory
    before: Products | None = None
    """Products of the window before; those of the frames that are in both windows are reused."""
    stride: int = 0
    """How many frames this window starts after that one."""
    _kept: dict[int, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = self.query.shape[0] * self.query.shape[1]
        self._keeps = len(self.frames) * cells**2 * 4 // 3 <= MOST_PRODUCTS
        if self.before is not None:
            self._kept = {
                index - self.stride: maps
                for index, maps in self.before._kept.items()
                if index - self.stride in range(len(self.frames))
            }
            self.before = None

    def around(self, first: int, flow: Tensor) -> Tensor:
        """Products at 9 x 9 cells around where each cell has moved to.

        Args:
            first: frame of the window that flow begins with.
            flow: [F, h, w, 2] cells.

        Returns:
            [F, h, w, levels * 81], within a level x slowest.
        """
        height, width = flow.shape[1:3]
        own = torch.stack(
            torch.meshgrid(
                torch.arange(width, device=flow.device),
                torch.arange(height, device=flow.device),
                indexing="xy",
            ),
            -1,
        )
        found = []
        for offset, moved in enumerate((flow + own).flatten(1, 2)):
            maps = self._maps(min(first + offset, len(self.frames) - 1))
            levels = [self._look_up(level, moved / 2**index) for index, level in enumerate(maps)]
            found.append(torch.cat(levels, -1))
        return torch.stack(found).unflatten(1, (height, width))

    def _look_up(self, maps: Tensor, xy: Tensor) -> Tensor:  # [P, h, w], [P, 2] -> [P, 81]
        """Bilinear; the nearest cell outside."""
        radius, (height, width) = self.config.radius, maps.shape[1:]
        steps = torch.arange(-radius, radius + 2, device=xy.device)
        corner = xy.floor()
        share = (xy - corner)[..., None, None]
        corner = corner.long()
        column = (corner[:, :1] + steps).clamp_(0, width - 1)
        row = (corner[:, 1:] + steps).clamp_(0, height - 1).mul_(width)
        index = column[:, :, None] + row[:, None, :]  # [P, 10, 10], x slowest
        cells = maps.flatten(1).gather(1, index.flatten(1)).view(index.shape)
        cells = torch.lerp(cells[:, :-1], cells[:, 1:], share[:, 0])
        return torch.lerp(cells[:, :, :-1], cells[:, :, 1:], share[:, 1]).flatten(1)

    def _maps(self, index: int) -> list[Tensor]:  # per level [P, h, w]
        if index in self._kept:
            return self._kept[index]
        query = self.query.flatten(0, 1) / self.query.shape[-1] ** 0.5
        grid = self.frames[index].permute(2, 0, 1)[None]
        maps = []
        for level in range(self.config.levels):
            if level:
                grid = F.adaptive_avg_pool2d(grid, (grid.shape[2] // 2, grid.shape[3] // 2))
            maps.append((query @ grid[0].flatten(1)).view(-1, *grid.shape[2:]))
        if self._keeps:
            self._kept[index] = maps
        return maps


def window_starts(frames: int, window: int, stride: int) -> Iterator[int]:
    """First frames of the windows: one more after each window behind which frames are left."""
    first = 0
    while first + window < frames:
        yield first
        first += stride
    yield first


def handed_on(state: FlowState | None, stride: int) -> FlowState | None:
    """What the next window starts from: half a window of this one, from `stride` on, whose last
    frame fills the other half."""
    if state is None:
        return None
    half = len(state.flow) // 2
    index = torch.arange(2 * half, device=state.flow.device).clamp(max=half - 1) + stride
    return FlowState(state.flow[index], state.logits[index], state.hidden)


def _layer(layers: nn.Sequential, index: int) -> nn.Conv2d:
    return cast(nn.Conv2d, layers[index])


def _spans(count: int, step: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + step, count)) for first in range(0, count, step))
