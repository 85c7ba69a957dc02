"""Template correlation: products of what a point looked like with the cells around where it may be now.

A point has several templates and moves through frames of its own, so that points whose windows begin in different frames run
together (PIPs, arXiv 2204.04153; PIPs++, arXiv 2307.15055). Positions are in cells of the grid, an integer is a cell's centre.
Bilinear between cells, zero outside the grid; the steps of a window move y fastest.

Speed: the whole cells around a point are gathered once for all its templates, and products are blended, not features. A template
has to be a row in memory, and its transpose a view: then one template is multiplied five times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachers.sampling import blend_cells, gather_cells


def correlate_templates(
    grid: Tensor,  # [B, T, h, w, C]
    templates: Tensor,  # [B, N, S, M, C]
    frame: Tensor,  # [B or 1, N or 1, S] integer in [0, T)
    xy: Tensor,  # [B, N, S, 2] cells
    radius: int,
) -> Tensor:  # [B, N, S, M, (2 radius + 1)**2]
    """Each template times the features at `xy` + (i, j) for i, j in -radius..radius."""
    height, width = grid.shape[2:4]
    cells = gather_cells(grid, frame, xy, radius)
    products = cells @ templates.contiguous().mT  # [B, N, S, (2 radius + 2)**2, M]
    steps = torch.arange(-radius, radius + 2, device=xy.device)
    column, row = (xy.floor().long()[..., None, :] + steps[:, None]).unbind(-1)
    inside = ((column >= 0) & (column < width))[..., :, None] & ((row >= 0) & (row < height))[..., None, :]
    return blend_cells(products * inside.flatten(-2)[..., None], xy, radius).mT
