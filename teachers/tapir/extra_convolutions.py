"""Extra convolutions: BootsTAPIR's further residual blocks on the coarse map.

Speed: on a CPU, they are computed by Winograd's method. They take all frames of a clip, because
preparing them costs as much as half a frame, but only a few at a time, so that the wide maps
between them stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from teachers.layers.fast import fast_convolution, tanh_gelu


class ExtraBlock(nn.Module):
    """An extra block of BootsTAPIR: two 3 x 3 convolutions, between which it is four times as wide.
    The shortcut starts AFTER the norm."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, ratio * channels, 3, padding=1)
        self.conv_1 = nn.Conv2d(ratio * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, frames_per_block: int) -> Tensor:  # [F, C, h, w], channels-last
        x = self.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        widen, narrow = fast_convolution(self.conv, x), fast_convolution(self.conv_1, x)
        return torch.cat(
            [narrow(tanh_gelu(widen(frames))).add_(frames) for frames in x.split(frames_per_block)]
        )


class ExtraConvolutions(nn.Module):
    """BootsTAPIR's extra blocks on the coarse map."""

    def __init__(self, channels: int, ratio: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ExtraBlock(channels, ratio) for _ in range(blocks))

    def forward(self, x: Tensor, frames_per_block: int) -> Tensor:  # [F, C, h, w], channels-last
        for block in self.blocks:
            x = block(x, frames_per_block)
        return x
