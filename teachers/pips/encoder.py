"""Encoder: what the networks of PIPs and PIPs++ share, which is an encoder and the pyramid of its
features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.layers.pyramid import PyramidSizes, ResidualEncoder, encode_pyramid


@dataclass(frozen=True, kw_only=True)
class PipsSizes(PyramidSizes):
    """The sizes that both networks have."""

    stride: int
    """px between cells of the finest features."""
    radius: int = 3
    """Correlations are computed over (2 radius + 1)**2 cells."""


Sizes = TypeVar("Sizes", bound=PipsSizes)


class PipsNetwork(nn.Module, Generic[Sizes]):
    """Base of both networks. A network runs on the device and in the precision of its weights; its
    input must be on that device."""

    BF16_PARTS = ("fnet", "delta_block")
    BF16_WEIGHTS = True

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.fnet = ResidualEncoder(config.stages, config.channels, config.stride)
        self.norm = nn.LayerNorm(config.channels)

    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of features, per level [B, T, h, w, C]; see
        `encode_pyramid`."""
        return encode_pyramid(
            self.fnet, frames, self.config.levels, memory, unit_length=False, whole_cells=False
        )
