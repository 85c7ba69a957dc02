"""Mixer: what TAPIR knows about each track in each frame is mixed over time and over channels.

An MLP-mixer whose mixing over tokens is replaced by depthwise convolutions over time, so that it
runs on any number of frames (TAPIR, section 3.3). Tracks do not see each other. A causal mixer sees
no later frame; it can be given the frames of a clip in parts if it carries `Past` from one part to
the next.

Speed: tensors stay [N, T, channels]. On a CPU torch's grouped convolutions, which want time last,
are some ten times slower than the three multiplications of whole rows below; `test_network.py`
holds the two equal. Those go over the memory once for each tap: a GPU takes the convolutions, and
sums in the second what the first made of a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.branch import for_gpu_inference
from teachers.layers.fast import added, bias_of, linear_gelu, tanh_gelu

KERNEL = 3
"""Frames that a convolution over time sees."""
REACH = KERNEL - 1
"""Frames that a causal convolution looks back."""


@dataclass(frozen=True)
class Past:
    """What a causal mixer must remember of the last two frames: the inputs of its convolutions.
    Updated in place."""

    first: Tensor
    """[..., blocks, 2, 1, C]: inputs of the first convolution, after the norm; the mixer takes [N,
    ...]."""
    second: Tensor
    """[..., blocks, 2, ratio, C]: inputs of the second convolution, after the GELU."""


class TemporalMixer(nn.Module):
    """Turns what is known about a track over time into corrections of it."""

    def __init__(
        self, inputs: int, outputs: int, width: int, ratio: int, blocks: int, causal: bool
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(MixerBlock(width, ratio, causal) for _ in range(blocks))
        self.layer_norm = nn.LayerNorm(width, bias=False)
        self.linear_1 = nn.Linear(width, outputs)

    def forward(
        self, x: Tensor, past: Past | None = None
    ) -> Tensor:  # [N, T, inputs] -> [N, T, outputs]
        x = self.linear(x)
        for index, block in enumerate(self.blocks):
            x = block(
                x, None if past is None else Past(past.first[:, index], past.second[:, index])
            )
        return self.linear_1(self.layer_norm(x))


class MixerBlock(nn.Module):
    """Two depthwise convolutions over time, then an MLP over channels, each with a shortcut around
    it."""

    def __init__(self, width: int, ratio: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.layer_norm = nn.LayerNorm(width, bias=False)
        self.mlp1_up = nn.Conv1d(width, ratio * width, KERNEL, groups=width)
        self.mlp1_up_1 = nn.Conv1d(ratio * width, ratio * width, KERNEL, groups=ratio * width)
        self.layer_norm_1 = nn.LayerNorm(width, bias=False)
        self.conv_channels_mixer = ChannelMixer(width, ratio)

    def forward(self, x: Tensor, past: Past | None) -> Tensor:  # [N, T, C] -> [N, T, C]
        first, second = (None, None) if past is None else (past.first, past.second)
        back = REACH if self.causal else 1
        if for_gpu_inference(x):
            x = added(x, self._over_time_at_once(self.layer_norm(x), back, first, second))
            return added(x, self.conv_channels_mixer(self.layer_norm_1(x)))
        h = tanh_gelu(over_time(self.layer_norm(x)[:, :, None], self.mlp1_up, back, first))
        x = x + over_time(h, self.mlp1_up_1, back, second).sum(2)
        return x + self.conv_channels_mixer(self.layer_norm_1(x))

    def _over_time_at_once(
        self, x: Tensor, back: int, first: Tensor | None, second: Tensor | None
    ) -> Tensor:  # [N, T, C], [N, 2, 1, C], [N, 2, ratio, C] -> [N, T, C]
        """Both convolutions over time as torch's. The second gives each channel the sum of what it
        makes of all the channels that the first made of it."""
        channels = x.shape[-1]
        up, mix = self.mlp1_up, self.mlp1_up_1
        h = x.mT.contiguous()  # [N, C, T]
        h = _convolved(h, up.weight, bias_of(up), channels, back, first)
        h = F.gelu(h, approximate="tanh")  # [N, C * ratio, T]
        taps = mix.weight.view(channels, -1, KERNEL)
        bias = bias_of(mix).view(channels, -1).sum(1)
        return _convolved(h, taps, bias, channels, back, second).mT


def _convolved(
    x: Tensor, taps: Tensor, bias: Tensor, groups: int, back: int, past: Tensor | None
) -> Tensor:  # [N, C, T] -> [N, outputs, T]
    """Convolution over time that looks `back`; `past` as for `over_time`."""
    frames = x.shape[-1]
    if past is None:
        return F.conv1d(x, taps, bias, padding=back, groups=groups)[..., :frames]
    before = past.permute(0, 3, 2, 1).flatten(1, 2).to(x.dtype)  # channel m of C at c * M + m
    x = torch.cat([before, x], -1)
    past.copy_(x[..., -back:].unflatten(1, (past.shape[3], -1)).permute(0, 3, 2, 1))
    return F.conv1d(x, taps, bias, groups=groups)


class ChannelMixer(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.mlp2_up = nn.Linear(width, ratio * width)
        self.mlp2_down = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        if for_gpu_inference(x):
            return self.mlp2_down(linear_gelu(self.mlp2_up, x))
        return self.mlp2_down(tanh_gelu(self.mlp2_up(x)))


def over_time(
    x: Tensor,  # [N, T, 1 or M, C]
    convolution: nn.Conv1d,  # depthwise, C or M * C inputs, M * C outputs
    back: int,  # frames that it looks back; the others of `REACH` it looks ahead
    # [N, back, 1 or M, C]: the frames before, which become those before the next; None is zeros
    past: Tensor | None = None,
) -> Tensor:  # [N, T, M, C]
    """The output of the convolution, with channel c * M + m at [m, c]; zeros beyond the ends."""
    channels = x.shape[-1]
    taps = convolution.weight.view(channels, -1, KERNEL).permute(2, 1, 0).contiguous()  # [3, M, C]
    bias = bias_of(convolution).view(channels, -1).T.contiguous()
    if past is None and torch.is_grad_enabled():
        return _TrainedOverTime.apply(x, taps, bias, back)
    return weighted_shifts(x, taps, bias, back, past)


class _TrainedOverTime(torch.autograd.Function):
    """The same for training: gradients are sums of shifted rows too, each of which autograd would
    copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor, back: int) -> Tensor:
        ctx.save_for_backward(x, taps)
        ctx.back = back
        return weighted_shifts(x, taps, bias, back, None)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (slope,), (x, taps), back = slopes, ctx.saved_tensors, ctx.back
        frames = slope.shape[1]
        of_x = slope * taps[back]
        of_taps = [torch.empty(0)] * KERNEL
        for index, shift in enumerate(range(back, back - KERNEL, -1)):
            later = slice(max(shift, 0), frames + min(shift, 0))
            earlier = slice(max(-shift, 0), max(0, frames - max(shift, 0)))
            if shift:
                of_x[:, earlier].addcmul_(slope[:, later], taps[index])
            of_taps[index] = (slope[:, later] * x[:, earlier]).sum((0, 1))
        if x.shape[2] == 1:
            of_x = of_x.sum(2, keepdim=True)
        return of_x, torch.stack(of_taps), slope.sum((0, 1)), None


def weighted_shifts(
    x: Tensor, taps: Tensor, bias: Tensor, back: int, past: Tensor | None
) -> Tensor:
    """`over_time` with the convolution's weights as taps [3, M, C] and bias [M, C]."""
    frames = x.shape[1]
    y = torch.addcmul(bias, x, taps[back])
    for tap, shift in zip(taps, range(back, back - KERNEL, -1), strict=True):
        if shift > 0:
            y[:, shift:].addcmul_(x[:, :-shift], tap)
        elif shift < 0:
            y[:, :shift].addcmul_(x[:, -shift:], tap)
        if shift > 0 and past is not None:
            before = past[:, back - shift :][:, :frames]
            y[:, : before.shape[1]].addcmul_(before, tap)
    if past is not None:
        past.copy_(torch.cat([past, x[:, -back:]], 1)[:, -back:])
    return y
