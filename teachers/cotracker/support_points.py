"""Support points: queries that nobody asked for, which let a tracker that attends between tracks
see how the scene moves.

A CoTracker tracks them beside the real queries, and their tracks are thrown away. All are (t, x, y)
in px of the raster on which the network runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 1 / 64
"""The margin on each of the four sides of a grid, as a share of its width."""


def grid_points(
    side: int,
    size: tuple[float, float],  # height, width in px
    centre: tuple[float, float],  # x, y
) -> Tensor:  # [side**2, 3]
    """`side` x `side` points in frame 0, row by row from the top, over a rectangle around `centre`;
    with a `side` of 1, one point at `centre`."""
    (height, width), (x, y) = size, centre
    margin = width * MARGIN
    if side == 1:
        return torch.tensor([[0.0, x, y]])
    xs = torch.linspace(x - width / 2 + margin, x + width / 2 - margin, side)
    ys = torch.linspace(y - height / 2 + margin, y + height / 2 - margin, side)
    rows, columns = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([torch.zeros_like(rows), columns, rows], -1).view(-1, 3)


def frame_grid(side: int, height: int, width: int) -> Tensor:  # [side**2, 3]
    """`grid_points` over a whole frame."""
    return grid_points(side, (height, width), (width / 2, height / 2))


def random_points(
    count: int, frames: int, height: int, width: int, seed: int
) -> Tensor:  # [count, 3]
    """Points drawn uniformly over space and time; equal seeds give equal points."""
    share = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    points = share * torch.tensor([frames, width - 1, height - 1])
    points[:, 0].floor_()
    return points
