"""Frames come to RGB at any size without a shift of colours or places."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from labeler.video.colours import ShownRGB


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (40, 56), (96, 128), (30, 100)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "rgb24", "gray", "yuv420p10le"])
def test_the_conversion_resizes_as_the_exact_conversion_and_a_mean_of_areas(size, pix_fmt):
    """Against float arithmetic on the frame that is converted, exactly, before it is resized."""
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([90 + 60 * np.sin(x / 5), 90 + 60 * np.cos(y / 4), 60 + x + y], -1)
    frame = av.VideoFrame.from_ndarray(smooth.astype(np.uint8), format="rgb24").reformat(
        format=pix_fmt
    )
    found = ShownRGB().of(frame, size)
    whole = ShownRGB().of(frame, (48, 64)).astype(np.float32)
    how = cv2.INTER_AREA if size[0] <= 48 and size[1] <= 64 else cv2.INTER_CUBIC
    expected = cv2.resize(whole, size[::-1], interpolation=how)
    assert found.shape == (*size, 3)
    assert np.abs(found - expected).mean() < 1.5
    assert np.abs((found - expected).mean((0, 1))).max() < 0.6  # no shift of a colour
