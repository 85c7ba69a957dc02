"""Pyramid: the feature maps of every frame, each level half as large as the one before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.encoder import ResidualEncoder
from teachers.errors import ConfigError
from teachers.memory import Memory


def least_side(stride: int, levels: int) -> int:
    """Px a side of the smallest frame: its coarsest level has a cell, and the encoder's last stage (4 strides) two to normalise over."""
    return max(8 * stride, stride * 2 ** (levels - 1))


def encode_pyramid(
    encoder: ResidualEncoder,
    frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
    levels: int,
    memory: Memory,
    unit_length: bool,
    whole_cells: bool = True,
) -> list[Tensor]:  # per level [B, T, h, w, C]
    """Encode frames, a block at a time; with `unit_length` the finest features have length 1, coarser ones are their averages. Without
    `whole_cells` any size goes; the encoder then squeezes its maps into the cells that are whole, as the official PIPs do.

    Raises:
        ConfigError: H or W is too small for the pyramid, or no multiple of the encoder's stride though `whole_cells` asks for it.
    """
    batch, (height, width), stride = frames.shape[0], frames.shape[-2:], encoder.stride
    least = least_side(stride, levels)
    if (whole_cells and (height % stride or width % stride)) or min(height, width) < least:
        raise ConfigError(f"frames of {width} x {height} px: the network needs multiples of {stride}, at least {least} a side.")
    dtype = encoder.conv1.weight.dtype
    parts = frames.flatten(0, 1).split(memory.frames(frames.device))
    blocks = [memory.run(encoder, 2 * (part.to(dtype) / 255) - 1) for part in parts]
    maps = torch.cat([F.normalize(block, dim=1, eps=1e-6) for block in blocks] if unit_length else blocks)
    pyramid = []
    for level in range(levels):
        maps = F.avg_pool2d(maps, 2) if level else maps
        pyramid.append(maps.permute(0, 2, 3, 1).contiguous().unflatten(0, (batch, -1)))
    return pyramid
