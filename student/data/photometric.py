"""Photometric: the student's frames look different, the labels stay those of the clean ones.

    colour -> gamma -> blur -> noise -> patches

Each has its own chance; all is drawn from the generator that is passed in.

Of the kinds that CoTracker's training uses: colour jitter and blur over the whole clip, and patches
that hide a part of single frames. What a patch hides becomes invisible, and its position stays
known. No patch lies on a query in its own frame: the network could not know what it is asked for.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from student.data.batch import TrainClip

CHANCE = 0.5
"""Of each kind of change, clip by clip."""
COLOUR, HUE_RAD, GAMMA, SIGMA_PX, NOISE = 0.3, 0.15, 0.3, 1.0, 6.0
"""Largest changes at strength 1: factors of brightness, contrast, and saturation; turn of the hue;
log of gamma; width of the blur at 256 px; standard deviation of the noise in grey levels."""
PATCH_CHANCE, MOST_PATCHES, PATCH_SIDE = 0.3, 3, (0.03, 0.25)
"""Patches at strength 1: chance of a frame, most in a frame, and their sides as shares of the
frame's short side."""

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def photometric(clip: TrainClip, strength: float, rng: np.random.Generator) -> TrainClip:
    """The clip with other frames; at strength 0 the clip itself, and nothing is drawn."""
    if strength == 0:
        return clip
    frames = np.ascontiguousarray(clip.frames)
    for change in (coloured, brightened, blurred, noisy):
        if rng.random() < CHANCE:
            frames = change(frames, strength, rng)
    changed = replace(clip, frames=frames)
    return patched(changed, strength, rng) if rng.random() < CHANCE else changed


def coloured(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Saturation and hue, by one 3 x 3 matrix for the whole clip."""
    saturation, turn = (
        np.exp(strength * COLOUR * rng.uniform(-1, 1)),
        strength * HUE_RAD * rng.uniform(-1, 1),
    )
    turned = saturation * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    in_yiq = np.eye(3)
    in_yiq[1:, 1:] = turned
    matrix = np.linalg.inv(_TO_YIQ) @ in_yiq @ _TO_YIQ
    rows = cv2.transform(frames.reshape(-1, *frames.shape[2:]), matrix.astype(np.float32))
    return rows.reshape(frames.shape)


def brightened(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, and gamma, by one table for the whole clip."""
    brightness, contrast = np.exp(strength * COLOUR * rng.uniform(-1, 1, 2))
    gamma = np.exp(strength * GAMMA * rng.uniform(-1, 1))
    grey = (np.arange(256) / 255) ** gamma
    table = ((grey * brightness - 0.5) * contrast + 0.5).clip(0, 1) * 255
    return cv2.LUT(frames.reshape(-1, *frames.shape[2:]), table.round().astype(np.uint8)).reshape(
        frames.shape
    )


def blurred(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian blur of one width for the whole clip."""
    sigma = rng.uniform(0.1, 1) * strength * SIGMA_PX * min(frames.shape[1:3]) / 256
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def noisy(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of one width, drawn anew for every pixel of every frame."""
    width = rng.uniform(0, 1) * strength * NOISE
    grain = (width * rng.standard_normal(frames.shape, dtype=np.float32)).round().astype(np.int16)
    return (frames + grain).clip(0, 255).astype(np.uint8)


def patched(clip: TrainClip, strength: float, rng: np.random.Generator) -> TrainClip:
    """Patches of one colour on some frames; points below them are not visible there."""
    frames, visible = clip.frames.copy(), clip.visible.copy()
    height, width = frames.shape[1:3]
    for t in np.flatnonzero(rng.random(len(frames)) < strength * PATCH_CHANCE):
        for _ in range(rng.integers(1, MOST_PATCHES + 1)):
            sides = np.maximum(1, rng.uniform(*PATCH_SIDE, 2) * min(height, width)).astype(int)
            x, y = rng.integers(0, (width, height))
            colour = rng.integers(0, 256, 3)
            if _below(clip.queries[clip.queries[:, 0] == t, 1:], x, y, sides).any():
                continue
            frames[t, y : y + sides[1], x : x + sides[0]] = colour
            visible[:, t] &= ~_below(clip.xy[:, t], x, y, sides)
    return replace(clip, frames=frames, visible=visible)


def _below(
    xy: np.ndarray, x: int, y: int, sides: np.ndarray
) -> np.ndarray:  # [..., 2] px -> [...] bool
    """Whether a position is on a pixel of the patch whose first pixel is (x, y)."""
    return np.logical_and.reduce(
        (xy >= np.array([x, y]) - 0.5) & (xy < np.array([x, y]) + sides - 0.5), axis=-1
    )
