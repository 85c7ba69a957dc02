"""Losses of TAPIR: positions, occlusion, and expected distance.

Paper   TAPIR, arXiv 2306.08637, section 3.4. The sums are those of the published training code.
Pixels  those of the 256 x 256 raster, whatever the size of the video.
Means   are over all points and frames, the masked ones counted; the steps of a forward pass are
        added up.

What is occluded or masked may be NaN in the targets: it gets no weight and no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labeler.labels.agreement import RASTER
from student.training.losses import TapirLossConfig, huber
from teachers.layers.device import constant


@dataclass(frozen=True)
class TapirTargets:
    """What the network should say about B clips."""

    xy: Tensor
    """[B, N, T, 2] px of the video, corner raster; may be NaN where occluded or masked."""
    occluded: Tensor
    """[B, N, T] bool"""
    weight: Tensor | None = None
    occlusion_weight: Tensor | None = None
    distance_weight: Tensor | None = None
    """[B, N, T] each: the weight of all three parts (None: 1), and that of occlusion and expected
    distance if they have one of their own."""


@dataclass(frozen=True)
class TapirLosses:
    """The parts of the loss: scalars, with factors applied."""

    position: Tensor
    occlusion: Tensor
    distance: Tensor

    @property
    def total(self) -> Tensor:
        """The sum, which is back-propagated."""
        return self.position + self.occlusion + self.distance


def tapir_losses(
    # [S, B, N, T, 4] of `teachers.tapir.network.TapirSteps`: x, y, logits of occlusion and
    # distance
    steps: Tensor,
    targets: TapirTargets,
    size: tuple[float, float],  # (H, W) of the video
    config: TapirLossConfig | None = None,
) -> TapirLosses:
    """The sum of each part over the steps of a forward pass; `config` None is the published one."""
    config = config or TapirLossConfig()
    xy, occlusion, distance = steps[..., :2], steps[..., 2], steps[..., 3]
    to_raster = RASTER / constant(xy, *size[::-1])
    occluded = targets.occluded.to(xy.dtype)
    seen = 1 - occluded
    weight = torch.ones_like(seen) if targets.weight is None else targets.weight.to(xy.dtype)
    occlusion_weight, distance_weight = (
        weight if own is None else own.to(xy.dtype)
        for own in (targets.occlusion_weight, targets.distance_weight)
    )

    # [S, B, N, T] px of the raster
    square = ((xy - targets.xy.nan_to_num()) * to_raster).square().sum(-1)
    distances = (square + 1e-12).sqrt()  # its slope is finite at 0
    far = (square.detach() > config.far_px**2).to(xy.dtype)
    of_occlusion = F.binary_cross_entropy_with_logits(
        occlusion, occluded.expand_as(occlusion), reduction="none"
    )
    balance = 1 + config.rebalance * seen
    of_distance = F.binary_cross_entropy_with_logits(distance, far, reduction="none")
    return TapirLosses(
        position=config.position * _total(huber(distances, config.huber_px) * seen * weight),
        occlusion=config.occlusion * _total(of_occlusion * balance * occlusion_weight),
        distance=config.distance * _total(of_distance * seen * distance_weight),
    )


def held_losses(
    steps: Tensor,  # [S, B, N, T, 4]
    before: Tensor,  # [S, B, N, T, 4] of another network, for the same clips
    clip_weight: Tensor,  # [B]
    config: TapirLossConfig,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of occlusion, and of expected distance, with what `before` gives in the same
    step, over all points and frames; its gradient is 0 where both are equal."""
    each = F.binary_cross_entropy_with_logits(
        steps[..., 2:], before[..., 2:].sigmoid(), reduction="none"
    )
    occlusion, distance = (each * clip_weight[:, None, None, None]).unbind(-1)
    return config.occlusion * _total(occlusion), config.distance * _total(distance)


def _total(each: Tensor) -> Tensor:  # [S, B, N, T] -> []
    return each.mean((1, 2, 3)).sum()
