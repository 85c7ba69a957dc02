"""Sizes of TAPIR, the published ones and small ones, and the resolutions that it refines on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from teachers.errors import ConfigError
from teachers.layers.matching_sizes import MINI_MATCHING, MatchingSizes
from teachers.layers.resolutions import Size, growing_resolutions
from teachers.tapir.mixer import REACH
from teachers.tapir.requery import LOST

STRIDE = 8
"""Stride of the coarse grid; the fine one has half of it."""


@dataclass(frozen=True, kw_only=True)
class TapirConfig(MatchingSizes):
    """Sizes of the network. The defaults are those of TAPIR, 31.1 M parameters, as in
    `tapir_checkpoint_panning.pt`; BootsTAPIR, 54.7 M, has the changes of `BOOTSTAPIR`."""

    finest_channels: int = 0
    """Channels of one more grid, of stride 2, for precision below a pixel, which the mini has; 0
    for no such grid, as published."""
    extra_blocks: int = 0
    """Further residual blocks of BootsTAPIR on the coarse grid, `extra_ratio` times as wide
    inside."""
    extra_ratio: int = 4
    pyramid_levels: int = 0
    """How often BootsTAPIR pools the coarse grid by 2, for further correlations."""
    scales: tuple[float, ...] = (1.0,)
    """Sides of the squares that positions are refined on, one after the other, in rasters, growing.
    The mini that is shipped refines once more on enlarged frames, for precision below a pixel."""
    path: bool = False
    """Match along the likeliest path through all frames (`path.py`), not in each frame alone, as
    published. The mini that is shipped does. Not for a causal network, which cannot look ahead."""
    requery: float = 1.0
    """Ask again for points that are lost, from the last frame whose certainty was above this
    (`requery.py`); 1 for never, as published. Not for a causal network, whose stream gives each
    frame at once."""
    matching_channels: tuple[int, int, int] = (16, 32, 16)
    mixer_width: int = 512
    mixer_ratio: int = 4
    mixer_blocks: int = 12
    causal: bool = False
    """Whether no frame sees a later one in the mixer."""
    official_quirks: bool = False
    """Do as the torch release does where it is wrong: it scales x by the height of the grid in
    correlations (up to 5 px off on grids that are not square), and does not resize to a listed
    resolution if the one before is the size of the video."""

    def __post_init__(self) -> None:
        if self.path and self.causal:
            raise ConfigError("path: a causal network sees no later frame, and a path needs them.")
        require_requery(self.requery, self.causal)

    @classmethod
    def mini(cls, **changes: Any) -> TapirConfig:
        """0.45 M parameters; trains on a CPU core. Besides being small, it has a grid of stride
        2."""
        sizes: dict[str, Any] = dict(
            finest_channels=24,
            extra_ratio=2,
            matching_channels=(8, 16, 8),
            mixer_width=128,
            mixer_ratio=2,
            mixer_blocks=4,
        )
        return cls(**(MINI_MATCHING | sizes | changes))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each grid that describes a point, from fine to coarse; the last is the coarse
        grid, in which points are matched."""
        finest = (self.finest_channels,) if self.finest_channels else ()
        return (*finest, self.groups[1], self.groups[3])

    @property
    def squares(self) -> tuple[Size, ...]:
        """The resolutions of `scales`, multiples of the stride."""
        sides = (round(self.raster * scale / STRIDE) * STRIDE for scale in self.scales)
        return tuple((side, side) for side in sides)

    @property
    def reach(self) -> int:
        """How many frames away, at most, a frame can still change what is refined at one
        resolution. A `path`, along which points are matched before that, may change with any."""
        one_way = 2 * self.mixer_blocks * self.iterations
        return one_way * (REACH if self.causal else 1)


def require_requery(requery: float, causal: bool) -> None:
    """A ConfigError, unless `TapirConfig.requery` can be so."""
    number = isinstance(requery, int | float) and not isinstance(requery, bool)
    if not number or not LOST <= requery <= 1:
        raise ConfigError(f"requery = {requery}: must be from {LOST} to 1, and 1 is never.")
    if causal and requery < 1:
        raise ConfigError(
            f"requery = {requery}: a causal network answers each frame at once, and asks no second "
            "time. Leave it at 1."
        )


PRESETS: Mapping[str, Callable[..., TapirConfig]] = {
    "official": TapirConfig,
    "mini": TapirConfig.mini,
}
BOOTSTAPIR: dict[str, Any] = {"pyramid_levels": 1, "extra_blocks": 5}
CAUSAL_BOOTSTAPIR: dict[str, Any] = BOOTSTAPIR | {"causal": True}


def default_resolutions(size: Size, config: TapirConfig) -> list[Size]:
    """The resolutions at which the official forward pass refines; for frames that are no larger
    than the largest of `TapirConfig.squares`, these."""
    if max(size) <= config.squares[-1][0]:
        return list(config.squares)
    least = STRIDE * 2**config.pyramid_levels
    return growing_resolutions(size, config.raster, STRIDE, least)
