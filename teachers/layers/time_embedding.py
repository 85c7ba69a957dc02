"""Time embedding: what tells a network that attends over frames in which order they are."""

from __future__ import annotations

import torch
from torch import Tensor


def time_embedding(frames: int, channels: int) -> Tensor:  # [1, frames, channels]
    """Sines, then cosines, of t * 10000**(-2 i / channels)."""
    half = channels // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], 1)[None].float()
