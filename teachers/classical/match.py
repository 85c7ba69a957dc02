"""Matching without weights: descriptors similar to DAISY's, which are searched for in every frame
(`search.py`).

Describe  every fourth pixel of every frame as Tola et al. 2010 do: gradients by direction,
          smoothed, read at the point and on two rings around it; beside them the colour.
Memory    descriptors are kept as float16: 400 MB for 80 frames of 384 x 680.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from teachers.classical.bidirectional import ClassicalTeacher
from teachers.classical.patches import sample
from teachers.classical.search import Described, MatchingTeacher, MatchSettings

DIRECTIONS = np.stack(
    [np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1
).astype(np.float32)
RINGS_PX = (6, 12)
SMOOTHING_PX = (2.5, 5.0)
FLAT = 20.0
"""Added to the length of a gradient descriptor before dividing by it, so that positions without
texture resemble only each other."""


@dataclass(frozen=True, kw_only=True)
class DaisySettings(MatchSettings):
    """Where matches are searched for, and which ones are trusted."""

    stride_px: int = 4
    """Distance between neighbouring positions that are described."""


class MatchTeacher(MatchingTeacher, ClassicalTeacher):
    """The teacher `match`."""

    architecture = "descriptor matching in every frame, patch alignment"
    settings_type = DaisySettings
    settings: DaisySettings
    between_cells = False

    def _describe(self, frames: np.ndarray) -> Described:
        stride = self.settings.stride_px
        cells = [describe(frame, stride).astype(np.float16) for frame in frames]
        return Described(cells, np.zeros(2), np.full(2, float(stride)))


def describe(frame: np.ndarray, stride_px: int) -> np.ndarray:
    """float32 [h, w, 151]: descriptors of the pixels (0, 0), (stride, 0), ... of a frame uint8
    [H, W, 3]."""
    height, width = frame.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    slope = np.stack(
        [cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)], axis=-1
    )
    by_direction = np.maximum(slope @ DIRECTIONS.T, 0)
    fine, coarse = (cv2.GaussianBlur(by_direction, (0, 0), sigma) for sigma in SMOOTHING_PX)
    colour = cv2.GaussianBlur(
        cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32) / 255, (0, 0), SMOOTHING_PX[0]
    )

    positions = np.stack(
        np.meshgrid(np.arange(0, width, stride_px), np.arange(0, height, stride_px)), axis=-1
    ).astype(np.float32)
    gradients = [sample(fine, positions)]
    gradients += [
        sample(image, positions + radius * d)
        for image, radius in zip((fine, coarse), RINGS_PX, strict=True)
        for d in DIRECTIONS
    ]
    shape = np.concatenate(gradients, axis=-1)
    shape /= np.linalg.norm(shape, axis=-1, keepdims=True) + FLAT
    colours = [sample(colour, positions)] + [
        sample(colour, positions + RINGS_PX[1] * d) for d in DIRECTIONS[::2]
    ]
    return np.concatenate([shape, *colours], axis=-1)
