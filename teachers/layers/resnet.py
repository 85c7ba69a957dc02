"""ResNet: the pre-activation ResNet of TAPIR and LocoTrack, from a frame to feature maps at strides
2, 4, and 8.

It consists of groups of residual blocks, with norms and rectifiers before the convolutions (TAPIR,
section 3.1 and appendix). Norms take their statistics from one frame, so frames can be encoded in
blocks of any size. Convolutions with a stride are padded as "SAME" does for even sizes: more at the
right and at the bottom.

Speed: everything runs channels-last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (1, 2, 2, 1)
"""Strides of the groups; the first convolution, before them, has stride 2."""


def same_padding(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """[F, C, h, w] padded for an unpadded convolution of stride 2 that halves even sizes."""
    before = convolution.kernel_size[0] // 2 - 1
    after = convolution.kernel_size[0] - 1 - before
    return F.pad(x, (before, after, before, after))


class InstanceNorm(nn.Module):
    """Normalise every channel of every frame to mean 0 and variance 1, then scale and shift it.

    This is the same as `F.instance_norm`, but several times faster on channels-last maps. Torch's
    group norm is faster still, but it computes the variance as E[x**2] - E[x]**2, which loses ten
    times as much to float32 rounding.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, rectify: bool = False) -> Tensor:  # [F, C, h, w]
        """With `rectify`, a ReLU follows, in place."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _TrainedNorm.apply(x, self.weight, self.bias, self.eps, rectify)
        y = self.normalised(x)
        return y.relu_() if rectify else y

    def normalised(self, x: Tensor) -> Tensor:  # [F, C, h, w]
        """What `forward` computes, in plain operations."""
        x = x.permute(0, 2, 3, 1)
        x = x - x.mean((1, 2), keepdim=True)
        scale = self.weight * (x.square().mean((1, 2), keepdim=True) + self.eps).rsqrt()
        return torch.addcmul(self.bias, x, scale).permute(0, 3, 1, 2)


class _TrainedNorm(torch.autograd.Function):
    """Norm and rectifier for training, with gradients written by hand: this takes half the time of
    autograd, which goes over large maps a dozen times."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, rectify: bool
    ) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # [F, h * w, C]
        rows = rows - rows.mean(1, keepdim=True)
        inverse = (_along(rows, rows) / rows.shape[1] + eps).rsqrt()
        y = torch.addcmul(bias, rows, weight * inverse)
        if rectify:
            y = y.relu_()
        ctx.save_for_backward(rows, inverse, weight, y if rectify else None)
        return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, inverse, weight, y = ctx.saved_tensors
        slope = slopes[0].permute(0, 2, 3, 1)
        height = slope.shape[1]
        slope = slope.flatten(1, 2)
        if y is not None:
            slope = torch.ops.aten.threshold_backward(slope, y, 0)
        total = slope.new_ones(1, slope.shape[1]) @ slope  # [F, 1, C]
        along = _along(slope, rows) * inverse
        scale = weight * inverse
        found = torch.addcmul(-scale * total / rows.shape[1], slope, scale)
        found = found.addcmul_(rows, -scale * inverse * along / rows.shape[1])
        found = found.unflatten(1, (height, -1)).permute(0, 3, 1, 2)
        return found, along.sum((0, 1)), total.sum((0, 1)), None, None


def _along(x: Tensor, y: Tensor) -> Tensor:  # [F, P, C] each -> [F, 1, C]
    """Sums of products over P: a matrix product of few channels is faster than a sum of rows."""
    return (x.mT @ y).diagonal(dim1=1, dim2=2)[:, None]


class PreActivationBlock(nn.Module):
    """Twice: norm, ReLU, 3 x 3 convolution. The projection of a group's first block sees the
    normalised, rectified input."""

    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.bn_0 = InstanceNorm(inputs)
        self.conv_0 = nn.Conv2d(
            inputs, outputs, 3, stride, padding=0 if stride > 1 else 1, bias=False
        )
        self.bn_1 = InstanceNorm(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.proj_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projection else None

    def forward(
        self, x: Tensor
    ) -> Tensor:  # [F, inputs, h, w] -> [F, outputs, h / stride, w / stride]
        y = self.bn_0(x, rectify=True)
        shortcut = x if self.proj_conv is None else self.proj_conv(y)
        y = self.conv_0(y if self.conv_0.stride == (1, 1) else same_padding(y, self.conv_0))
        return self.conv_1(self.bn_1(y, rectify=True)).add_(shortcut)


class BlockGroup(nn.Module):
    """Residual blocks of one width; the first has the stride and a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, blocks: int) -> None:
        super().__init__()
        first = PreActivationBlock(inputs, outputs, stride, projection=True)
        rest = (
            PreActivationBlock(outputs, outputs, 1, projection=False) for _ in range(blocks - 1)
        )
        self.blocks = nn.Sequential(first, *rest)

    def forward(
        self, x: Tensor
    ) -> Tensor:  # [F, inputs, h, w] -> [F, outputs, h / stride, w / stride]
        return self.blocks(x)


class PreActivationResNet(nn.Module):
    """From frames to the maps of the first group (stride 2), the second (4), and the fourth (8).

    With `finest_channels`, it also has the layers of `finest`, which no published network has.
    """

    def __init__(
        self, groups: tuple[int, int, int, int], blocks: int, finest_channels: int = 0
    ) -> None:
        super().__init__()
        self.initial_conv = nn.Conv2d(3, groups[0], 7, 2, bias=False)
        widths = (groups[0], *groups)
        self.block_groups = nn.ModuleList(
            BlockGroup(inputs, outputs, stride, blocks)
            for inputs, outputs, stride in zip(widths[:-1], widths[1:], STRIDES, strict=True)
        )
        if finest_channels:
            self.finest_norm = InstanceNorm(groups[0])
            self.finest_conv = nn.Conv2d(groups[0], finest_channels, 3, padding=1, bias=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[F, 3, H, W] in [-1, 1], H and W multiples of 8, to [F, C, H / s, W / s] for s = 2, 4, 8,
        all channels-last."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        x = self.initial_conv(same_padding(frames, self.initial_conv))
        first, second, third, fourth = self.block_groups
        shallow = first(x)
        fine = second(shallow)
        return shallow, fine, fourth(third(fine))

    def finest(self, shallow: Tensor) -> Tensor:
        """The first group's map to one that describes points, both of stride 2."""
        return self.finest_conv(self.finest_norm(shallow, rectify=True))
