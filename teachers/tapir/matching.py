"""Matching: where each frame alone looks most like a query (TAPIR, section 3.2).

A cost map, which holds the products of a query's feature with those of every cell of a frame,
becomes a position, an occlusion logit, and a logit of "farther than 6 px off".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from teachers.layers.device import constant
from teachers.layers.resnet import same_padding
from teachers.tapir.config import TapirConfig


class MatchingHead(nn.Module):
    """Turns cost maps into positions, occlusion, and expected distance (section 3.2)."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.temperature, self.radius = config.softmax_temperature, config.argmax_radius
        first, second, third = config.matching_channels
        self.hid1 = nn.Conv2d(1, first, 3, padding=1)
        self.hid2 = nn.Conv2d(first, 1, 3, padding=1)
        self.hid3 = nn.Conv2d(first, second, 3, stride=2)
        self.hid4 = nn.Linear(second, third)
        self.occ_out = nn.Linear(third, 2)

    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """From [P, 1, h, w] to positions [P, 2] in cells (corner raster), and logits [P, 2] of
        occlusion and distance."""
        hidden = self.hid1(cost.contiguous(memory_format=torch.channels_last)).relu_()
        weights = (self.temperature * self.hid2(hidden)).flatten(1).softmax(1)
        xy = soft_argmax(weights.unflatten(1, cost.shape[-2:]), self.radius)
        pooled = self.hid3(same_padding(hidden, self.hid3)).relu_().mean((2, 3))
        return xy, self.occ_out(self.hid4(pooled).relu_())


def soft_argmax(weights: Tensor, radius: float) -> Tensor:  # [P, h, w] -> [P, 2]
    """Mean (x, y) of cell centres, weighted, over the cells strictly nearer than `radius` to the
    one with the largest weight."""
    height, width = weights.shape[-2:]
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=weights.device) + 0.5 for side in (height, width)),
        indexing="ij",
    )
    centres = torch.stack([columns, rows], -1).flatten(0, 1).to(weights)  # [h * w, 2]
    weights = weights.flatten(1)
    best = centres[weights.argmax(1)]  # [P, 2]
    near = (centres - best[:, None]).square().sum(-1) < radius**2
    weights = weights * near
    return weights @ centres / weights.sum(1, keepdim=True).clamp(min=1e-12)


def sides_of(grid: Tensor, like: Tensor) -> Tensor:  # [B, T, h, w, C] -> [2]
    """(w, h) of a grid, on the device and in the type of `like`."""
    return constant(like, grid.shape[3], grid.shape[2])
