"""Losses: their factors, and what the losses of all students share.

The sums of CoTracker3 are in `losses_cotracker`, those of TAPIR in `losses_tapir`, and the one that
teaches an encoder alone in `losses_matching`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from teachers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TapirLossConfig:
    """Factors and thresholds of TAPIR's losses; the defaults are the published ones."""

    position: float = 0.05
    """Huber loss of positions where the point is visible, px of the 256 x 256 raster."""
    occlusion: float = 1.0
    """Cross entropy of occlusion."""
    distance: float = 1.0
    """Cross entropy of the expected distance; 0 for a network that does not estimate how far off it
    may be."""
    huber_px: float = 4.0
    """Errors count squared below this, linearly above."""
    far_px: float = 6.0
    """The distance that the expected distance is about: farther from the truth than this."""
    rebalance: float = 0.0
    """How much more a visible point counts than an occluded one in the loss of occlusion."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Factors of the parts. The defaults are the published ones."""

    visible: float = 0.05
    """CoTracker3: Huber loss of positions where the point is visible."""
    occluded: float = 0.01
    """CoTracker3: L1 loss of positions where it is not."""
    huber_px: float = 6.0
    """CoTracker3: errors of visible points count squared below this, linearly above."""
    visibility: float = 1.0
    """CoTracker3: cross entropy of visibility, where it is learnt."""
    confidence: float = 1.0
    """CoTracker3: cross entropy of confidence, where it is learnt."""
    tapir: TapirLossConfig = field(default_factory=TapirLossConfig)
    """TAPIR."""
    real: tuple[float, float] = (1.0, 1.0)
    """How much a labelled clip counts in the first step and in the last; in between, linearly.
    Track-On-R: 1 2."""
    synthetic: tuple[float, float] = (1.0, 1.0)
    """How much a clip with exact tracks counts in the first step and in the last. Track-On-R: 1
    0."""

    def __post_init__(self) -> None:
        for name in ("real", "synthetic"):
            if min(getattr(self, name)) < 0:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: weights in the first and the last step, none "
                    "below 0."
                )
        for name, px in (("huber_px", self.huber_px), ("tapir.huber_px", self.tapir.huber_px)):
            if not px > 0:
                raise ConfigError(f"loss.{name} = {px}: must be above 0.")


def huber(error: Tensor, knee: float) -> Tensor:
    """Quadratic up to `knee`, linear beyond."""
    size = error.abs()
    return torch.where(size <= knee, error.square() / 2, knee * (size - knee / 2))


def from_query_on(query_frames: Tensor, frames: int) -> Tensor:
    """[B, N] frames of the queries to [B, N, T] bool: True from a point's query on."""
    return torch.arange(frames, device=query_frames.device) >= query_frames[..., None]
