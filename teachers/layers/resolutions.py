"""Resolutions: the sizes that TAPIR and LocoTrack resize the frames of a clip to."""

from __future__ import annotations

import math

from teachers.errors import ConfigError

Size = tuple[int, int]
"""Height, width in px."""


def growing_resolutions(
    size: Size, raster: int, stride: int, least: int | None = None
) -> list[Size]:
    """The square of side `raster`, then up to the video's own size by factors of at most 2.

    Args:
        size: (H, W) of the video.
        stride: of the coarsest grid; every side is a multiple of it, rounded down.
        least: the shortest side that is allowed; None is `stride`.
    """
    largest = max(size) / raster
    if largest <= 1:
        return [(raster, raster)]
    levels = math.ceil(math.log2(largest))

    def side(length: int, level: int) -> int:
        exact = length if level == levels else raster * (length / raster) ** (level / levels)
        return max(least or stride, int(exact) // stride * stride)

    return [(side(size[0], level), side(size[1], level)) for level in range(levels + 1)]


def require_multiples(resolution: Size, stride: int, least: int) -> None:
    """Raise a ConfigError unless both sides are multiples of `stride`, and at least `least` px."""
    if any(side % stride or side < least for side in resolution):
        raise ConfigError(
            f"resolution = {resolution}: both sides must be multiples of {stride}, at least "
            f"{least}."
        )
