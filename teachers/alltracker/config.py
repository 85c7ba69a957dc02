"""Sizes of AllTracker, the published ones and small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from teachers.layers.attention import AttentionSizes

STRIDE = 8
PADDED_TO = 64
"""The sides of padded frames are multiples of this."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the channels of a frame in 0..1, as for ImageNet."""


@dataclass(frozen=True, kw_only=True)
class AllTrackerConfig(AttentionSizes):
    """Sizes of the network. The defaults are those of `alltracker.pth`, 16.5 M parameters; the tiny
    one, 6.3 M, has the changes of `TINY`."""

    window: int = 16
    """Frames that the time embedding is made for; it is resized for other lengths."""
    convnext: bool = True
    """Whether the encoder is a ConvNeXt; the tiny model has the residual encoder of the
    CoTrackers."""
    stages: tuple[int, ...] = (96, 192, 384)
    """Channels of the encoder's stages: three of a ConvNeXt, or four."""
    blocks: tuple[int, ...] = (3, 3, 9)
    """Blocks of each stage of a ConvNeXt."""
    channels: int = 128
    """Channels of the hidden state, of the context, and of the motion features. A frame's feature
    has twice as many, the first half for the hidden state and the second half for the context; in
    the tiny model it has the same number, used for both."""
    levels: int = 5
    """Levels of the pyramid of products, each half as large as the one before."""
    radius: int = 4
    """(2 radius + 1)**2 products are read at each level."""
    motion_channels: tuple[int, int, int, int] = (512, 192, 256, 64)
    """Channels of the two convolutions that read products, and of the two that read flow."""
    head_channels: int = 256
    """Hidden channels of the heads: for flow, for visibility and confidence, and for upsampling."""
    refine_blocks: int = 3
    """Blocks over time, and equally many over space, in each iteration."""
    iterations: int = 4
    """Refinements of a window's flow."""

    @classmethod
    def mini(cls, **changes: Any) -> AllTrackerConfig:
        """0.3 M parameters (with the ConvNeXt)."""
        small: dict[str, Any] = dict(
            stages=(16, 24, 32), blocks=(1, 1, 1), channels=32, radius=3, levels=4,
            motion_channels=(48, 32, 32, 16), head_channels=32, refine_blocks=1, heads=4,
            mlp_ratio=2, iterations=3,
        )  # fmt: skip
        if not changes.get("convnext", True):
            small["stages"], changes = (16, 24, 32, 32), changes | {"stages": (16, 24, 32, 32)}
        return cls(**(small | changes))

    @property
    def feature_channels(self) -> int:
        return 2 * self.channels if self.convnext else self.channels

    @property
    def least_side(self) -> int:
        """Sides in px of the smallest frame for which the coarsest level of products still has a
        cell of."""
        least = STRIDE * 2 ** (self.levels - 1)
        return least + -least % PADDED_TO


PRESETS: Mapping[str, Callable[..., AllTrackerConfig]] = {
    "official": AllTrackerConfig,
    "mini": AllTrackerConfig.mini,
}
MOST_PRODUCTS = 2**29
"""Numbers: the products of a window are kept between iterations if they are no more (2 GiB), and
else computed in each."""
