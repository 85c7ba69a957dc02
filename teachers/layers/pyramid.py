"""Pyramid: the feature maps of every frame, each level half as large as the one before, and the
encoder that makes the first level.

The encoder is the one that RAFT, PIPs, and the CoTrackers use: four stages of two residual blocks
at strides 2, 4, 8, and 16, whose outputs are resized to one size, stacked, and mixed. Its instance
norms have no parameters, so the features of a frame depend on that frame alone, and frames can be
encoded in blocks of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.errors import ConfigError
from teachers.layers.branch import for_gpu_inference
from teachers.layers.fast import added
from teachers.layers.memory import Memory


@dataclass(frozen=True, kw_only=True)
class PyramidSizes:
    """Sizes of the encoder and of its pyramid, as in the official PIPs and CoTrackers."""

    stages: tuple[int, int, int, int] = (64, 96, 128, 128)
    """Channels of the encoder's stages."""
    channels: int = 128
    """Channels of a feature."""
    levels: int = 4
    """Levels of the pyramid, each half as large as the one before."""


MINI_PYRAMID: dict[str, Any] = {"stages": (16, 24, 32, 32), "channels": 32}
"""Sizes of every small network with such a pyramid."""


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut around them; if the stride is above 1, the shortcut
    has a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else None
        )

    def forward(
        self, x: Tensor
    ) -> Tensor:  # [F, inputs, h, w] -> [F, outputs, h / stride, w / stride]
        y = F.instance_norm(self.conv1(x)).relu_()
        y = F.instance_norm(self.conv2(y)).relu_()
        shortcut = x if self.downsample is None else F.instance_norm(self.downsample(x))
        return added(shortcut, y).relu_()


class ResidualEncoder(nn.Module):
    """Frames to feature maps of `channels` channels at `stride`."""

    def __init__(self, stages: tuple[int, int, int, int], channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(3, stages[0], 7, 2, padding=3)
        self.layer1 = nn.Sequential(
            ResidualBlock(stages[0], stages[0], 1), ResidualBlock(stages[0], stages[0], 1)
        )
        self.layer2 = nn.Sequential(
            ResidualBlock(stages[0], stages[1], 2), ResidualBlock(stages[1], stages[1], 1)
        )
        self.layer3 = nn.Sequential(
            ResidualBlock(stages[1], stages[2], 2), ResidualBlock(stages[2], stages[2], 1)
        )
        self.layer4 = nn.Sequential(
            ResidualBlock(stages[2], stages[3], 2), ResidualBlock(stages[3], stages[3], 1)
        )
        self.conv2 = nn.Conv2d(sum(stages), 2 * channels, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * channels, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, frames: Tensor
    ) -> Tensor:  # [F, 3, H, W] in [-1, 1] -> [F, channels, H / stride, W / stride]
        size = (frames.shape[-2] // self.stride, frames.shape[-1] // self.stride)
        x = F.instance_norm(self.conv1(frames)).relu_()
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        x = F.instance_norm(self.conv2(torch.cat(maps, 1))).relu_()
        return self.conv3(x)


def least_side(stride: int, levels: int) -> int:
    """Side in px of the smallest frame: its coarsest level has one cell, and the encoder's last
    stage (4 strides) has two to normalise over."""
    return max(8 * stride, stride * 2 ** (levels - 1))


def encode_pyramid(
    encoder: ResidualEncoder,
    frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
    levels: int,
    memory: Memory,
    unit_length: bool,
    whole_cells: bool = True,
) -> list[Tensor]:  # per level [B, T, h, w, C]
    """Encode frames, one block at a time; with `unit_length`, the finest features have length 1,
    and coarser ones are their averages. Without `whole_cells`, frames may have any size; the
    encoder then squeezes its maps into the cells that are whole, as the official PIPs do.

    Raises:
        ConfigError: H or W is too small for the pyramid, or, although `whole_cells` asks for it,
            not a multiple of the encoder's stride.
    """
    batch, (height, width), stride = frames.shape[0], frames.shape[-2:], encoder.stride
    least = least_side(stride, levels)
    if (whole_cells and (height % stride or width % stride)) or min(height, width) < least:
        raise ConfigError(
            f"frames of {width} x {height} px: the network needs multiples of {stride}, at least "
            f"{least} a side."
        )
    # bf16 has too few bits for a pixel; where the weights are rounded, so is what they are times
    dtype = torch.promote_types(encoder.conv1.weight.dtype, torch.float32)
    parts = frames.flatten(0, 1).split(memory.frames(frames.device))
    blocks = [memory.run(encoder, 2 * (part.to(dtype) / 255) - 1) for part in parts]
    maps = torch.cat(
        [F.normalize(block, dim=1, eps=1e-6) for block in blocks] if unit_length else blocks
    )
    pyramid = []
    for level in range(levels):
        maps = F.avg_pool2d(maps, 2) if level else maps
        # a GPU samples the maps as they are, in one pass; a CPU gathers cells, rows of memory
        cells = maps.permute(0, 2, 3, 1)
        cells = cells if for_gpu_inference(cells) else cells.contiguous()
        pyramid.append(cells.unflatten(0, (batch, -1)))
    return pyramid
