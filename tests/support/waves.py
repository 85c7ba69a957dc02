"""Clips with exact motion: sums of plane waves, evaluated at moved coordinates instead of
resampled."""

from __future__ import annotations

import numpy as np


def texture(xy: np.ndarray, seed: int = 0) -> np.ndarray:
    """float64 [..., 3] in grey levels at points [..., 2]: 24 waves a channel of 6 to 40 px, the
    same for the same seed."""
    rng = np.random.default_rng(seed)
    wavelength, angle = rng.uniform(6, 40, (24, 3)), rng.uniform(0, np.pi, (24, 3))
    phase, height = rng.uniform(0, 2 * np.pi, (24, 3)), rng.uniform(0.2, 1, (24, 3))
    value = np.full((*xy.shape[:-1], 3), 127.5)
    for length, turn, start, high in zip(wavelength, angle, phase, height, strict=True):
        along = xy[..., :1] * np.cos(turn) + xy[..., 1:] * np.sin(turn)
        value += 20 * high * np.sin(2 * np.pi / length * along + start)
    return value


def grid(height: int, width: int) -> np.ndarray:
    """float64 [H, W, 2]: (x, y) of every pixel centre."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def translating(
    *, frames: int, height: int, width: int, velocity: tuple[float, float], seed: int = 0
) -> np.ndarray:
    """uint8 [T, H, W, 3]: what is at p in frame 0 is at p + t * velocity in frame t."""
    places = grid(height, width)
    return to_bytes(
        np.stack([texture(places - t * np.array(velocity), seed) for t in range(frames)])
    )


def turning(
    *, frames: int, side: int, radians: float, growth: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [T, side, side, 3] and maps [T, 2, 2] of offsets from the centre: each frame turned and
    grown a little more."""
    t = np.arange(frames)
    cos, sin = np.cos(radians * t), np.sin(radians * t)
    maps = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2) * (growth**t)[:, None, None]
    offsets = grid(side, side) - (side - 1) / 2
    return to_bytes(np.stack([texture(offsets @ np.linalg.inv(m).T, seed) for m in maps])), maps
