"""Layers whose slopes are written by hand for training: equal to the plain operations, and to what
finite differences say."""

from __future__ import annotations

import pytest
import torch

from teachers.layers.resnet import InstanceNorm, _TrainedNorm
from teachers.tapir.mixer import KERNEL, MixerBlock, _TrainedOverTime, weighted_shifts


@pytest.mark.parametrize("rectify", [False, True])
def test_the_slopes_of_the_norm_are_those_of_finite_differences(rectify):
    torch.manual_seed(0)
    norm = InstanceNorm(5).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, 5, 6, 4, dtype=torch.double, requires_grad=True)

    def trained(x, weight, bias):
        return _TrainedNorm.apply(x, weight, bias, norm.eps, rectify)

    assert torch.autograd.gradcheck(trained, (x, norm.weight, norm.bias))
    plain = norm.normalised(x).relu() if rectify else norm.normalised(x)
    torch.testing.assert_close(norm(x, rectify), plain)
    with torch.no_grad():
        torch.testing.assert_close(norm(x, rectify), plain)


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("back", [1, 2])
@pytest.mark.parametrize("inputs", [1, 3])
def test_the_slopes_of_the_convolution_over_time_are_those_of_finite_differences(
    frames, back, inputs
):
    torch.manual_seed(0)
    x = torch.randn(2, frames, inputs, 4, dtype=torch.double, requires_grad=True)
    taps = torch.randn(KERNEL, 3, 4, dtype=torch.double, requires_grad=True)
    bias = torch.randn(3, 4, dtype=torch.double, requires_grad=True)

    def trained(x, taps, bias):
        return _TrainedOverTime.apply(x, taps, bias, back)

    assert torch.autograd.gradcheck(trained, (x, taps, bias))
    torch.testing.assert_close(trained(x, taps, bias), weighted_shifts(x, taps, bias, back, None))


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_gives_the_same_with_slopes_and_without(causal):
    torch.manual_seed(0)
    block, x = MixerBlock(16, 2, causal), torch.randn(3, 9, 16)
    with torch.no_grad():
        without = block(x, None)
    torch.testing.assert_close(block(x, None), without)
