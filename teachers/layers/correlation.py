"""Correlation: products of what a point looked like with the cells around where it may be now.

Positions are in cells of the grid. Features are bilinear between cells and zero outside the grid.

Templates    `correlate_templates`: a point has several templates and moves through frames of its
             own, so that points whose windows begin in different frames can be computed together
             (PIPs, arXiv 2204.04153; PIPs++, arXiv 2307.15055). An integer is the centre of a
             cell; the steps of a window move y fastest.
One feature  `correlate`: a point has one feature in each frame (TAPIR, arXiv 2306.08637). Corner
             raster: the centre of the first cell is (0.5, 0.5); rows from the top, x fastest.

Speed: for templates, the whole cells around a point are gathered once for all of them, and products
are blended, not features. A template must be contiguous in memory, and its transpose a view: one
template is then multiplied five times faster. For one feature, there are two ways. The product with
EVERY cell of a frame is a single matrix product for all points, which on a small grid is cheaper
than gathering the features of 64 cells around each point. On a large grid, gathering is cheaper,
because its cost does not grow with the grid. A GPU samples features, not products, as
`sampling.py` says.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.layers.branch import for_gpu_inference
from teachers.layers.device import constant
from teachers.layers.sampling import (
    WindowOffsets,
    blend_cells,
    gather_cells,
    sample_at_once,
    with_frame,
)


def correlate_templates(
    grid: Tensor,  # [B, T, h, w, C]
    templates: Tensor,  # [B, N, S, M, C]
    frame: Tensor,  # [B or 1, N or 1, S] integer in [0, T)
    xy: Tensor,  # [B, N, S, 2] cells
    radius: int,
) -> Tensor:  # [B, N, S, M, (2 radius + 1)**2]
    """Each template times the features at `xy` + (i, j) for i, j in -radius..radius."""
    if for_gpu_inference(grid):
        offsets = WindowOffsets.around(grid, xy, radius)
        sampled = sample_at_once(grid, with_frame(xy, frame, grid), offsets, zero_outside=True)
        # [B * N * S, W, C] @ [B * N * S, C, M]
        products = sampled.flatten(1, 2).permute(1, 2, 0) @ templates.flatten(0, 2).mT
        return products.mT.unflatten(0, xy.shape[:3])
    height, width = grid.shape[2:4]
    cells = gather_cells(grid, frame, xy, radius)
    products = cells @ templates.contiguous().mT  # [B, N, S, (2 radius + 2)**2, M]
    steps = torch.arange(-radius, radius + 2, device=xy.device)
    column, row = (xy.floor().long()[..., None, :] + steps[:, None]).unbind(-1)
    inside = ((column >= 0) & (column < width))[..., :, None] & ((row >= 0) & (row < height))[
        ..., None, :
    ]
    return blend_cells(products * inside.flatten(-2)[..., None], xy, radius).mT


SMALL = 48 * 48
"""Number of cells of the largest grid on which `correlate_maps` is faster; measured, for 128 and
for 256 channels."""


def correlate(
    grid: Tensor,  # [B, T, h, w, C]
    features: Tensor,  # [B, N, T, C]
    xy: Tensor,  # [B, N, T, 2] cells
    radius: int,
) -> Tensor:  # [B, N, T, (2 radius + 1)**2]
    """The products with one feature, by the faster of the two ways."""
    small = grid.shape[2] * grid.shape[3] <= SMALL
    return (
        correlate_maps(grid, features, xy, radius)
        if small
        else correlate_cells(grid, features, xy, radius)
    )


def correlate_maps(
    grid: Tensor, features: Tensor, xy: Tensor, radius: int, x_by_height: bool = False
) -> Tensor:
    """Multiply with every cell, then sample the products.

    Args:
        x_by_height: scale x by the height of the grid, as the torch release of TAPIR does; this is
            right only on square grids.
    """
    batch, frames, height, width, _ = grid.shape
    maps = features.transpose(1, 2) @ grid.flatten(2, 3).mT  # [B, T, N, h * w]
    steps = torch.arange(-radius, radius + 1, device=xy.device, dtype=xy.dtype)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)  # [rows, columns, 2]
    at = xy.transpose(1, 2).flatten(0, 2)[:, None, None] + around
    positions = 2 * at / constant(at, height if x_by_height else width, height) - 1
    maps = maps.view(-1, 1, height, width)
    sampled = F.grid_sample(
        maps, positions.to(maps.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.view(batch, frames, -1, len(steps) ** 2).transpose(1, 2)


def correlate_cells(grid: Tensor, features: Tensor, xy: Tensor, radius: int) -> Tensor:
    """Gather the whole cells around, multiply, then blend the products."""
    frame = torch.arange(grid.shape[1], device=grid.device)[None, None]
    products = correlate_templates(grid, features[..., None, :], frame, xy - 0.5, radius)[..., 0, :]
    side = 2 * radius + 1
    return products.unflatten(-1, (side, side)).mT.flatten(-2)  # from y fastest to x fastest
