"""Sizes of the frames on which a CoTracker3 with `CoTracker3Config.sides` refines tracks, one after
the other: where frames are small, a point is found from far away; where they are large, its
position becomes exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from teachers.cotracker.transformer import STRIDE
from teachers.layers.pyramid import least_side
from teachers.layers.resolutions import Size

LARGEST = 2.0
"""By how much frames are enlarged at most."""


def factors_of(sides: Sequence[int], size: Size, meant: Size) -> list[float]:
    """The sizes relative to frames of `size` (H, W); none is above `LARGEST`. Frames with a shorter
    side than those which the network is `meant` for are resized as these are: a part of a frame
    looks as it does in the whole."""
    short = max(min(size), min(meant))
    return sorted({min(LARGEST, side / short) for side in sides}) or [1.0]


def resized(
    frames: Tensor, factor: float, levels: int
) -> Tensor:  # [B, T, 3, H, W] -> [B, T, 3, h, w]
    """The frames at `factor` times their size; below and at the right, the last row and column are
    repeated until a network with so many levels takes them."""
    if factor == 1:
        return frames
    clips = frames.flatten(0, 1).float()
    clips = F.interpolate(clips, scale_factor=factor, mode="bilinear", antialias=factor < 1)
    least = least_side(STRIDE, levels)
    below, right = (max(least, side + -side % STRIDE) - side for side in clips.shape[-2:])
    clips = F.pad(clips, (0, right, 0, below), mode="replicate")
    return clips.unflatten(0, frames.shape[:2])


def scaled(xy: Tensor, factor: float) -> Tensor:
    """Positions in px of frames that are `factor` times as large."""
    return xy if factor == 1 else (xy + 0.5) * factor - 0.5
