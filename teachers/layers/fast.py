"""Fast layers: faster forms of layers that torch computes slowly on a CPU.

Winograd convolution: a square of 2 x 2 outputs of a 3 x 3 convolution depends on 4 x 4 inputs.
Computed directly that takes 36 products; 16 products of sums of inputs with sums of taps give the
same (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308, F(2 x 2, 3 x 3)). The two-dimensional
rule is that for two outputs in a row along columns, then along rows. The sums are passes over
memory, so this pays only with many channels: on a CPU, 256 to 1024 channels take two thirds of the
time of torch's convolution, and 128 to 128 take as long. No gradient flows through it.
`test_fast.py` holds the two equal.

Activations: GELU with the tanh approximation, alone and at the end of a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def winograd_taps(weight: Tensor) -> Tensor:  # [O, I, 3, 3] of a convolution -> [16, I, O]
    """The sums of taps that `winograd_convolution` multiplies by."""
    rule = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    both = torch.einsum("ar,bc->barc", rule, rule).reshape(16, 9)  # columns first
    outputs, inputs = weight.shape[:2]
    return (both @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(16, inputs, outputs)


def winograd_convolution(
    x: Tensor, taps: Tensor
) -> Tensor:  # [F, h, w, I], [16, I, O] -> [F, h, w, O]
    """The convolution with one cell of zeros around the map, without its bias."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 1, 1 + width % 2, 1, 1 + height % 2))  # to whole squares of outputs
    sums = _sums(_sums(x, 1), 3)  # [columns 4, rows 4, F, h / 2, w / 2, I]
    frames, rows, columns = sums.shape[2:5]
    products = (sums.flatten(2, 4).flatten(0, 1) @ taps).view(4, 4, frames, rows, columns, -1)
    half = products.new_empty(2, 4, frames, rows, columns, products.shape[-1])
    _outputs(products, half[0], half[1])
    y = products.new_empty(frames, rows, 2, columns, 2, products.shape[-1])
    for column in (0, 1):
        _outputs(half[column], y[:, :, 0, :, column], y[:, :, 1, :, column])
    return y.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def _sums(x: Tensor, axis: int) -> Tensor:  # -> [4, ...], half as long along the axis, less one
    """The sums of the four inputs of each pair of outputs."""
    even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    pairs = even.shape[axis] - 1
    a, b, c, d = (
        even.narrow(axis, 0, pairs),
        odd.narrow(axis, 0, pairs),
        even.narrow(axis, 1, pairs),
        odd.narrow(axis, 1, pairs),
    )
    sums = x.new_empty(4, *a.shape)
    torch.sub(a, c, out=sums[0])
    torch.add(b, c, out=sums[1])
    torch.sub(c, b, out=sums[2])
    torch.sub(b, d, out=sums[3])
    return sums


def _outputs(products: Tensor, even: Tensor, odd: Tensor) -> None:  # [4, ...], [...], [...]
    """Write pairs of outputs from their four products."""
    first, both, difference, last = products
    torch.add(first, both, out=even).add_(difference)
    torch.sub(both, difference, out=odd).sub_(last)


def bias_of(layer: nn.Conv1d | nn.Conv2d) -> Tensor:
    """The bias of a layer that has one."""
    return cast(Tensor, layer.bias)


def fast_convolution(convolution: nn.Conv2d, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The fastest form of a 3 x 3 convolution of many channels for maps like x: [F, C, h, w],
    channels-last."""
    if x.device.type != "cpu" or x.dtype == torch.bfloat16 or torch.is_grad_enabled():
        return convolution
    taps, bias = winograd_taps(convolution.weight), bias_of(convolution)

    def convolved(maps: Tensor) -> Tensor:
        return winograd_convolution(maps.permute(0, 2, 3, 1), taps).add_(bias).permute(0, 3, 1, 2)

    return convolved


_SLOPE = 2 * math.sqrt(2 / math.pi)

_CUBIC = 0.044715


def tanh_gelu(x: Tensor) -> Tensor:
    """`F.gelu(x, approximate="tanh")`, written as x * sigmoid(2 z) because (1 + tanh(z)) / 2 =
    sigmoid(2 z).

    On a CPU torch's sigmoid is six times faster than its tanh, and this twice as fast as its GELU;
    on a GPU its GELU is one kernel.
    """
    if x.device.type != "cpu" or x.dtype == torch.bfloat16 or x.requires_grad:
        return F.gelu(x, approximate="tanh")
    slope = torch.addcmul(x.new_tensor(_SLOPE), x, x, value=_SLOPE * _CUBIC)
    return slope.mul_(x).sigmoid_().mul_(x)


def linear_gelu(layer: nn.Linear, x: Tensor) -> Tensor:  # [..., inputs] -> [..., outputs]
    """`tanh_gelu(layer(x))`, on a GPU in one kernel: a product that ends in a GELU (there the tanh
    approximation, on a CPU torch takes the exact one). In the type of the layer's weights. No
    gradient flows through it."""
    if not x.is_cuda:
        return tanh_gelu(layer(x))
    rows = x.flatten(0, -2).to(layer.weight.dtype)
    y: Tensor = torch._addmm_activation(layer.bias, rows, layer.weight.mT, use_gelu=True)
    return y.unflatten(0, x.shape[:-1])


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y; y is what was just computed from x, and is overwritten where nobody needs it."""
    if torch.is_grad_enabled() or x.dtype != y.dtype:
        return x + y
    return y.add_(x)
