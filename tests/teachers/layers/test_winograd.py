"""The convolution over squares of 4 x 4 outputs is torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from teachers.layers.winograd import square_convolution, square_form_of, square_taps


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 9), (1, 1), (4, 5), (6, 2)])
def test_it_is_the_convolution_of_torch(height, width):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, height, width, 5, generator=draw, dtype=torch.float64)
    plain = torch.nn.Conv2d(5, 4, 3, padding=1).double()
    theirs = plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(square_form_of(plain, x)(x), theirs)


@torch.no_grad()
def test_in_float32_it_rounds_some_times_more_than_torch():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 16, 256, generator=draw)
    plain = torch.nn.Conv2d(256, 64, 3, padding=1, bias=False)
    maps = x.permute(0, 3, 1, 2)
    exact = F.conv2d(maps.double(), plain.weight.double(), padding=1).permute(0, 2, 3, 1)
    ours = square_convolution(x, square_taps(plain.weight))
    theirs = plain(maps).permute(0, 2, 3, 1)
    assert (ours - exact).abs().max() < 20 * (theirs - exact).abs().max()


def test_where_gradients_flow_it_is_not_used():
    plain = torch.nn.Conv2d(5, 4, 3, padding=1)
    assert square_form_of(plain, torch.zeros(1, 4, 4, 5)) is None
