"""Motion: how the layers of a procedural clip move, by smooth curves, the homographies made of
them, and bends.

A path or a bend can be evaluated at any time, between frames too, which motion blur needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEND_WAVES = 2
STEEPEST = 0.05
"""Largest shift of one wave of a bend, in wavelengths: all of them together then shift neighbours
by less than their distance, so nothing folds over and the inverse of a bend exists."""
INVERSE_STEPS = 40
"""Each leaves at most 0.63 of the error."""


@dataclass(frozen=True)
class Curve:
    """A smooth random function of time: a sum of slow cosines."""

    amplitudes: np.ndarray  # [C]
    frames: int

    def at(self, t: np.ndarray) -> np.ndarray:  # [T] frames -> [T]
        """Its values at any times."""
        terms = np.arange(1, 1 + len(self.amplitudes))
        return self.amplitudes @ np.cos(np.pi * np.outer(terms, t + 0.5) / self.frames)


def draw_curve(rng: np.random.Generator, frames: int, amount: float, rough: bool = False) -> Curve:
    """With root mean square `amount` over the frames. Two cosines and one more for every 12 frames;
    rough ones have twice as many, and the fast ones are stronger."""
    terms = np.arange(1, 3 + frames // (6 if rough else 12))
    weights = rng.normal(size=len(terms)) / terms ** (0.6 if rough else 1)
    return Curve(amount * np.sqrt(2) * (weights / np.linalg.norm(weights)), frames)


def smooth_curve(rng: np.random.Generator, frames: int, amount: float) -> np.ndarray:
    """Its values [T] in the frames."""
    return draw_curve(rng, frames, amount).at(np.arange(frames))


@dataclass(frozen=True, kw_only=True)
class Movement:
    """A moving plane: a smooth homography from px around its origin to px of the frame."""

    centre: np.ndarray
    """(x, y) px of the frame, about where the origin is."""
    x: Curve
    y: Curve
    angle: Curve
    log_scale: Curve
    tilt_x: Curve
    tilt_y: Curve

    def at(self, t: np.ndarray) -> np.ndarray:  # [T] frames -> [T, 3, 3]
        """The homographies at any times."""
        curves = (self.x, self.y, self.angle, self.log_scale, self.tilt_x, self.tilt_y)
        x, y, angle, log_scale, tilt_x, tilt_y = (curve.at(t) for curve in curves)
        cos, sin = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
        zero, one = np.zeros(len(t)), np.ones(len(t))
        similarity = np.array([[cos, -sin, zero], [sin, cos, zero], [tilt_x, tilt_y, one]])
        shift = np.array(
            [[one, zero, self.centre[0] + x], [zero, one, self.centre[1] + y], [zero, zero, one]]
        )
        return shift.transpose(2, 0, 1) @ similarity.transpose(2, 0, 1)


def draw_movement(
    rng: np.random.Generator,
    frames: int,
    centre: np.ndarray,
    amount: float,
    shift_px: float,
    turn: float,
    zoom: float,
    tilt: float,
    rough: bool = False,
) -> Movement:
    """`shift_px`, `turn` (radians), `zoom` (of the scale's logarithm), and `tilt` (of 1 / px, the
    perspective) are root mean squares over time at amount 1."""
    x, y, angle, log_scale, tilt_x, tilt_y = (
        draw_curve(rng, frames, amount * each, rough)
        for each in (shift_px, shift_px, turn, zoom, tilt, tilt)
    )
    return Movement(
        centre=centre, x=x, y=y, angle=angle, log_scale=log_scale, tilt_x=tilt_x, tilt_y=tilt_y
    )


@dataclass(frozen=True)
class Bend:
    """A change of shape: at a place of the unbent plane one sees the texture's place + sum over V
    waves of shift * sin(wave . place + phase). All in px of the texture."""

    wave: np.ndarray  # [V, 2]    radians / px
    phase: np.ndarray  # [V]
    shift: np.ndarray  # [T, V, 2] px

    @property
    def reach_px(self) -> float:
        """No place is shifted farther."""
        return float(np.linalg.norm(self.shift, axis=-1).sum(-1).max(initial=0))

    def to_texture(
        self, plane: np.ndarray, t: np.ndarray | int
    ) -> np.ndarray:  # [..., 2], frames [...] -> [..., 2]
        """What is seen at places of the unbent plane; leading axes broadcast."""
        strength = np.sin(plane @ self.wave.T.astype(plane.dtype) + self.phase.astype(plane.dtype))
        shift = self.shift[t].astype(plane.dtype)
        return plane + (
            strength @ shift if np.ndim(t) == 0 else (strength[..., None, :] @ shift)[..., 0, :]
        )

    def to_plane(
        self, texture: np.ndarray, t: np.ndarray
    ) -> np.ndarray:  # [..., 2], frames [...] -> [..., 2]
        """Where places of the texture are seen: the fixed point of
        `plane = texture - shift there`."""
        plane = texture
        for _ in range(INVERSE_STEPS):
            plane = texture - (self.to_texture(plane, t) - plane)
        return plane


@dataclass(frozen=True)
class Bending:
    """A bend at any time."""

    wave: np.ndarray  # [V, 2]
    phase: np.ndarray  # [V]
    most: np.ndarray  # [V, 2] px
    strength: tuple[Curve, ...]  # V

    def at(self, t: np.ndarray) -> Bend:
        """The bend at times [T] in frames."""
        strength = np.tanh([curve.at(t) for curve in self.strength])  # [V, T]
        return Bend(self.wave, self.phase, strength.T[..., None] * self.most)


def draw_bending(rng: np.random.Generator, frames: int, amount: float, size_px: float) -> Bending:
    """Waves of about `size_px`; at amount 1 as steep as can be."""
    length, angle = (
        size_px * rng.uniform(0.8, 2, BEND_WAVES),
        rng.uniform(0, 2 * np.pi, (2, BEND_WAVES)),
    )
    wave = 2 * np.pi / length * np.stack([np.cos(angle[0]), np.sin(angle[0])])
    most = amount * STEEPEST * length * np.stack([np.cos(angle[1]), np.sin(angle[1])])
    strength = tuple(draw_curve(rng, frames, 1.0) for _ in range(BEND_WAVES))
    return Bending(wave.T, rng.uniform(0, 2 * np.pi, BEND_WAVES), most.T, strength)
