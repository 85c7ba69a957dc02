"""Visibility of the trackers without weights: from how well a point fits, and where it lies."""

from __future__ import annotations

import numpy as np


def graded(
    error: np.ndarray,  # [n] >= 0
    limit: np.ndarray | float,  # [n] > 0
) -> np.ndarray:  # [n] in [0, 1]
    """Visibility from an error: 1 without error, 1/2 at the limit, 1/16 at twice the limit."""
    return np.exp2(-np.square(error / limit))


def in_frame(xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [n]: which points [n, 2] lie in the frame or on its border, where a query may lie."""
    x, y = xy[:, 0], xy[:, 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
