"""Features read around a place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from teachers.layers.sampling import sample_windows


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_windows_are_those_of_grid_sample(radius):
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 7, 9, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    xy = torch.rand(2, 4, 3, 2, generator=draw, dtype=torch.float64) * 20 - 5  # far outside too
    xy[0, 0, 0] = torch.tensor([2.0, 8.0])  # on a cell
    ours = sample_windows(grid, torch.arange(3)[None, None], xy, radius)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # the first axis moves x
    at = xy[..., None, None, :] + torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    places = at.flatten(3, 4).transpose(1, 2).flatten(0, 1) * 2 / torch.tensor([8, 6]) - 1
    theirs = F.grid_sample(
        grid.flatten(0, 1).permute(0, 3, 1, 2), places, align_corners=True, padding_mode="border"
    )
    theirs = theirs.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2)
    torch.testing.assert_close(ours, theirs)
    pull = torch.randn(ours.shape, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(
        *(torch.autograd.grad(windows, grid, pull)[0] for windows in (ours, theirs))
    )
