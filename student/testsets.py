"""Test sets: clips with exact tracks to evaluate on, one at a time, so that a set may be larger than memory.

Every clip is in our own units: px of the clip, pixel centres, queries as (t, x, y).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from student.synth import SynthConfig, generate
from teachers.errors import ConfigError, ShardError


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
    """float32 [N, T, 2]"""
    visible: np.ndarray
    """bool [N, T]"""


def procedural_clips(count: int, seed: int = 0) -> Iterator[TestClip]:
    """Clips drawn from the test photographs, the same as those of `tapdistill synth --scene.split test` with these seeds."""
    for number in range(seed, seed + count):
        clip = generate(number, SynthConfig(split="test"))
        yield TestClip(f"procedural-{number}", clip.frames, clip.queries, clip.xy, clip.visible)


def npz_files(root: Path, count: int | None = None) -> list[Path]:
    """The first `count` npz files of a folder, by name.

    Raises:
        ConfigError: no such folder, or none of its files is an npz.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; give the one with the npz files of the test set as --root.")
    files = sorted(root.glob("*.npz"))
    if not files:
        raise ConfigError(
            f"{root}: holds no npz file. `tapdistill synth` writes some, or see docs/commands/eval.md for the arrays."
        )
    return files[:count]


def read_npz(path: Path) -> TestClip:
    """A clip from `video` uint8 [T, H, W, 3], `points` [N, T, 2] px, `occluded` bool [N, T], and, if it is there, `queries` [N, 3].

    Without `queries` each point is queried in its first visible frame; a point that is never visible is left out.

    Raises:
        ShardError: not such a file; the message says what is wrong with it.
    """
    try:
        with np.load(path, allow_pickle=False) as npz:
            frames, xy, occluded = npz["video"], npz["points"], npz["occluded"]
            queries = npz.get("queries")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ShardError(f"{path}: not a test clip: {error}. It needs video, points, and occluded.") from error
    shape = occluded.shape
    fits = frames.ndim == 4 and frames.dtype == np.uint8 and len(shape) == 2 and shape[1] == len(frames)
    if not fits or xy.shape != (*shape, 2) or (queries is not None and queries.shape != (shape[0], 3)):
        arrays = f"video {frames.dtype} {frames.shape}, points {xy.shape}, occluded {shape}"
        raise ShardError(f"{path}: not a test clip: {arrays} are not uint8 [T, H, W, 3], [N, T, 2], [N, T].")
    visible = ~occluded.astype(bool)
    if queries is None:
        seen = visible.any(1)
        xy, visible = xy[seen], visible[seen]
        first = visible.argmax(1)
        queries = np.column_stack([first, xy[np.arange(len(xy)), first]])
    return TestClip(path.stem, frames, queries.astype(np.float32), xy.astype(np.float32), visible)
