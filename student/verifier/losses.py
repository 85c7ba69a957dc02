"""Losses: the loss of a verifier, for which the nearer a position is to the truth, the more it
should be relied on.

Source   Track-On-R, arXiv 2603.12217, section 4.4; equal to the published training, in float64 to
         twelve digits. Notes on the paper give the temperature once as 0.1; the code has 0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE_PX = 0.3
WEIGHT = 5.0


def reliability_loss(
    logits: Tensor,  # [K, N, T]
    candidates: Tensor,  # [K, N, T, 2] px of a raster of 384 x 512
    truth: Tensor,  # [N, T, 2] px, of the same
    counted: Tensor,  # bool [N, T], see `counted_frames`
) -> Tensor:  # []
    """Cross entropy of the softmax over K with `reliability`, the mean over the counted pairs.

    0, with a gradient of 0, where none counts.
    """
    wanted = reliability(candidates, truth)
    entropy = -(wanted * logits.log_softmax(0)).sum(0)
    return WEIGHT * (entropy * counted).sum() / (counted.sum() + 1e-6)


def reliability(candidates: Tensor, truth: Tensor) -> Tensor:
    """What the softmax of the logits should be, [K, N, T]: that of the distances to the truth."""
    distance = torch.linalg.vector_norm(candidates - truth, dim=-1)
    return (-distance / TEMPERATURE_PX).softmax(0)


def counted_frames(
    queries: Tensor, visible: Tensor
) -> Tensor:  # [N, 3], bool [N, T] -> bool [N, T]
    """The frames after that of the query in which the point is visible."""
    return visible & (torch.arange(visible.shape[1], device=visible.device) > queries[:, :1])
