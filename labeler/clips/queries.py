"""Queries: the points of a clip that teachers are asked to follow.

In   frames uint8 [T, H, W, 3]. Out: `Queries`, N points (t, x, y) and the sampler that chose each.

    sift      where a point can be found again: SIFT key points in 8 frames of the first quarter, as
              CoTracker3's real-video recipe has it
    motion    where something moves and has contrast
    uniform   anywhere in space and time; also fills what the others leave short (a flat or a still
              clip has no other points)
    grid      a regular grid in one frame, for looking at; no share of it by default

An integer coordinate is a pixel centre. Coordinates are rounded to 1/64 px, as shards store them,
and are in 0..W-1 and 0..H-1; t is a whole frame index. Equal frames, config, and seed give equal
queries.
"""

from __future__ import annotations

import csv
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import cv2
import numpy as np

from teachers import ConfigError
from teachers.tracks import checked_frames

STEPS_PER_PX = 64
"""Stored coordinates are multiples of 1 / 64 px."""
NOISE_LEVELS = 4.0
"""The motion sampler takes a smaller change from frame to frame, in grey levels, for noise."""
_MOTION_SIDE = 96
"""Short side, in px, at which the motion sampler compares frames."""


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """How many points are followed, and where they are. The share that is left is drawn
    uniformly."""

    count: int = 1024
    """How many queries a clip has."""

    sift: float = 0.75
    """Share of SIFT key points; if there are too few, uniform points take their place."""

    motion: float = 0.125
    """Share of points where something moves; in a still clip, uniform points take their place."""

    grid: float = 0.0
    """Share of points on a regular grid in frame 0."""

    sift_frames: int = 8
    """Frames in which SIFT key points are looked for (CoTracker3: 8)."""

    sift_part: float = 0.25
    """Part of the clip, from its start, in which those frames lie (CoTracker3: the first quarter).
    With 1, they are spread over the whole clip: one in each of `sift_frames` equal parts."""

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"count = {self.count}: the number of queries cannot be negative.")
        shares = self.sift, self.motion, self.grid
        if not (min(shares) >= 0 and sum(shares) <= 1 + 1e-9):
            raise ConfigError(
                f"sift = {self.sift:g}, motion = {self.motion:g}, grid = {self.grid:g}: shares "
                "must not be negative and must sum to 1 at most; what is left is uniform."
            )
        if self.sift_frames < 1 or not 0 <= self.sift_part <= 1:
            raise ConfigError(
                f"sift_frames = {self.sift_frames}, sift_part = {self.sift_part:g}: at least 1 "
                "frame, and a part in [0, 1]; CoTracker3 takes 8 frames of the first 0.25."
            )


@dataclass(frozen=True)
class Queries:
    """The queries of a clip, as a shard stores them."""

    points: np.ndarray
    """float32 [N, 3] as (t, x, y): whole frame index, px, pixel centres."""
    sampler: np.ndarray
    """unicode [N]: "sift", "motion", "uniform", or "grid"."""


def sample_queries(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    config: QueryConfig,
    seed: int | np.random.Generator,
) -> Queries:
    """`config.count` queries of a clip: SIFT first, then grid, motion, and uniform ones."""
    checked_frames(frames)
    rng = np.random.default_rng(seed)
    parts = {
        "sift": sift(
            frames, round(config.count * config.sift), rng, config.sift_frames, config.sift_part
        ),
        "grid": grid(frames.shape, round(config.count * config.grid)),
        "motion": motion(frames, round(config.count * config.motion), rng),
    }
    found = sum(len(part) for part in parts.values())
    parts["uniform"] = uniform(frames.shape, max(0, config.count - found), rng)
    # the rounded shares may add up to one too many
    points = np.concatenate(list(parts.values()))[: config.count]
    return Queries(
        points, np.repeat(list(parts), [len(part) for part in parts.values()])[: config.count]
    )


def sift(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    count: int,
    rng: np.random.Generator,
    n_frames: int = 8,
    part: float = 0.25,
) -> np.ndarray:  # float32 [<= count, 3]
    """SIFT key points in `n_frames` frames drawn from the first `part` of the clip, an equal number
    of the strongest in each. With a `part` of 1, one frame is drawn from each of `n_frames` equal
    parts of it.

    CoTracker3's script draws frames with replacement, and counts a point once for each of its
    orientations. A query that is asked twice teaches nothing more, so here frames and points are
    distinct. Fewer than `count` may be found.
    """
    if part == 1:
        edges = np.linspace(0, len(frames), min(n_frames, len(frames)) + 1).astype(int)
        drawn = rng.integers(edges[:-1], edges[1:])
    else:
        last = min(int(len(frames) * part), len(frames) - 1)
        drawn = np.sort(rng.choice(last + 1, size=min(n_frames, last + 1), replace=False))
    per_frame = math.ceil(count / len(drawn))
    found = []
    for t in drawn:
        # a point usually has up to two orientations
        keypoints = sift_keypoints(frames, [t], 2 * per_frame)
        points = _stored(keypoints[np.argsort(-keypoints[:, 3], kind="stable"), :3], frames.shape)
        _, first = np.unique(points, axis=0, return_index=True)
        found.append(points[np.sort(first)][:per_frame])
    return np.concatenate(found)[:count]


def sift_keypoints(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    indices: np.ndarray | list[int],
    per_frame: int,
) -> np.ndarray:  # float64 [n, 4]
    """The `per_frame` strongest SIFT key points of each listed frame, as (t, x, y, response), in
    the order of OpenCV's detector.

    For OpenCV, integers are pixel centres. A point with several orientations comes once for each,
    and ties may exceed `per_frame`.
    """
    if per_frame == 0:  # OpenCV would take 0 for "all"
        return np.zeros((0, 4))
    detector = cv2.SIFT.create(nfeatures=per_frame)
    rows = [
        (t, *key.pt, key.response)
        for t in indices
        for key in detector.detect(np.ascontiguousarray(frames[t]), None)
    ]
    return np.array(rows, np.float64).reshape(-1, 4)


def motion(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:  # float32 [count, 3], or [0, 3] where nothing moves
    """Points drawn in proportion to how fast the picture changes, in grey levels above the noise.

    A position in frame t has as its weight the mean of its changes from t - 1 and to t + 1, so
    points lie on the object that moves, and beside it, on what it uncovers and is about to cover.
    Change grows with speed and with contrast: a moving wall without texture, on which nothing can
    be tracked, gets few points, and under a moving camera all textured positions are equally
    likely.
    """
    weights = motion_weights(frames)
    total = weights.sum()
    if total == 0:
        return np.zeros((0, 3), np.float32)
    cells = np.searchsorted(
        np.cumsum(weights, dtype=np.float64), rng.random(count) * total, side="right"
    )
    t, row, column = np.unravel_index(np.minimum(cells, weights.size - 1), weights.shape)
    _, height, width, _ = frames.shape
    x = (column + rng.random(count)) * width / weights.shape[2] - 0.5
    y = (row + rng.random(count)) * height / weights.shape[1] - 0.5
    return _stored(np.stack([t, x, y], axis=1), frames.shape)


def motion_weights(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
) -> np.ndarray:  # float32 [T, h, w]
    """Change of each cell of a smaller picture (short side 96 px), in grey levels above the noise;
    0 where nothing moves."""
    _, height, width, _ = frames.shape
    scale = min(1.0, _MOTION_SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.stack(
        [
            cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
    ).astype(np.float32)
    if len(small) == 1:
        return np.zeros_like(small)
    steps = np.maximum(np.abs(np.diff(small, axis=0)) - NOISE_LEVELS, 0)
    # the first and the last frame have only one neighbour
    return (np.concatenate([steps[:1], steps]) + np.concatenate([steps, steps[-1:]])) / 2


def uniform(
    shape: tuple[int, ...],  # of the frames, [T, H, W, 3]
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:  # float32 [count, 3]
    """Points anywhere: every frame, and every position between the outermost pixel centres, is
    equally likely."""
    length, height, width, _ = shape
    t = rng.integers(0, length, count)
    xy = rng.random((count, 2)) * (width - 1, height - 1)
    return _stored(np.column_stack([t, xy]), shape)


def grid(
    shape: tuple[int, ...],  # of the frames, [T, H, W, 3]
    count: int,
    t: int = 0,
) -> np.ndarray:  # float32 [count, 3]
    """Points on a regular grid in frame t, row by row, with nearly square cells; spread evenly if
    `count` does not fill the last row."""
    if count == 0:
        return np.zeros((0, 3), np.float32)
    _, height, width, _ = shape
    rows = min(count, max(1, round(math.sqrt(count * height / width))))
    columns = math.ceil(count / rows)
    cell = np.round(np.linspace(0, rows * columns - 1, count))
    x = (cell % columns + 0.5) * width / columns - 0.5
    y = (cell // columns + 0.5) * height / rows - 0.5
    return _stored(np.stack([np.full(count, t), x, y], axis=1), shape)


def read_queries(path: str | Path) -> np.ndarray:  # float32 [N, 3]
    """Queries (t, x, y) from a file: an npz with `queries` [N, 3], or a csv with the columns t, x,
    y.

    Whether they are in the clip is checked when they are tracked.

    Raises:
        ConfigError: there is no such file, it has another format, or something in it is not a
            number; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file of queries. Give an npz with `queries`, or a csv with the "
            "columns t, x, y."
        )
    if path.suffix == ".npz":
        points = _from_npz(path)
    elif path.suffix == ".csv":
        points = _from_csv(path)
    else:
        raise ConfigError(
            f"{path}: queries are read from .npz or .csv, not "
            f"{path.suffix or 'a file without a suffix'!r}."
        )
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise ConfigError(
            f"{path}: query {bad[0]} is {points[bad[0]].tolist()}: t, x, and y must be finite "
            "numbers."
        )
    return points.astype(np.float32)


def _from_npz(path: Path) -> np.ndarray:
    if not is_zipfile(path):
        raise ConfigError(f"{path}: not a readable npz.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "queries" not in arrays:
                raise ConfigError(
                    f"{path}: has no array `queries`, only {', '.join(arrays.files) or 'nothing'}."
                )
            points = np.asarray(arrays["queries"], np.float64)
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path}: not a readable npz of numbers ({error}).") from error
    if points.ndim != 2 or points.shape[1] != 3:
        raise ConfigError(
            f"{path}: `queries` has the shape {points.shape}: it must be [N, 3], rows of (t, x, y)."
        )
    return points


def _from_csv(path: Path) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: not a readable csv ({error}).") from error
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [name for name in ("t", "x", "y") if name not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(
            f"{path}: has no column {', '.join(missing)}: its first line must name the columns t, "
            f"x, y, but is {','.join(rows.fieldnames or ())!r}."
        )
    points = []
    for row in rows:
        try:
            points.append([float(row[name]) for name in ("t", "x", "y")])
        except (TypeError, ValueError):
            raise ConfigError(
                f"{path}, line {rows.line_num}: t, x, y are "
                f"{[row[name] for name in ('t', 'x', 'y')]}: they must be three numbers."
            ) from None
    return np.array(points, np.float64).reshape(-1, 3)


def _stored(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # float32 [N, 3]
    """Points (t, x, y) as they are stored: x and y in steps of 1/64 px, between the outermost pixel
    centres."""
    _, height, width, _ = shape
    xy = np.round(points[:, 1:] * STEPS_PER_PX) / STEPS_PER_PX
    return np.column_stack([points[:, 0], np.clip(xy, 0, (width - 1, height - 1))]).astype(
        np.float32
    )
