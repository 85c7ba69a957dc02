"""Refinement: correct a track again and again by what lies around it (TAPIR, section 3.3).

In every iteration, products of the point's feature with the 7 x 7 cells around its position, on
each grid of a pyramid, go through a mixer over time, which corrects position, logits, and feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from teachers.layers.correlation import correlate, correlate_maps
from teachers.layers.device import constant
from teachers.layers.resolutions import Size
from teachers.tapir.config import TapirConfig
from teachers.tapir.matching import sides_of
from teachers.tapir.mixer import Past, TemporalMixer


def refine(
    config: TapirConfig,
    mixer: TemporalMixer,
    grids: Sequence[Tensor],  # of `TapirFeatures`, [B, T, h, w, C] each
    resolution: Size,
    described: Tensor,  # [B, N, channels of all grids]
    start: Tensor,  # [B, N, T, 4] px of the raster, logits
    first: Tensor | None = None,  # [B, N, iterations, ...] of a `Past`; B must be 1
    second: Tensor | None = None,  # the same
) -> Tensor:  # [B, N, iterations, T, 4]
    """The tracks after every iteration at one resolution.

    A causal network takes what its mixer remembers of the frames before from `first` and `second`,
    which are updated.
    """
    raster = config.raster
    xy, logits = start.split(2, -1)
    batch, _, frames, _ = xy.shape
    move_scale = raster / constant(xy, *resolution[::-1])
    # [B, N, T, channels of all grids]
    point = described[:, :, None].expand(-1, -1, frames, -1)
    correlated = partial(correlate_maps, x_by_height=True) if config.official_quirks else correlate
    unused = torch.zeros_like(xy)  # where PIPs had the position
    steps = []
    for iteration in range(config.iterations):
        past = (
            None
            if first is None or second is None
            else Past(first[0, :, iteration], second[0, :, iteration])
        )
        parts = list(point.split(config.channels, -1))
        parts += parts[-1:] * config.pyramid_levels
        correlations = [
            correlated(grid, part, xy / raster * sides_of(grid, xy), config.radius)
            for grid, part in zip(grids, parts, strict=True)
        ]
        inputs = torch.cat([unused, logits, point, *correlations], -1)
        change = mixer(inputs.flatten(0, 1), past).unflatten(0, (batch, -1))
        xy = xy + change[..., :2] * move_scale
        logits = logits + change[..., 2:4]
        point = point + change[..., 4:]
        steps.append(torch.cat([xy, logits], -1))
    return torch.stack(steps, 2)
