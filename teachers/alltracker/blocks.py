"""Blocks of AllTracker: the motion encoder, and the blocks that mix over time and space (3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.alltracker.config import AllTrackerConfig
from teachers.alltracker.convnext import ConvNeXtBlock
from teachers.layers.attention import Attention
from teachers.layers.fast import tanh_gelu
from teachers.layers.memory import Memory

Maps = Callable[[Tensor], Tensor]
"""[F, h, w, C] -> [F, h, w, C']"""


@dataclass(frozen=True)
class Fast:
    """Faster forms of the widest convolutions of an iteration, which are half of its arithmetic;
    None where there is none. See `winograd.py`."""

    second: Maps | None = None
    """`convc2` of the motion encoder."""
    last: Maps | None = None
    """`conv` of the motion encoder."""
    heads: Maps | None = None
    """The first convolutions of both heads."""


class MotionEncoder(nn.Module):
    """Motion encoder: the products and the flow of a frame become motion features."""

    def __init__(self, config: AllTrackerConfig) -> None:
        super().__init__()
        products = config.levels * (2 * config.radius + 1) ** 2
        wide, narrow, flow_wide, flow_narrow = config.motion_channels
        self.convc1 = nn.Conv2d(products, wide, 1)
        self.convc2 = nn.Conv2d(wide, narrow, 3, padding=1)
        self.convf1 = nn.Conv2d(2, flow_wide, 5, padding=2)
        self.convf2 = nn.Conv2d(flow_wide, flow_narrow, 3, padding=1)
        self.conv = nn.Conv2d(narrow + flow_narrow, config.channels - 2, 3, padding=1)

    def forward(self, products: Tensor, flow: Tensor, fast: Fast | None = None) -> Tensor:
        """[F, h, w, products], [F, h, w, 2] cells -> [F, h, w, C]"""
        if fast is None or torch.is_autocast_enabled(flow.device.type):
            fast = Fast()
        seen = pointwise(products, self.convc1).relu_()
        seen = (fast.second or partial(on_maps, self.convc2))(seen).relu_()
        moved = on_maps(self.convf2, on_maps(self.convf1, flow).relu_()).relu_()
        both = torch.cat([seen, moved], -1)
        return torch.cat([(fast.last or partial(on_maps, self.conv))(both).relu_(), flow], -1)


class TemporalAttention(Attention):
    """Attention of each cell over the frames of a window. Frames come first, so that no map is
    moved in memory."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # [S, P, C]
        k, v = self.to_kv(x).chunk(2, -1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)
            for part in (self.to_q(x), k, v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # [P, heads, S, C / heads]
        return self.to_out(mixed.permute(2, 0, 1, 3).flatten(2))


class Perceptron(nn.Module):
    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(tanh_gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.attn = TemporalAttention(width, heads)
        self.mlp = Perceptron(width, ratio)

    def forward(self, x: Tensor) -> Tensor:  # [S, P, C]
        x = x + self.attn(norm(x))
        return x + self.mlp(norm(x))


class TemporalBlock(nn.Module):
    """A transformer block, scaled, with a shortcut around it, so its input enters twice."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((width, 1), 1e-6))
        self.block = TransformerBlock(width, heads, ratio)

    def forward(self, x: Tensor) -> Tensor:  # [S, P, C]
        return torch.addcmul(x, self.block(x), self.layer_scale[:, 0])


class Refine(nn.ModuleList):
    """Alternating blocks over time and over space (3.4)."""

    def __init__(self, config: AllTrackerConfig) -> None:
        blocks: list[nn.Module] = []
        for _ in range(config.refine_blocks):
            blocks.append(TemporalBlock(config.channels, config.heads, config.mlp_ratio))
            blocks.append(ConvNeXtBlock(config.channels, config.mlp_ratio))
        super().__init__(blocks)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:  # [S, h, w, C]
        cells = max(1, memory.points_per_block // x.shape[0])
        for block in self:
            if isinstance(block, TemporalBlock):
                parts = x.flatten(1, 2).split(cells, 1)
                x = torch.cat([memory.run(block, part) for part in parts], 1).view(x.shape)
            else:
                x = torch.cat(
                    [memory.run(block, part) for part in x.split(memory.frames_per_block)]
                )
        return x


class UpdateBlock(nn.Module):
    """The parts of an iteration."""

    def __init__(self, config: AllTrackerConfig) -> None:
        super().__init__()
        self.motion_encoder = MotionEncoder(config)
        self.compressor = nn.Conv2d(3 * config.channels + 2, config.channels, 1)
        self.refine = Refine(config)
        self.final_conv = nn.Conv2d(config.channels, config.channels, 1)


def norm(x: Tensor) -> Tensor:
    """Normalise every position to mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def on_maps(convolution: nn.Module, x: Tensor) -> Tensor:  # [F, h, w, C] -> [F, h, w, C']
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def pointwise(x: Tensor, convolution: nn.Conv2d) -> Tensor:  # [F, h, w, C] -> [F, h, w, C']
    """A 1 x 1 convolution."""
    return F.linear(x, convolution.weight[:, :, 0, 0], convolution.bias)


def few_outputs(x: Tensor, convolution: nn.Conv2d) -> Tensor:  # [F, h, w, C] -> [F, h, w, 2]
    """A 3 x 3 convolution to few channels: one matrix product gives what each cell adds to each of
    its neighbours, which is several times faster than torch's."""
    weight, bias = convolution.weight, convolution.bias
    height, width = x.shape[1:3]
    added = F.pad(x @ weight.permute(1, 2, 3, 0).flatten(1), (0, 0, 1, 1, 1, 1)).unflatten(
        -1, (9, -1)
    )
    taps = [added[:, y : y + height, x : x + width, 3 * y + x] for y in range(3) for x in range(3)]
    total = torch.stack(taps).sum(0)
    return total if bias is None else total + bias


def _head(channels: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, 2, 3, padding=1)
    )
