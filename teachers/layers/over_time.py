"""Over time: convolution and norm of the features of a track, each point for itself.

In the convolution each frame is mixed with its two neighbours, with zeros beyond the ends. On a
CPU, neighbouring outputs share most of their inputs, and products of sums give them with less
arithmetic (Winograd 1980, minimal filtering; Lavin and Gray 2016, arXiv 1509.09308): four products
for two outputs instead of six, F(2, 3), or six for four instead of twelve, F(4, 3). `test_pips2.py`
holds both equal to torch's convolution. A GPU runs that itself: the passes over its memory that the
sums take cost it more than the products.

Points whose tracks end in different frames are computed together as tracks of one length
(`TrackLengths`), of which what lies beyond the end is kept out of the norm and of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.branch import for_gpu_inference
from teachers.layers.fast import added, bias_of
from teachers.layers.winograd import OF_INPUTS, OF_PRODUCTS, OF_TAPS


class TimeConvolution(nn.Module):
    """Convolution over three frames. `kernel` computes once what stays the same as long as the
    weights do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3)

    def kernel(self) -> Tensor:  # [4 or 6, inputs, outputs]; on a GPU [outputs, inputs, 3]
        """The sums of taps that `forward` multiplies by: six for four outputs, or four for two
        where gradients flow; on a GPU the taps themselves."""
        weight = self.conv.weight
        if for_gpu_inference(weight):
            return weight
        if not torch.is_grad_enabled():
            taps = weight.new_tensor(OF_TAPS) @ weight.flatten(0, 1).mT
            return taps.view(6, *weight.shape[:2]).mT.contiguous()
        before, here, after = weight.unbind(2)
        outer, inner = (before + after) / 2, here / 2
        return torch.stack([before, outer + inner, outer - inner, after]).mT

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:  # [P, S, inputs] -> [P, S, outputs]
        if for_gpu_inference(x):
            return F.conv1d(x.mT, kernel, self.conv.bias, padding=1).mT
        y = _fours(x, kernel) if len(kernel) == len(OF_TAPS) else _pairs(x, kernel)
        return added(bias_of(self.conv), y[:, : x.shape[1]])


def _pairs(x: Tensor, kernel: Tensor) -> Tensor:
    """Two outputs from four sums; one output too many where the number of frames is odd."""
    points, frames = x.shape[:2]
    x = F.pad(x, (0, 0, 1, 1 + frames % 2))
    even, odd = x[:, 0::2], x[:, 1::2]
    a, b, c, d = even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]  # the inputs of each pair
    # [4, P * pairs, outputs]
    products = torch.stack([a - c, b + c, c - b, b - d]).flatten(1, 2) @ kernel
    first, both, difference, last = products.unflatten(1, (points, -1))
    # [P, pairs, 2, outputs]
    return torch.stack([first + both + difference, both - difference - last], 2).flatten(1, 2)


def _fours(x: Tensor, kernel: Tensor) -> Tensor:
    """Four outputs from six sums; up to three too many. In the type of the kernel, even where
    others multiply in bf16, which has too few digits for these sums."""
    points, frames = x.shape[:2]
    with torch.autocast(x.device.type, enabled=False):
        x = F.pad(x.to(kernel.dtype), (0, 0, 1, 1 + -frames % 4))
        fours = x.unfold(1, 6, 4).transpose(2, 3).flatten(0, 1)  # [P * fours, 6, inputs]
        sums = x.new_tensor(OF_INPUTS).expand(len(fours), 6, 6) @ fours
        products = sums.transpose(0, 1) @ kernel  # [6, P * fours, outputs]
        y = x.new_tensor(OF_PRODUCTS).expand(len(fours), 4, 6) @ products.transpose(0, 1)
        return y.view(points, -1, y.shape[-1])


@dataclass(frozen=True)
class TrackLengths:
    """In how many of S frames each of P points has a track; it begins in the first."""

    inside: Tensor
    """[P, S, 1] 1 in these frames, 0 in the others"""
    frames: Tensor
    """[P, 1, 1] how many they are, 1 at least"""

    @staticmethod
    def of(frames: Tensor, steps: int, like: Tensor) -> TrackLengths:
        """Of points with so many `frames` [P] of `steps`, in the type of `like`."""
        inside = torch.arange(steps, device=frames.device) < frames[:, None]
        return TrackLengths(inside[..., None].to(like.dtype), frames[:, None, None].to(like.dtype))

    def only(self, x: Tensor) -> Tensor:  # [P, S, C] -> [P, S, C]
        """x, with zeros beyond the ends of the tracks."""
        return x * self.inside.to(x.dtype)


def norm_over_time(x: Tensor, lengths: TrackLengths | None = None) -> Tensor:  # [P, S, C]
    """Normalise every channel of every point to mean 0 and variance 1; with `lengths`, over the
    frames of its track alone, and beyond its end the answer is 0."""
    if lengths is not None:
        return _norm_of_tracks(lengths.only(x), lengths)
    x = x - x.mean(1, keepdim=True)
    if for_gpu_inference(x):
        return x.mul_((_squares(x) / x.shape[1] + 1e-5).rsqrt_())
    if not torch.is_grad_enabled():
        return x.mul_((x.square().mean(1, keepdim=True) + 1e-5).rsqrt_())
    return x * (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()


def _norm_of_tracks(x: Tensor, lengths: TrackLengths) -> Tensor:
    """`norm_over_time` of x that is 0 beyond the ends."""
    mean = (x.sum(1, keepdim=True) / lengths.frames).to(x.dtype)
    x = torch.addcmul(x, lengths.inside.to(x.dtype), mean, value=-1)
    return x * (_squares(x) / lengths.frames + 1e-5).rsqrt().to(x.dtype)


def _squares(x: Tensor) -> Tensor:  # [P, S, C] -> [P, 1, C]
    """The sum of squares over time, in one pass over x."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).square().to(x.dtype)
