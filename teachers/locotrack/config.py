"""Sizes of LocoTrack, the published ones and small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOTION_FREQUENCIES = 10
MOTION_CHANNELS = 4 * (1 + 2 * MOTION_FREQUENCIES)
"""Steps to the next and from the last frame (x, y each), with their sines and cosines."""


@dataclass(frozen=True, kw_only=True)
class LocoTrackConfig:
    """Sizes of the network. The defaults are those of LocoTrack-B."""

    raster: int = 256
    """Side in px of the square raster in which positions are kept."""
    groups: tuple[int, int, int, int] = (64, 128, 256, 256)
    """Channels of the encoder's groups; the grids have those of the first, second, and fourth."""
    blocks_per_group: int = 2
    softmax_temperature: float = 20.0
    argmax_radius: float = 5.0
    """Cells nearer than this to the best one take part in the soft argmax."""
    radius: int = 3
    """Correlations are taken between windows of (2 radius + 1)**2 cells."""
    correlation_channels: tuple[int, ...] = (64, 128, 128)
    correlation_kernels: tuple[int, ...] = (3, 3, 2)
    correlation_strides: tuple[int, ...] = (2, 2, 2)
    """Convolutions that read the products."""
    group_channels: int = 16
    """Channels that their norms take together."""
    iterations: int = 4
    width: int = 384
    heads: int = 6
    """Even: one half sees frames up to its own, the other from its own on."""
    layers: int = 3
    mlp_ratio: int = 4
    official_quirks: bool = False
    """Do as the release does where it is wrong: it does not resize to a listed resolution if the
    one before is the size of the video (5 px off)."""

    @classmethod
    def official(cls, **changes: Any) -> LocoTrackConfig:
        """11.5 M parameters, as in `locotrack_base.ckpt`; 8.2 M with the changes of `SMALL`."""
        return cls(**changes)

    @classmethod
    def mini(cls, **changes: Any) -> LocoTrackConfig:
        """0.3 M parameters, of both models the same."""
        sizes: dict[str, Any] = dict(
            groups=(16, 32, 48, 64), blocks_per_group=1, correlation_channels=(16, 32),
            correlation_kernels=(5, 2), correlation_strides=(4, 2), iterations=3, width=96, heads=4,
            layers=2, mlp_ratio=2,
        )  # fmt: skip
        return cls(**(changes | sizes))

    @property
    def grid_channels(self) -> tuple[int, int, int]:
        """Of the grids at strides 2, 4, 8."""
        return self.groups[0], self.groups[1], self.groups[3]


PRESETS = {"official": LocoTrackConfig.official, "mini": LocoTrackConfig.mini}
