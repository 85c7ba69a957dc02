"""XFeat: a descriptor for every 8 x 8 px of an image, from a network small enough for a CPU.

Paper    Potje et al. 2024, XFeat: Accelerated Features for Lightweight Image Matching, CVPR, arXiv
         2404.19174. Section 3.1 is the backbone, 3.2 the heads; names below are those of the
         weights.
Weights  `xfeat.pt`, Apache-2.0, 1.55 M parameters, trained on photographs. This file is written
         from the paper and the names and shapes of the weights; the tests show outputs equal to the
         published package's.
Raster   inside: grey, of zero mean and unit variance; cell (i, j) describes the 8 x 8 px whose
         first is (8 i, 8 j).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8
"""Pixels from cell to cell."""
MULTIPLE = 32
"""The sides of an image must be multiples of this."""
SHARPNESS = 3.0
"""Temperature of the softmax over the 64 positions of a refined match, as published."""


@dataclass(frozen=True)
class XFeatMaps:
    """The network's output for B images."""

    descriptors: Tensor
    """[B, 64, H / 8, W / 8]; their direction is what is compared."""
    keypoints: Tensor
    """[B, 65, H / 8, W / 8]: logits that one of the cell's 64 pixels, row by row, is a keypoint, or
    (the last) none."""
    reliability: Tensor
    """[B, 1, H / 8, W / 8] in [0, 1]: whether the descriptor can be matched."""

    def heatmap(self) -> Tensor:  # [B, 1, H, W]
        """The probability of each pixel to be a keypoint."""
        return F.pixel_shuffle(self.keypoints.softmax(1)[:, :64], STRIDE)


class BasicLayer(nn.Module):
    """Convolution, batch norm, ReLU: the one block of the network."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


@dataclass(frozen=True, kw_only=True)
class XFeatConfig:
    """Sizes of the network. The defaults are those of the only published one."""

    stem: tuple[int, int, int] = (4, 8, 24)
    """Channels at strides 1, 2, and 4."""
    channels: int = 64
    """Channels of the descriptors, and at strides 8 and 16."""
    deepest: int = 128
    """Channels at stride 32."""
    matcher: int = 512
    """Width of the match refinement's layers."""

    @classmethod
    def mini(cls) -> XFeatConfig:
        """A small network of the same build, for tests."""
        return cls(stem=(4, 4, 8), channels=16, deepest=16, matcher=16)


XFEAT_PRESETS = {"official": XFeatConfig, "mini": XFeatConfig.mini}


class XFeat(nn.Module):
    """The network: backbone (section 3.1 of the paper), heads for keypoints and reliability, match
    refinement (3.2, 3.3)."""

    def __init__(self, config: XFeatConfig) -> None:
        super().__init__()
        (one, two, four), c, deep = config.stem, config.channels, config.deepest
        self.norm = nn.InstanceNorm2d(1)
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, four, 1))
        self.block1 = nn.Sequential(
            BasicLayer(1, one),
            BasicLayer(one, two, stride=2),
            BasicLayer(two, two),
            BasicLayer(two, four, stride=2),
        )
        self.block2 = nn.Sequential(BasicLayer(four, four), BasicLayer(four, four))
        self.block3 = nn.Sequential(
            BasicLayer(four, c, stride=2), BasicLayer(c, c), BasicLayer(c, c, size=1)
        )
        self.block4 = nn.Sequential(BasicLayer(c, c, stride=2), BasicLayer(c, c), BasicLayer(c, c))
        self.block5 = nn.Sequential(
            BasicLayer(c, deep, stride=2),
            BasicLayer(deep, deep),
            BasicLayer(deep, deep),
            BasicLayer(deep, c, size=1),
        )
        self.block_fusion = nn.Sequential(BasicLayer(c, c), BasicLayer(c, c), nn.Conv2d(c, c, 1))
        self.heatmap_head = nn.Sequential(
            BasicLayer(c, c, size=1), BasicLayer(c, c, size=1), nn.Conv2d(c, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            BasicLayer(STRIDE**2, c, size=1),
            BasicLayer(c, c, size=1),
            BasicLayer(c, c, size=1),
            nn.Conv2d(c, STRIDE**2 + 1, 1),
        )
        widths = (2 * c, *[config.matcher] * 4)
        self.fine_matcher = nn.Sequential(
            *(layer for sizes in pairwise(widths) for layer in _dense(*sizes)),
            nn.Linear(config.matcher, STRIDE**2),
        )

    def forward(
        self,
        images: Tensor,  # [B, 3, H, W], any range; sides are multiples of 32
    ) -> XFeatMaps:
        grey = self.norm(images.mean(1, keepdim=True))  # [B, 1, H, W]
        descriptors = self.backbone(grey)
        return XFeatMaps(
            descriptors,
            self.keypoint_head(F.pixel_unshuffle(grey, STRIDE)),
            self.heatmap_head(descriptors),
        )

    def describe(self, images: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 64, H / 8, W / 8]
        """The descriptors alone."""
        return self.backbone(self.norm(images.mean(1, keepdim=True)))

    def backbone(self, grey: Tensor) -> Tensor:  # [B, 1, H, W] normalised -> [B, 64, H / 8, W / 8]
        """Descriptors: features at strides 8, 16, and 32, added up and fused."""
        x8 = self.block3(self.block2(self.block1(grey) + self.skip1(grey)))  # [B, 64, H / 8, W / 8]
        x16 = self.block4(x8)  # [B, 64, H / 16, W / 16]
        x32 = self.block5(x16)  # [B, 64, H / 32, W / 32]
        fused: Tensor = self.block_fusion(x8 + _enlarged(x16, x8) + _enlarged(x32, x8))
        return fused

    def offsets(
        self,
        first: Tensor,  # [n, 64] descriptors of cells
        second: Tensor,  # [n, 64] of their matches in another image
    ) -> Tensor:  # [n, 2] px (x, y) in [-4, 3]
        """Match refinement: the position, relative to the first pixel of the first cell, of what
        the first pixel of the second cell shows."""
        logits = self.fine_matcher(torch.cat([first, second], -1)).reshape(-1, STRIDE, STRIDE)
        likely = (SHARPNESS * logits).flatten(1).softmax(1).reshape(logits.shape)
        positions = torch.arange(STRIDE, device=first.device, dtype=first.dtype) - STRIDE // 2
        return torch.stack([likely.sum(1) @ positions, likely.sum(2) @ positions], -1)


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, affine=False), nn.ReLU(inplace=True)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
