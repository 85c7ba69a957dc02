"""Matching: where a frame looks most like a query (TAPIR, section 3.2).

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
        """From [P, 1, h, w] to log likelihoods of the cells [P, h, w], up to a constant, and logits
        [P, 2] of occlusion and distance."""
        hidden = self.hid1(cost.contiguous(memory_format=torch.channels_last)).relu_()
        likelihood = (self.temperature * self.hid2(hidden)).squeeze(1)
        pooled = self.hid3(same_padding(hidden, self.hid3)).relu_().mean((2, 3))
        return likelihood, self.occ_out(self.hid4(pooled).relu_())


def soft_argmax(likelihood: Tensor, best: Tensor, radius: float) -> Tensor:
    """Mean (x, y) of cell centres over the cells strictly nearer than `radius` to the best one.

    Args:
        likelihood: [P, h, w], log weights of the cells.
        best: [P] int64, row after row.

    Returns:
        [P, 2] in cells, corner raster.
    """
    height, width = likelihood.shape[-2:]
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=best.device) + 0.5 for side in (height, width)), indexing="ij"
    )
    centres = torch.stack([columns, rows], -1).flatten(0, 1).to(likelihood)  # [h * w, 2]
    far = (centres - centres[best][:, None]).square().sum(-1) >= radius**2
    return likelihood.flatten(1).masked_fill(far, -torch.inf).softmax(1) @ centres


def sides_of(grid: Tensor, like: Tensor) -> Tensor:  # [B, T, h, w, C] -> [2]
    """(w, h) of a grid, on the device and in the type of `like`."""
    return constant(like, grid.shape[3], grid.shape[2])
