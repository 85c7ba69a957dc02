"""Matching loss: a point's feature should be most like the cell that shows the point in other
frames (InfoNCE).

It teaches only the encoder, at a small part of the cost of a whole tracker, so that correlations
mean something before anything reads them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.05
"""Temperature of the products of features, which have length 1."""


def matching_loss(
    grid: Tensor,  # [B, T, h, w, C]
    points: Tensor,  # [B, N, C] what each point looks like in its query frame
    xy: Tensor,  # [B, N, T, 2] where it is, in cells; an integer is a cell's centre
    weight: Tensor,  # [B, N, T] 0 or 1
) -> Tensor:
    """Mean cross entropy of all cells of a frame with the (up to four) cells around the point,
    weighted bilinearly."""
    height, width = grid.shape[2:4]
    products = torch.einsum("bnc,bthwc->bnthw", points, grid) / TEMPERATURE
    log_share = products.flatten(3).log_softmax(-1).view(-1, 1, height, width)
    at = 2 * xy / xy.new_tensor([max(1, width - 1), max(1, height - 1)]) - 1
    found = F.grid_sample(
        log_share, at.view(-1, 1, 1, 2), padding_mode="border", align_corners=True
    ).view(weight.shape)
    return -(found * weight).sum() / weight.sum().clamp(min=1)
