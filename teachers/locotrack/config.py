"""Sizes of LocoTrack, the published ones and small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from teachers.layers.attention import AttentionSizes
from teachers.layers.matching_sizes import MINI_MATCHING, MatchingSizes

MOTION_FREQUENCIES = 10
MOTION_CHANNELS = 4 * (1 + 2 * MOTION_FREQUENCIES)
"""Channels of motion: steps to the next and from the last frame (x, y each), with sines and
cosines."""


@dataclass(frozen=True, kw_only=True)
class LocoTrackConfig(MatchingSizes, AttentionSizes):
    """Sizes of the network. The defaults are those of LocoTrack-B, 11.5 M parameters, as in
    `locotrack_base.ckpt`; LocoTrack-S, 8.2 M, has the changes of `SMALL`."""

    correlation_channels: tuple[int, ...] = (64, 128, 128)
    correlation_kernels: tuple[int, ...] = (3, 3, 2)
    correlation_strides: tuple[int, ...] = (2, 2, 2)
    """Channels of the convolutions that read the products."""
    group_channels: int = 16
    """How many channels their norms take together."""
    width: int = 384
    heads: int = 6
    """An even number: half of the heads see frames up to their own, the others from their own
    on."""
    layers: int = 3
    official_quirks: bool = False
    """Do as the release does where it is wrong: it does not resize to a listed resolution if the
    one before is the size of the video (5 px off)."""

    @classmethod
    def mini(cls, **changes: Any) -> LocoTrackConfig:
        """0.3 M parameters, the same for both models."""
        sizes: dict[str, Any] = dict(
            correlation_channels=(16, 32), correlation_kernels=(5, 2), correlation_strides=(4, 2),
            width=96, heads=4, layers=2, mlp_ratio=2,
        )  # fmt: skip
        return cls(**(changes | MINI_MATCHING | sizes))

    @property
    def grid_channels(self) -> tuple[int, int, int]:
        """Channels of the grids at strides 2, 4, 8."""
        return self.groups[0], self.groups[1], self.groups[3]


PRESETS: Mapping[str, Callable[..., LocoTrackConfig]] = {
    "official": LocoTrackConfig,
    "mini": LocoTrackConfig.mini,
}
