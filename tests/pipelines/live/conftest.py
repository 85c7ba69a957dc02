from __future__ import annotations

import cv2
import numpy as np
import pytest

SIZE = (96, 128)
MOVE = np.array([2, 1])
"""px a frame by which the texture of `frames` moves to the upper left."""


@pytest.fixture(scope="session")
def moving() -> np.ndarray:
    """uint8 [40, 96, 128, 3]: a texture that moves by (-2, -1) px a frame."""
    noise = np.random.default_rng(3).integers(0, 256, (140, 210, 3), np.uint8)
    noise = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([noise[t : t + SIZE[0], 2 * t : 2 * t + SIZE[1]] for t in range(40)])
