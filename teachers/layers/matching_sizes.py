"""Matching sizes: those that TAPIR and LocoTrack have in common. Both match a query with every cell
of every frame, take a soft argmax, and refine around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MatchingSizes:
    """The published sizes, which are the same for both."""

    raster: int = 256
    """Side in px of the square raster in which positions are kept and points are matched."""
    groups: tuple[int, int, int, int] = (64, 128, 256, 256)
    """Channels of the encoder's groups of blocks."""
    blocks_per_group: int = 2
    softmax_temperature: float = 20.0
    argmax_radius: float = 5.0
    """The soft argmax is taken over the cells nearer than this to the best one."""
    radius: int = 3
    """Correlations are computed in windows of (2 radius + 1)**2 cells."""
    iterations: int = 4
    """Refinements at each resolution."""


MINI_MATCHING: dict[str, Any] = {"groups": (16, 32, 48, 64), "blocks_per_group": 1, "iterations": 3}
"""Sizes of both small networks."""
