"""Blocks of LocoTrack: the encoder of local 4D correlation, and the transformer over time."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.fast import bias_of
from teachers.locotrack.config import LocoTrackConfig

SMALL_SIDE = 4
"""Cells per side of the largest image that `same_convolution` multiplies by hand."""
SLOPE_BASE = 24.0
"""The steepest head of n loses `SLOPE_BASE` ** (-1 / n) of its score for each frame of distance."""


class CorrelationEncoder(nn.Module):
    """Turns the products of two windows into features of the motion between them (section 3.2)."""

    def __init__(self, config: LocoTrackConfig) -> None:
        super().__init__()
        self.side = 2 * config.radius + 1
        widths = (self.side**2, *config.correlation_channels)
        self.conv = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel, stride),
                nn.GroupNorm(outputs // config.group_channels, outputs),
            )
            for inputs, outputs, kernel, stride in zip(
                widths[:-1], widths[1:], config.correlation_kernels, config.correlation_strides,
                strict=True,
            )
        )  # fmt: skip

    def forward(self, products: Tensor) -> Tensor:  # [P, W here, W there] -> [P, 2 C]
        """The same convolutions see an image of the cells here, with the cells there as channels,
        and an image of the cells there."""
        read = []
        for image in (products, products.mT.contiguous()):
            x = image.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # channels-last
            for layer in self.conv:
                convolution, norm = layer.children()
                x = norm(same_convolution(x, cast(nn.Conv2d, convolution))).relu_()
            read.append(x.mean((2, 3)))
        return torch.cat(read, -1)


def same_convolution(x: Tensor, convolution: nn.Conv2d) -> Tensor:  # [P, C, h, w], channels-last
    """A convolution padded with zeros as "SAME" does: to the fewest cells that give ceil(n /
    stride) outputs, with the smaller half first.

    Tiny images are cut into the cells that each output sees, without the zeros, and multiplied:
        this takes half the time of torch on a CPU.
    """
    kernel, stride, bias = convolution.kernel_size[0], convolution.stride[0], bias_of(convolution)
    side = x.shape[2]  # images are square
    outputs = -(-side // stride)
    total = max((outputs - 1) * stride + kernel - side, 0)
    before = total // 2
    if side > SMALL_SIDE or x.device.type != "cpu":
        if total % 2:
            x, before = F.pad(x, (before, before + 1) * 2), 0
        return F.conv2d(x, convolution.weight, bias, stride, before)
    seen = [
        (max(first, 0), min(first + kernel, side))
        for first in range(-before, outputs * stride - before, stride)
    ]
    rows, taps, cells = x.permute(0, 2, 3, 1), convolution.weight.permute(2, 3, 1, 0), []
    for row, (top, bottom) in enumerate(seen):
        for column, (left, right) in enumerate(seen):
            up, back = row * stride - before, column * stride - before  # where the kernel begins
            used = taps[top - up : bottom - up, left - back : right - back].flatten(0, 2)
            cells.append(torch.addmm(bias, rows[:, top:bottom, left:right].flatten(1), used))
    return torch.stack(cells, 1).unflatten(1, (outputs, outputs)).permute(0, 3, 1, 2)


class DirectedAttention(nn.Module):
    """Attention over the frames of a track; `bias` says which frame sees which."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.final_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # [P, T, width], [heads, T, T]
        projections = (self.query_proj(x), self.key_proj(x), self.value_proj(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projections)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.final_proj(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then an MLP, each after a norm and with a shortcut around it."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.attn = DirectedAttention(width, heads)
        self.dense = nn.Sequential(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )
        self.layer_norm1 = nn.LayerNorm(width)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attn(self.layer_norm1(x), bias)
        return x + self.dense(self.layer_norm2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, ratio: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, ratio) for _ in range(layers))
        self.ln_out = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, bias)
        return self.ln_out(x)


class TrackMixer(nn.Module):
    """Turns what is known about each track in each frame into corrections of it (section 3.3)."""

    def __init__(self, inputs: int, unused: int, config: LocoTrackConfig) -> None:
        """Args:
        unused: outputs in the published files that no result needs; they are not computed.
        """
        super().__init__()
        self.heads = config.heads
        self.transformer = Transformer(config.width, config.heads, config.layers, config.mlp_ratio)
        self.input_proj = nn.Linear(inputs, config.width)
        self.output_proj = nn.Linear(config.width, 4 + unused)

    def forward(self, x: Tensor) -> Tensor:  # [P, T, inputs] -> [P, T, 4]
        x = self.transformer(self.input_proj(x), directed_bias(x.shape[1], self.heads, x))
        return F.linear(x, self.output_proj.weight[:4], self.output_proj.bias[:4])


def directed_bias(frames: int, heads: int, like: Tensor) -> Tensor:  # [heads, T, T]
    """What is added to the score of frame j for frame i. The first half of the heads see only j <=
    i, the others only j >= i; the farther away, the lower the score, and within each half every
    head falls less steeply than the one before."""
    half = heads // 2
    slopes = SLOPE_BASE ** (-torch.arange(1, half + 1, device=like.device, dtype=like.dtype) / half)
    frame = torch.arange(frames, device=like.device, dtype=like.dtype)
    behind = frame[:, None] - frame  # i - j
    past = (-slopes[:, None, None] * behind).masked_fill(behind < 0, -torch.inf)
    return torch.cat([past, past.mT])
