"""ConvNeXt: the encoder of AllTracker, and the block that mixes over space in its iterations.

Paper    Liu et al. 2022, arXiv 2201.03545: ConvNeXt-Tiny without its last stage. The third stage
         keeps the stride of the second, with dilation instead (AllTracker, section 3.1). Keys are
         those of torchvision's files. Everything is channels-last, [F, h, w, C].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-6
ROWS = 1024
"""Cells that go through an MLP together on a CPU, so that its wide layer stays in the cache."""


class MapConv2d(nn.Conv2d):
    """A convolution of maps [F, h, w, C]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvNeXtBlock(nn.Module):
    """A 7 x 7 depthwise convolution, a norm, and an MLP, scaled, beside a shortcut."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), EPS))
        self.block = nn.Sequential(
            MapConv2d(channels, channels, 7, padding=3, groups=channels),
            nn.Identity(),
            nn.LayerNorm(channels, eps=EPS),
            nn.Linear(channels, ratio * channels),
            nn.GELU(),
            nn.Linear(ratio * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:  # [F, h, w, C]
        convolution, _, norm, widen, rectify, narrow = self.block
        rows = convolution(x).flatten(0, 2)
        parts = rows.split(ROWS) if x.device.type == "cpu" else (rows,)
        wide = torch.cat([narrow(rectify(widen(norm(part)))) for part in parts])
        return torch.addcmul(x, wide.view(x.shape), self.layer_scale[:, 0, 0])


class ConvNeXt(nn.Module):
    """Frames to feature maps at stride 8."""

    def __init__(self, stages: tuple[int, ...], blocks: tuple[int, ...], ratio: int) -> None:
        super().__init__()
        first, second, third = stages

        def stage(index: int) -> nn.Sequential:
            return nn.Sequential(
                *(ConvNeXtBlock(stages[index], ratio) for _ in range(blocks[index]))
            )

        self.features = nn.Sequential(
            nn.Sequential(MapConv2d(3, first, 4, 4), nn.LayerNorm(first, eps=EPS)),
            stage(0),
            nn.Sequential(nn.LayerNorm(first, eps=EPS), MapConv2d(first, second, 2, 2)),
            stage(1),
            nn.Sequential(
                nn.LayerNorm(second, eps=EPS), MapConv2d(second, third, 3, padding=2, dilation=2)
            ),
            stage(2),
        )

    def forward(self, frames: Tensor) -> Tensor:  # [F, H, W, 3] -> [F, H / 8, W / 8, C]
        return self.features(frames)
