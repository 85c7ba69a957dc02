"""Correlation of a query's features with the cells around a place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from teachers.layers.correlation import correlate_cells, correlate_maps


@pytest.mark.parametrize("correlate", [correlate_maps, correlate_cells])
def test_correlations_are_products_with_sampled_features(correlate):
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 6, 9, 4, generator=draw, dtype=torch.float64)
    features = torch.randn(2, 5, 3, 4, generator=draw, dtype=torch.float64)
    xy = torch.rand(2, 5, 3, 2, generator=draw, dtype=torch.float64) * 14 - 3  # outside too
    xy[0, 0, 0] = torch.tensor([9.0, 0.5])  # on the border, and on a cell's centre
    ours = correlate(grid, features, xy, radius=2)
    steps = range(-2, 3)
    # [2, 5, 3, 25, 2]
    at = torch.stack([xy + xy.new_tensor([dx, dy]) for dy in steps for dx in steps], -2)
    places = at.transpose(1, 2).flatten(0, 1) * 2 / torch.tensor([9, 6]) - 1
    # [6, 4, 5, 25]
    sampled = F.grid_sample(grid.flatten(0, 1).permute(0, 3, 1, 2), places, align_corners=False)
    sampled = sampled.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2)
    torch.testing.assert_close(ours, (sampled @ features[..., None])[..., 0])
