"""The convolution with fewer products is torch's."""

from __future__ import annotations

import pytest
import torch

from teachers.layers.fast import winograd_convolution, winograd_taps


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9), (1, 1), (1, 4), (5, 2)])
def test_it_is_the_convolution_of_torch(height, width):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, height, width, 5, generator=draw, dtype=torch.float64)
    plain = torch.nn.Conv2d(5, 4, 3, padding=1, bias=False).double()
    theirs = plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(winograd_convolution(x, winograd_taps(plain.weight)), theirs)


@torch.no_grad()
def test_in_float32_it_rounds_little_more_than_torch():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 16, 256, generator=draw)
    plain = torch.nn.Conv2d(256, 64, 3, padding=1, bias=False)
    exact = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2).double(), plain.weight.double(), padding=1
    ).permute(0, 2, 3, 1)
    ours = winograd_convolution(x, winograd_taps(plain.weight))
    theirs = plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert (ours - exact).abs().max() < 4 * (theirs - exact).abs().max()
