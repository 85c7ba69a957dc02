"""Test sets: clips with exact tracks to evaluate on, one at a time, so that a set may be larger
than memory.

Every clip is in our own units: px of the clip, pixel centres, queries as (t, x, y). Our own sets
are here; published ones are in `tapvid` and `kubric`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from labeler.labels.agreement import RASTER
from student.clip import TestClip
from student.evaluation.files import matching, opened
from student.evaluation.metrics import QueryMode, sample_queries, to_tapvid_raster
from student.synth.scene import SynthConfig, generate
from teachers.errors import ConfigError, ShardError
from teachers.tracks import checked_queries


def procedural_clips(count: int, seed: int = 0) -> Iterator[TestClip]:
    """Clips drawn from the test photographs, the same as those of
    `tapdistill synth --scene.split test` with these seeds."""
    for number in range(seed, seed + count):
        yield generate(number, SynthConfig(split="test"))


def npz_clips(root: str) -> Iterator[TestClip]:
    """The clip of each npz in a folder, or of one npz, in the order of the names.

    Raises:
        ShardError: at once, if there is none; later, if one is not a test clip.
    """
    return map(read_npz, matching(root, "*.npz"))


def read_npz(url: str | Path) -> TestClip:
    """A clip from `video` uint8 [T, H, W, 3], `points` [N, T, 2] px, `occluded` bool [N, T], and,
    if it is there, `queries` [N, 3].

    Without `queries` each point is queried in its first visible frame; a point that is never
    visible is left out.

    Raises:
        ShardError: not such a file; the message says what is wrong with it.
    """
    name = str(url)
    try:
        with opened(name) as file, np.load(file, allow_pickle=False) as npz:
            frames, xy, occluded = npz["video"], npz["points"], npz["occluded"]
            queries = npz.get("queries")
    # TypeError: a single array
    except (ValueError, KeyError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise ShardError(
            f"{name}: not a test clip: {error}. It needs video, points, and occluded."
        ) from error
    check_arrays(name, frames, xy, occluded)
    if queries is None:
        return queried(Path(name).stem, frames, xy, ~occluded.astype(bool))
    if queries.shape != (len(xy), 3):
        raise ShardError(
            f"{name}: not a test clip: queries {queries.shape} are not [N, 3] for {len(xy)} points."
        )
    try:
        queries = checked_queries(queries, frames.shape)
    except (ConfigError, ValueError, TypeError) as error:
        raise ShardError(f"{name}: not a test clip: {error}") from error
    return TestClip(
        Path(name).stem,
        frames,
        queries,
        xy.astype(np.float32),
        ~occluded.astype(bool),
    )


def check_arrays(name: str, frames: np.ndarray, xy: np.ndarray, occluded: np.ndarray) -> None:
    """A ShardError if these are not uint8 [T, H, W, 3], [N, T, 2], and [N, T], or if a visible
    point has no position."""
    shape = occluded.shape
    fits = frames.ndim == 4 and frames.shape[-1] == 3 and frames.size and frames.dtype == np.uint8
    if not fits or len(shape) != 2 or shape[1] != len(frames) or xy.shape != (*shape, 2):
        arrays = (
            f"video {frames.dtype} {list(frames.shape)}, points {list(xy.shape)}, occluded "
            f"{list(shape)}"
        )
        raise ShardError(
            f"{name}: not a test clip: {arrays} are not uint8 [T, H, W, 3], [N, T, 2], [N, T]."
        )
    if not np.isin(occluded, (0, 1)).all():
        raise ShardError(f"{name}: not a test clip: occluded is not True or False everywhere.")
    lost = np.argwhere(~occluded.astype(bool) & ~np.isfinite(xy).all(-1))
    if len(lost):
        point, frame = lost[0]
        raise ShardError(
            f"{name}: not a test clip: point {point} is visible in frame {frame} and has no finite "
            "position there."
        )


def queried(
    name: str, frames: np.ndarray, xy: np.ndarray, visible: np.ndarray, mode: QueryMode = "first"
) -> TestClip:
    """A clip with the queries that TAP-Vid takes from its tracks: see
    `student.evaluation.metrics.sample_queries`.

    A query of a point that is said to be visible outside the frame lies on the frame's edge: no
    tracker looks outside.
    """
    sampled = sample_queries(~visible, xy, mode)
    t, y, x = sampled.query_points.T
    height, width = frames.shape[1:3]
    queries = np.column_stack([t, np.clip(x, -0.5, width - 0.5), np.clip(y, -0.5, height - 0.5)])
    return TestClip(
        name,
        frames,
        queries.astype(np.float32),
        sampled.target_points.astype(np.float32),
        ~sampled.occluded,
    )


def strided(clip: TestClip) -> TestClip:
    """The same points, each queried in all of every fifth frame that show it."""
    return queried(clip.name, clip.frames, clip.xy, clip.visible, "strided")


def on_tapvid_raster(clip: TestClip) -> TestClip:
    """The clip as TAP-Vid shows it to a tracker: 256 x 256 px, whatever its shape, by Pillow's
    Lanczos filter as in the official code."""
    size = clip.frames.shape[1:3]
    if size == (RASTER, RASTER):
        return clip
    frames = np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((RASTER, RASTER), Image.Resampling.LANCZOS))
            for frame in clip.frames
        ]
    )
    places = to_tapvid_raster(clip.queries[:, 1:], size) - 0.5
    queries = np.column_stack([clip.queries[:, 0], places]).astype(np.float32)
    return replace(
        clip,
        frames=frames,
        queries=queries,
        xy=(to_tapvid_raster(clip.xy, size) - 0.5).astype(np.float32),
    )
