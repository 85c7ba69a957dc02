"""Sampling: square windows of a feature map around sub-pixel points.

Coordinates are (x, y) in cells of the map, an integer is a cell's centre, and what lies outside is
the nearest border cell: the same as `torch.nn.functional.grid_sample(align_corners=True,
padding_mode="border")`, which the test compares.

All samples of a window share one sub-cell offset. So a window is cut in two steps: gather the whole
cells around the point (one more a side), then blend neighbours. The blend is linear, so whoever
multiplies the window with something may multiply the cells first and blend the (smaller) products;
CoTracker's correlation does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_cells(
    grid: Tensor,  # [B, T, h, w, C]
    frame: Tensor,  # [B or 1, N or 1, S] integer in [0, T)
    xy: Tensor,  # [B, N, S, 2] cells of the map
    radius: int,
) -> Tensor:  # [B, N, S, (2 radius + 2)**2, C]
    """Whole cells from `floor(xy) - radius` to `floor(xy) + radius + 1`; the first of the two
    window axes moves x, the second y."""
    batch, frames, height, width, channels = grid.shape
    steps = torch.arange(-radius, radius + 2, device=xy.device)
    corner = xy.floor().long()
    column = (corner[..., 0, None] + steps).clamp(0, width - 1)  # [B, N, S, 2 radius + 2]
    row = (corner[..., 1, None] + steps).clamp(0, height - 1)
    clip = torch.arange(batch, device=xy.device)[:, None, None]
    first = (clip * frames + frame) * (height * width)  # index of each map's first cell
    index = first[..., None, None] + row[..., None, :] * width + column[..., :, None]
    return (
        grid.flatten(0, 3)
        .index_select(0, index.flatten())
        .view(*xy.shape[:-1], len(steps) ** 2, channels)
    )


def blend_cells(
    cells: Tensor,  # [..., (2 radius + 2)**2, C] of `gather_cells`, or products of them
    xy: Tensor,  # [..., 2] the points that they were gathered for
    radius: int,
) -> Tensor:  # [..., (2 radius + 1)**2, C]
    """Bilinear samples at `xy + (i, j)` for i, j in -radius..radius."""
    side = 2 * radius + 2
    along_x, along_y = (xy - xy.floor())[..., None, None, None].unbind(-4)
    cells = cells.unflatten(-2, (side, side)).to(along_x.dtype)
    cells = torch.lerp(cells[..., :-1, :, :], cells[..., 1:, :, :], along_x)
    cells = torch.lerp(cells[..., :-1, :], cells[..., 1:, :], along_y)
    return cells.flatten(-3, -2)


def sample_windows(grid: Tensor, frame: Tensor, xy: Tensor, radius: int) -> Tensor:
    """[B, N, S, (2 radius + 1)**2, C]: windows around `xy` in the maps of `frame`; arguments as for
    `gather_cells`."""
    return blend_cells(gather_cells(grid, frame, xy, radius), xy, radius)
