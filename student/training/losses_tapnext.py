"""Losses: what TAPNext is trained with, as in its torch release, for those who fine-tune the
network.

The JAX release also applies the three terms to the output of every block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tapnext.network import UNITS

HUBER_WEIGHT = 0.1


@dataclass(frozen=True)
class TapNextLoss:
    """Means over points and frames; frames before a query count like others."""

    huber: Tensor
    """Distance from the truth, in units, quadratic below 1; visible points only."""
    softmax: Tensor
    """Cross entropy of the bins of y plus that of the bins of x; visible points only."""
    visibility: Tensor
    """Cross entropy of the visible logit."""

    @property
    def total(self) -> Tensor:
        return HUBER_WEIGHT * self.huber + self.softmax + self.visibility


def tapnext_loss(
    xy: Tensor,  # [..., 2] units
    visible_logit: Tensor,  # [...]
    logits: Tensor,  # [..., 512], of y, then of x
    true_xy: Tensor,  # [..., 2] units
    visible: Tensor,  # [...] bool
    *,
    official_quirks: bool = False,
) -> TapNextLoss:
    """The terms of the loss. With `official_quirks`, the softmax term counts hidden points too."""
    difference = xy - true_xy.clamp(0, UNITS - 1)
    squared = difference.square().sum(-1)
    distance = (squared + 1e-12).sqrt()
    huber = torch.where(distance < 1, squared / 2, distance - 0.5)
    label = (true_xy - 0.5).clamp(0, UNITS - 1).round().long()  # half to even
    bins_y, bins_x = logits.unflatten(-1, (2, UNITS)).flatten(0, -3).unbind(-2)
    x, y = label.flatten(0, -2).unbind(-1)
    softmax = F.cross_entropy(bins_y, y, reduction="none") + F.cross_entropy(
        bins_x, x, reduction="none"
    )
    softmax = softmax.view(visible.shape)
    return TapNextLoss(
        huber[visible].sum() / visible.sum().clamp_min(1),
        softmax.mean() if official_quirks else softmax[visible].sum() / visible.sum().clamp_min(1),
        F.binary_cross_entropy_with_logits(visible_logit, visible.to(visible_logit.dtype)),
    )
