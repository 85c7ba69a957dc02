"""Recurrence: what TAPNext remembers of each token, by the RG-LRU of Griffin (De et al. 2024, arXiv
2402.19427, section 2.4).

    h_t = a_t h_(t-1) + b_t        channel by channel, a_t and b_t from the token of frame t

A clip needs no loop over all of its frames. `scan` divides them into blocks of about the square
root of their number, goes through all blocks at once, and then carries the end of each block into
the next; `scan_by_steps` is the plain loop, and a test holds them equal. Whatever the precision
around it, the recurrence, its gates, and its state are float32 (or float64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 4
"""Frames that the convolution over time sees: the current one, and three before it."""
GATE_POWER = 8.0
"""The constant c of the paper: log a_t = -c g_t softplus(a_param)."""


STEEPEST = 1000.0
"""Largest gradient of the square root in the RG-LRU."""


@dataclass(frozen=True)
class Carry:
    """What one block remembers about the frames before; its size does not depend on their
    number."""

    hidden: Tensor
    """[B, L, C]: h in the last frame."""
    inputs: Tensor
    """[B, 3, L, C]: inputs of the convolution in the last three frames, oldest first; 0 before the
    first frame."""


def scan_by_steps(
    a: Tensor, b: Tensor, start: Tensor
) -> Tensor:  # [B, T, ...] x 2, [B, ...] -> [B, T, ...]
    """h_t = a_t h_(t-1) + b_t for every t, h before the first = `start`."""
    steps, h = [], start
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        steps.append(h)
    return torch.stack(steps, 1)


def scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:  # [B, T, ...] x 2, [B, ...] -> [B, T, ...]
    """`scan_by_steps` in about 2 sqrt(T) steps; where |a| <= 1 nothing overflows."""
    frames = a.shape[1]
    length = math.isqrt(frames - 1) + 1 if frames > 3 else frames
    blocks = -(-frames // length)
    if blocks == 1:
        return scan_by_steps(a, b, start)
    missing = blocks * length - frames
    if missing:  # later frames change nothing in those before
        a, b = (F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)) for x in (a, b))
    a, b = (x.unflatten(1, (blocks, length)) for x in (a, b))
    # each block alone: h starting from 0, and what is left of the h before the block
    inside, decay = [b[:, :, 0]], [a[:, :, 0]]
    for t in range(1, length):
        inside.append(torch.addcmul(b[:, :, t], a[:, :, t], inside[-1]))
        decay.append(a[:, :, t] * decay[-1])
    h, decayed, ends = torch.stack(inside, 2), torch.stack(decay, 2), []
    for block in range(blocks):
        ends.append(torch.addcmul(h[:, block], decayed[:, block], start[:, None]))
        start = ends[-1][:, -1]
    return torch.cat(ends, 1)[:, :frames]


class CausalConvolution(nn.Module):
    """c_t = sum over j of w[j] u_(t-3+j), plus b: over time, every channel for itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(TAPS, width) / math.sqrt(TAPS))
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, u: Tensor) -> Tensor:  # [B, 3 + T, L, C], the past in front -> [B, T, L, C]
        frames = u.shape[1] - (TAPS - 1)
        c = torch.addcmul(self.b, u[:, :frames], self.w[0])
        for tap in range(1, TAPS):
            c = c.addcmul_(u[:, tap : tap + frames], self.w[tap])
        return c


class BlockDiagonal(nn.Module):
    """A linear layer in heads that do not see each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        size = width // heads
        self.w = nn.Parameter(torch.randn(heads, size, size) / math.sqrt(size))
        self.b = nn.Parameter(torch.zeros(heads, size))

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        heads, size, _ = self.w.shape
        rows = x.reshape(-1, heads, size).transpose(0, 1)
        return torch.baddbmm(self.b[:, None], rows, self.w).transpose(0, 1).reshape(x.shape)


class RgLru(nn.Module):
    """The real-gated linear recurrent unit."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.a_param = nn.Parameter(torch.randn(width) - 4)
        self.input_gate = BlockDiagonal(width, heads)
        self.a_gate = BlockDiagonal(width, heads)

    def forward(self, c: Tensor, start: Tensor | None) -> Tensor:  # [B, T, L, C], [B, L, C]
        """h in every frame; `start` is h before the first, None in the first frame of a stream."""
        a = torch.exp(self.a_gate(c).sigmoid() * (-GATE_POWER * F.softplus(self.a_param)))
        b = self.input_gate(c).sigmoid() * c
        # h keeps the variance of its input; in the first frame it has no h to make room for
        keep = BoundedRoot.apply(torch.addcmul(a.new_ones(()), a, a, value=-1))
        if start is None:
            keep = torch.cat([torch.ones_like(keep[:, :1]), keep[:, 1:]], 1)
            start = c.new_zeros(c[:, 0].shape)
        return scan(a, b * keep, start)


class BoundedRoot(torch.autograd.Function):
    """A square root whose gradient stays below `STEEPEST`, as in the training of the paper."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * 0.5 * x.clamp_min(1 / (4 * STEEPEST**2)).rsqrt()


class RecurrentBranch(nn.Module):
    """Mixes tokens over time: a convolution and the RG-LRU, with a gate beside them (Griffin,
    figure 2c)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.linear_y = nn.Linear(width, width)
        self.linear_x = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.conv_1d = CausalConvolution(width)
        self.rg_lru = RgLru(width, heads)

    def forward(self, x: Tensor, past: Carry | None) -> tuple[Tensor, Carry]:  # [B, T, L, C]
        y = F.gelu(self.linear_y(x), approximate="tanh")
        u = self.linear_x(x)
        before = u.new_zeros(u.shape[0], TAPS - 1, *u.shape[2:]) if past is None else past.inputs
        u = torch.cat([before, u], 1)
        h = self.rg_lru(self.conv_1d(u), None if past is None else past.hidden)
        return self.linear_out(y.mul_(h)), Carry(h[:, -1].clone(), u[:, -(TAPS - 1) :].clone())
