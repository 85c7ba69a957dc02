"""Tracks: what a tracker returns, when a point counts as visible, and the checks of what goes in
and comes out.

A point is (x, y) in px of the given frames; an integer is a pixel CENTRE. What is not known is NaN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from teachers.errors import ConfigError, TeacherError


@dataclass(frozen=True)
class Tracks:
    """Tracks of N points over T frames."""

    xy: np.ndarray
    """float32 [N, T, 2], px of the given frames, pixel centres; NaN where not tracked."""
    visibility: np.ndarray
    """float32 [N, T] in [0, 1], as the model defines it; NaN where not tracked or not known to the
    model."""
    confidence: np.ndarray
    """float32 [N, T] in [0, 1], as the model defines it; NaN where not tracked or not known to the
    model."""

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.visibility.shape))
        known = {"visibility": self.visibility, "confidence": self.confidence}
        said = (f"{name} {_known(values)}" for name, values in known.items())
        tracked = has_position(self.xy).mean() if self.visibility.size else 0.0
        return f"Tracks of {shape} points x frames: tracked in {tracked:.0%}, {', '.join(said)}"

    @classmethod
    def nan(cls, n: int, t: int) -> Tracks:
        """The tracks of a teacher that failed: NaN everywhere."""
        return cls(
            np.full((n, t, 2), np.nan, np.float32),
            np.full((n, t), np.nan, np.float32),
            np.full((n, t), np.nan, np.float32),
        )


@dataclass(frozen=True)
class DenseFlow:
    """Where every pixel of one frame is in every frame."""

    flow: np.ndarray
    """float32 [T, H, W, 2]: (dx, dy) px from where it is in the query frame."""
    visibility: np.ndarray
    """float32 [T, H, W] in [0, 1], as the model defines it."""
    confidence: np.ndarray
    """float32 [T, H, W] in [0, 1], as the model defines it."""


def has_position(xy: np.ndarray) -> np.ndarray:
    """bool [...]: where both coordinates of `xy` [..., 2] are finite. (`all(-1)` over an axis of
    length two takes twenty times as long.)"""
    return np.isfinite(xy[..., 0]) & np.isfinite(xy[..., 1])


def _known(values: np.ndarray) -> str:
    return "known" if np.isfinite(values).any() else "not known"


@dataclass(frozen=True)
class VisibleRule:
    """When a point counts as visible: visibility, or visibility times confidence, above a
    threshold.

    A teacher without visibility (`quantity="none"`) sees every point that it tracks.
    """

    quantity: Literal["v", "v*c", "none"]
    threshold: float = 0.0

    def __call__(self, tracks: Tracks) -> np.ndarray:
        """bool [N, T]: where points count as visible; False where xy is NaN."""
        return has_position(tracks.xy) & self.seen(tracks.visibility, tracks.confidence)

    def seen(self, visibility: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """bool, in the shape of both arrays: whether points that have a position count as
        visible."""
        if self.quantity == "none":
            return np.ones(visibility.shape, bool)
        value = visibility if self.quantity == "v" else visibility * confidence
        return value > self.threshold  # NaN > x is False

    def __str__(self) -> str:
        short = f"{self.threshold:g}"
        exact = short if float(short) == self.threshold else repr(float(self.threshold))
        return "none" if self.quantity == "none" else f"{self.quantity} > {exact}"

    @classmethod
    def parse(cls, text: str) -> VisibleRule:
        """The inverse of `str`: "v > 0.9", "v*c > 0.5", or "none"."""
        match = re.fullmatch(r"(v|v\*c) > (\d+\.?\d*(?:e[-+]?\d+)?|\.\d+)", text)
        if text != "none" and not match:
            raise ConfigError(
                f"{text!r} is not a visible rule: write 'v > 0.9', 'v*c > 0.5', or 'none'."
            )
        return cls("none") if not match else cls("v*c" if "*" in match[1] else "v", float(match[2]))


def checked_frames(frames: np.ndarray) -> np.ndarray:
    """`frames`, if they are uint8 [T >= 1, H >= 1, W >= 1, 3]; else a ConfigError that says what
    they are."""
    if (
        not isinstance(frames, np.ndarray)
        or frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[-1] != 3
    ):
        what = (
            f"{frames.dtype} {frames.shape}"
            if isinstance(frames, np.ndarray)
            else type(frames).__name__
        )
        raise ConfigError(f"frames must be a uint8 array [T, H, W, 3] in RGB, not {what}.")
    if 0 in frames.shape:
        raise ConfigError(
            f"frames {frames.shape} are empty: at least one frame of one pixel is needed."
        )
    return frames


def checked_queries(queries: np.ndarray, frames_shape: tuple[int, ...]) -> np.ndarray:
    """float32 [N, 3], if every query is (t, x, y) with a whole t in the clip and a position in the
    frame; else a ConfigError."""
    queries = np.asarray(queries, dtype=np.float64)
    if queries.size == 0:
        return np.zeros((0, 3), np.float32)
    if queries.ndim != 2 or queries.shape[1] != 3:
        raise ConfigError(f"queries must be an array [N, 3] of (t, x, y), not {queries.shape}.")
    frames, height, width, _ = frames_shape
    t, x, y = queries.T
    with np.errstate(invalid="ignore"):
        bad = ~(
            (t == np.floor(t))
            & (t >= 0)
            & (t < frames)
            & (x >= -0.5)
            & (x <= width - 0.5)
            & (y >= -0.5)
            & (y <= height - 0.5)
        )
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise ConfigError(
            f"query {i} is (t, x, y) = ({t[i]:g}, {x[i]:g}, {y[i]:g}): t must be a whole number in "
            f"0..{frames - 1}, x in -0.5..{width - 0.5}, y in -0.5..{height - 0.5} "
            f"({int(bad.sum())} of {len(queries)} queries are wrong)."
        )
    return queries.astype(np.float32)


def checked_answer(tracks: Tracks, n: int, t: int, name: str) -> Tracks:
    """`tracks` as float32, if a reader can rely on them: [N, T], positions finite or NaN in both x
    and y, probabilities in [0, 1], and NaN where the position is; else a TeacherError that names
    the teacher."""
    if (
        tracks.xy.shape != (n, t, 2)
        or tracks.visibility.shape != (n, t)
        or tracks.confidence.shape != (n, t)
    ):
        raise TeacherError(
            f"teacher {name!r} returned xy {tracks.xy.shape}, visibility "
            f"{tracks.visibility.shape}, confidence {tracks.confidence.shape} for {n} queries in "
            f"{t} frames: it must return [N, T, 2], [N, T], [N, T]."
        )
    placed, nowhere = has_position(tracks.xy), np.isnan(tracks.xy).all(-1)
    wrong = {"position that is infinite, or NaN in one of x and y": ~placed & ~nowhere}
    for what, value in (("visibility", tracks.visibility), ("confidence", tracks.confidence)):
        known = ~np.isnan(value)
        wrong[f"{what} outside 0..1"] = known & ~((value >= 0) & (value <= 1))
        wrong[f"{what} of a point without a position"] = known & ~placed
    for what, where in wrong.items():
        if where.any():
            row, frame = np.argwhere(where)[0]
            raise TeacherError(
                f"teacher {name!r} gave a {what}, to query {row} in frame {frame} "
                f"({int(where.sum())} of {where.size} points): its answer cannot be used."
            )
    return Tracks(
        *(
            value.astype(np.float32, copy=False)
            for value in (tracks.xy, tracks.visibility, tracks.confidence)
        )
    )


def inside(xy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:  # [..., 2] px -> [...] bool
    """Whether a position is on a pixel of the frame."""
    height, width = size_hw
    return np.logical_and.reduce((xy > -0.5) & (xy < (width - 0.5, height - 0.5)), axis=-1)
