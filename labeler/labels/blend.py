"""Blend: the middle of the positions around the most trusted one.

In   M times K positions, and how far each is trusted. Out: M positions, and which are blended.
"""

from __future__ import annotations

import numpy as np

TRUST_POWER = 4
"""Half the trust counts a sixteenth."""
STEPS = 5
"""Of the iteration: the middle need not be known better than the positions are."""
LEAST_PX = 0.1
"""Nearer than this, a position has no more pull than at this distance."""
LEAST_POSITIONS = 3
"""Of two positions, neither is in the middle."""


def blend(
    xy: np.ndarray,  # [K, M, 2]
    right: np.ndarray,  # [K, M]
    within: float,
) -> tuple[np.ndarray, np.ndarray]:  # float32 [M, 2], bool [M]
    """The geometric median of the positions within a distance of the most trusted one.

    It is the point with the smallest sum of weighted distances to them, so one that is farther off
    than the others hardly moves it. Weights are the fourth power of `right`. Computed by
    Weiszfeld's iteration, from their mean. Where there are fewer than three, it is the most trusted
    one itself.

    Args:
        xy: positions; NaN for none.
        right: the probability that each is right; 0 where there is none. At least one of each M is
            above 0.
        within: in the unit of `xy`.

    Returns:
        The middle, and where it is one of several positions.
    """
    best = np.take_along_axis(xy, right.argmax(0)[None, :, None], axis=0)
    near = (right > 0) & (_distance(xy, best) <= within)
    weight = np.where(near, right, 0) ** TRUST_POWER
    places = np.where(near[..., None], xy, 0)
    middle = _mean(places, weight)
    for _ in range(STEPS):
        middle = _mean(places, weight / np.maximum(_distance(places, middle[None]), LEAST_PX))
    several = near.sum(0) >= LEAST_POSITIONS
    return np.where(several[:, None], middle, best[0]).astype(np.float32), several


def _mean(xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (xy * weight[..., None]).sum(0) / weight.sum(0)[:, None]


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN for no position."""
    return np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1])
