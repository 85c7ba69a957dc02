"""Clip: frames and the truth about some of their points, as test sets and the procedural generator
give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TestClip:
    """A clip and the truth about N of its points."""

    __test__ = False  # not a pytest class

    name: str
    frames: np.ndarray
    """uint8 [T, H, W, 3] RGB."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y)."""
    xy: np.ndarray
    """float32 [N, T, 2] px of the frames."""
    visible: np.ndarray
    """bool [N, T]"""
