"""Winograd convolution with larger squares: 3 x 3 taps with a quarter of the products.

A square of 4 x 4 outputs needs 6 x 6 inputs, and 36 products of sums instead of 144 plain products
(Lavin and Gray 2016, arXiv 1509.09308, F(4 x 4, 3 x 3); `fast.py` has the smaller squares). The
sums are matrix products too, of 36 x 36 and of 16 x 36 numbers, so with many channels they take
little time: on a CPU, 512 to 192 channels take half the time of torch's convolution, 128 to 512 and
256 to 126 about two thirds. It loses several times as much to rounding as torch does, so it is good
for values that are compared with nothing else, but not for features that are matched. No gradient
flows through it. `test_winograd.py` holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.fast import bias_of

OF_INPUTS = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
OF_TAPS = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
OF_PRODUCTS = (
    (1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1),
)  # fmt: skip


def _both_ways(rule: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """From a rule along one axis to the rule along rows and columns, [m * m, n * n]."""
    one = torch.tensor(rule, dtype=torch.float64)
    return torch.kron(one, one).to(like)


def square_taps(weight: Tensor) -> Tensor:  # [O, I, 3, 3] of a convolution -> [36, I, O]
    """The sums of taps that `square_convolution` multiplies by."""
    outputs, inputs = weight.shape[:2]
    taps = weight.double().permute(2, 3, 1, 0).reshape(9, -1)
    both = _both_ways(OF_TAPS, taps)
    return (both @ taps).view(36, inputs, outputs).to(weight.dtype)


def square_convolution(
    x: Tensor, taps: Tensor
) -> Tensor:  # [F, h, w, I], [36, I, O] -> [F, h, w, O]
    """The convolution with one cell of zeros around the map, without its bias."""
    frames, height, width, inputs = x.shape
    x = F.pad(x, (0, 0, 1, 1 - width % -4, 1, 1 - height % -4))  # to whole squares of outputs
    squares = x.unfold(1, 6, 4).unfold(2, 6, 4)  # [F, rows, columns, I, 6, 6]
    rows, columns = squares.shape[1:3]
    cells = squares.permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    sums = (_both_ways(OF_INPUTS, x) @ cells).view(36, -1, inputs)
    products = (sums @ taps).flatten(1)
    y = (_both_ways(OF_PRODUCTS, x) @ products).view(4, 4, frames, rows, columns, -1)
    y = y.permute(2, 3, 0, 4, 1, 5).reshape(frames, 4 * rows, 4 * columns, -1)
    return y[:, :height, :width]


def square_form(
    weight: Tensor, bias: Tensor, x: Tensor
) -> Callable[[Tensor], Tensor] | None:  # both ways [F, h, w, C]
    """A faster form of a 3 x 3 convolution of many channels, for maps on the device of x; None if
    there is none."""
    if x.device.type != "cpu" or x.dtype == torch.bfloat16 or torch.is_grad_enabled():
        return None
    taps = square_taps(weight)
    return lambda maps: square_convolution(maps, taps).add_(bias)


def square_form_of(convolution: nn.Conv2d, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """`square_form` of a module."""
    return square_form(convolution.weight, bias_of(convolution), x)
