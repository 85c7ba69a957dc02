"""Sampling: square windows of a feature map around sub-pixel points.

Coordinates are (x, y) in cells of the map, an integer is a cell's centre, and what lies outside is
the nearest border cell: the same as `torch.nn.functional.grid_sample(align_corners=True,
padding_mode="border")`, which the test compares.

All samples of a window share one sub-cell offset. So a window is cut in two steps: gather the whole
cells around the point (one more a side), then blend neighbours. The blend is linear, so whoever
multiplies the window with something may multiply the cells first and blend the (smaller) products;
CoTracker's correlation does.

A GPU gets the samples themselves, in one pass over its memory (`sample_at_once`): it neither writes
the cells, nor reads them to blend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.layers.branch import for_gpu_inference
from teachers.layers.device import constant


def gather_cells(
    grid: Tensor,  # [B, T, h, w, C]
    frame: Tensor,  # [B or 1, N or 1, S] integer in [0, T)
    xy: Tensor,  # [B, N, S, 2] cells of the map
    radius: int,
    rounded: Tensor | None = None,  # as `grid`
) -> Tensor:  # [B, N, S, (2 radius + 2)**2, C]
    """Whole cells from `floor(xy) - radius` to `floor(xy) + radius + 1`; the first of the two
    window axes moves x, the second y. With `rounded` (of `rounded_for_products`), they are read
    from there, and the gradient flows to `grid`, unrounded."""
    batch, frames, height, width, channels = grid.shape
    steps = torch.arange(-radius, radius + 2, device=xy.device)
    corner = xy.floor().long()
    column = (corner[..., 0, None] + steps).clamp(0, width - 1)  # [B, N, S, 2 radius + 2]
    row = (corner[..., 1, None] + steps).clamp(0, height - 1)
    clip = torch.arange(batch, device=xy.device)[:, None, None]
    first = (clip * frames + frame) * (height * width)  # index of each map's first cell
    index = first[..., None, None] + row[..., None, :] * width + column[..., :, None]
    rows, index = grid.flatten(0, 3), index.flatten()
    found: Tensor = (
        rows.index_select(0, index)
        if rounded is None
        else _RoundedRows.apply(rows, rounded.flatten(0, 3), index)
    )
    return found.view(*xy.shape[:-1], len(steps) ** 2, channels)


class _RoundedRows(torch.autograd.Function):
    """Rows of a table, read from a copy of it in a shorter type; the gradient is summed in the type
    of the table."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rounded: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return rounded.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
        return total.index_add_(0, index, gradient.to(ctx.dtype)), None, None


def rounded_for_products(pyramid: Sequence[Tensor]) -> list[Tensor] | None:
    """The maps in the type in which autocast multiplies, where it is on and gradients flow; what is
    gathered from them needs not be rounded again in each iteration. None where nothing is gathered,
    or in the type of the maps."""
    kind = pyramid[0].device.type
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled(kind)):
        return None
    shorter = torch.get_autocast_dtype(kind)
    if pyramid[0].dtype == shorter:
        return None
    return [grid.detach().to(shorter) for grid in pyramid]


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
    if for_gpu_inference(grid):
        sampled = sample_at_once(
            grid, with_frame(xy, frame, grid), WindowOffsets.around(grid, xy, radius)
        )
        return sampled.permute(1, 2, 3, 0).unflatten(0, xy.shape[:2])
    return blend_cells(gather_cells(grid, frame, xy, radius), xy, radius)


@dataclass(frozen=True)
class WindowOffsets:
    """Where the samples of a window lie in a grid, as `F.grid_sample` counts: the first cell of an
    axis is -1, the last is 1."""

    window: Tensor
    """[(2 radius + 1)**2, 3] (x, y, frame) of the samples around the very first cell; the second of
    the window's axes moves y."""
    scale: Tensor
    """[3] what a step of the point's x, y, and frame is there."""
    sides: tuple[int, int]
    """h, w of the grid."""

    @staticmethod
    def around(grid: Tensor, like: Tensor, radius: int, cells: float = 1.0) -> WindowOffsets:
        """For a grid [B, T, h, w, C], and points that count in units of so many cells (a half on
        the second level of a pyramid); in the type of `like`."""
        batch, frames, height, width, _ = grid.shape
        # an axis of one cell has no step: all lies on it
        step_x, step_y, step_t = (2 / max(1, n - 1) for n in (width, height, batch * frames))
        steps = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
        x, y = torch.meshgrid(steps * step_x - 1, steps * step_y - 1, indexing="ij")
        window = torch.stack([x, y, torch.full_like(x, -1)], -1).flatten(0, 1)
        scale = constant(like, cells * step_x, cells * step_y, step_t)
        return WindowOffsets(window, scale, (height, width))

    def of(self, at: Tensor) -> Tensor:  # [..., 3] (x, y, frame) -> [..., (2 radius + 1)**2, 3]
        return torch.addcmul(self.window, at[..., None, :], self.scale)


def window_offsets(pyramid: Sequence[Tensor], xy: Tensor, radius: int) -> list[WindowOffsets]:
    """The offsets for each level of a pyramid, whose cells are twice as large as those of the level
    before; none where windows are not sampled at once."""
    if not for_gpu_inference(xy):
        return []
    return [
        WindowOffsets.around(grid, xy, radius, 0.5**level) for level, grid in enumerate(pyramid)
    ]


def with_frame(xy: Tensor, frame: Tensor, grid: Tensor) -> Tensor:
    """Points [B, N, S, 2] and their frames [B or 1, N or 1, S] in the clips of a grid to
    [B, N, S, 3]: (x, y, frame), where the frames of all B clips are counted on."""
    if len(xy) > 1:
        clip = torch.arange(0, len(xy) * grid.shape[1], grid.shape[1], device=xy.device)
        frame = clip[:, None, None] + frame
    return torch.cat([xy, frame.to(xy.dtype).expand(xy.shape[:-1])[..., None]], -1)


def sample_at_once(
    grid: Tensor,  # [B, T, h, w, C]
    at: Tensor,  # [B, N, S, 3] of `with_frame`
    offsets: WindowOffsets,
    zero_outside: bool = False,
) -> Tensor:  # [C, B * N, S, (2 radius + 1)**2]
    """`sample_windows`, in one pass and with channels first, as a product over them takes it: a
    point's samples are then a matrix that need not be copied. With `zero_outside`, features are 0
    beyond the grid.

    The frame is an axis that is sampled too, at whole numbers; rounding mixes in some 1e-5 of the
    frames beside. Fast where the columns of the grid lie side by side in memory.
    """
    maps = grid.flatten(0, 1).permute(3, 0, 1, 2)[None]  # [1, C, B * T, h, w]
    sampled: Tensor = F.grid_sample(
        maps,
        offsets.of(at.flatten(0, 1)[None]),
        padding_mode="zeros" if zero_outside else "border",
        align_corners=True,
    )
    return sampled[0]


def sample_products(
    grid: Tensor,  # [B, T, h, w, C]
    features: Tensor,  # [B, N, T, C]
    xy: Tensor,  # [B, N, T, 2] as `offsets` counts
    offsets: WindowOffsets,
) -> Tensor:  # [B, N, T, (2 radius + 1)**2]
    """Each feature times the samples of a window in its frame: products with EVERY cell, then
    sampled. For grids of few cells."""
    batch, points, frames, _ = xy.shape
    cells = grid.permute(0, 1, 4, 2, 3).flatten(3)  # [B, T, C, h * w]
    products = features.transpose(1, 2) @ cells  # [B, T, N, h * w]
    products = products.view(-1, 1, *offsets.sides)
    at = xy.transpose(1, 2).reshape(-1, 1, 1, 2)
    where = torch.addcmul(offsets.window[:, :2], at, offsets.scale[:2])  # [B * T * N, 1, W, 2]
    sampled = F.grid_sample(products, where, padding_mode="border", align_corners=True)
    return sampled.view(batch, frames, points, -1).transpose(1, 2)
