"""Trust: from which probability on the verifier is believed."""

from __future__ import annotations

from dataclasses import dataclass

from teachers import ConfigError

MOST_BLEND_PX = 8.0


@dataclass(frozen=True, kw_only=True)
class TrustConfig:
    """When the verifier is believed. Applied to the stored probabilities, so nothing is judged
    again."""

    min_right: float = 0.8
    """A position is a label from this probability on; higher gives fewer and better labels."""
    min_hidden: float = 0.9
    """A point counts as hidden from this probability on."""
    blend_px: float = 2.0
    """`verified` goes to the middle of all positions within this distance of the most trusted one,
    if they are at least three; px of the 256 x 256 raster. 0 takes that one alone."""

    def __post_init__(self) -> None:
        for name in ("min_right", "min_hidden"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: a probability in (0, 1]; the defaults are "
                    f"{TrustConfig.min_right:g} for a position, {TrustConfig.min_hidden:g} for "
                    "hidden."
                )
        if not 0 <= self.blend_px <= MOST_BLEND_PX:
            raise ConfigError(
                f"blend_px = {self.blend_px}: a distance from 0 to {MOST_BLEND_PX:g} px of the 256 "
                f"x 256 raster; the default is {TrustConfig.blend_px:g}. Positions farther apart "
                "are of different points."
            )
