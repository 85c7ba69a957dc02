"""Image files: frames that are stored one by one, as JPEG or PNG."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from teachers.errors import ShardError


def decode_image(content: bytes, name: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB from a JPEG or PNG.

    Raises:
        ShardError: it is damaged, or no image; `name` is in the text.
    """
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ShardError(f"{name}: an image that cannot be decoded ({len(content)} bytes).")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def stacked(images: Sequence[np.ndarray], name: str) -> np.ndarray:
    """uint8 [T, H, W, 3]; a ShardError if there is none, or if they are not of one size."""
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) != 1:
        raise ShardError(f"{name}: frames of one size are needed, not of {sizes or 'none'} (height, width).")
    return np.stack(images)
