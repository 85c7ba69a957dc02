"""Time convolution: each frame of a track mixed with its two neighbours, zero beyond the ends.

Speed: two neighbouring outputs of a convolution with three taps share two of their four inputs. Four products of sums give both,
where six would do it plainly (Winograd 1980, minimal filtering F(2, 3)); over [C, O] matrices of taps that saves a third of the
arithmetic. `test_pips2.py` holds it equal to torch's convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeConvolution(nn.Module):
    """Convolution over three frames. `kernel` does once what does not change while the weights don't."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3)

    def kernel(self) -> Tensor:  # [4, inputs, outputs]
        """The sums of taps that `forward` multiplies with."""
        before, here, after = self.conv.weight.unbind(2)
        outer, inner = (before + after) / 2, here / 2
        return torch.stack([before, outer + inner, outer - inner, after]).mT

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:  # [P, S, inputs] -> [P, S, outputs]
        points, frames = x.shape[:2]
        assert self.conv.bias is not None
        x = F.pad(x, (0, 0, 1, 1 + frames % 2))  # to whole pairs of outputs
        even, odd = x[:, 0::2], x[:, 1::2]
        a, b, c, d = even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]  # the inputs of each pair
        products = torch.stack([a - c, b + c, c - b, b - d]).flatten(1, 2) @ kernel  # [4, P * pairs, outputs]
        first, both, difference, last = products.unflatten(1, (points, -1))
        pairs = torch.stack([first + both + difference, both - difference - last], 2)  # [P, pairs, 2, outputs]
        return pairs.flatten(1, 2)[:, :frames] + self.conv.bias


def norm_over_time(x: Tensor) -> Tensor:  # [P, S, C]
    """Every channel of every point to mean 0 and variance 1."""
    x = x - x.mean(1, keepdim=True)
    return x * (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()
