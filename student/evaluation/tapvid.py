"""TAP-Vid: the published test sets, read as they are downloaded.

    tapvid-davis         tapvid_davis.pkl            a dict of videos by name
    tapvid-rgb-stacking  tapvid_rgb_stacking.pkl     a list of videos
    tapvid-kinetics      0000_of_0010.pkl, ...       lists, of videos whose frames are JPEG files
    robotap              robotap_split0.pkl, ...     dicts, taken together

A video is a dict: `video` uint8 [T, H, W, 3], or T images as bytes; `points` [N, T, 2], (x, y) as
shares of width and height; `occluded` bool [N, T]. (0, 0) is the corner of the top-left pixel
(Doersch et al. 2022, arXiv 2211.03726).

The files are pickles, and are read by `restricted_pickle`. One file is in memory at a time, less
the videos that are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from labeler.io.storage import is_url
from student.clip import TestClip
from student.evaluation import restricted_pickle
from student.evaluation.files import decode_image, layout, matching, opened, stacked
from student.evaluation.testsets import check_arrays, queried
from teachers.errors import ShardError

TapVid = Literal["tapvid-davis", "tapvid-rgb-stacking", "tapvid-kinetics", "robotap"]

PATTERNS: dict[TapVid, str] = {
    "tapvid-davis": "tapvid_davis*.pkl",
    "tapvid-rgb-stacking": "tapvid_rgb_stacking*.pkl",
    "tapvid-kinetics": "*_of_*.pkl",
    "robotap": "robotap_split*.pkl",
}
"""Official names. A folder in which none matches is one that somebody renamed: all of its pickles
are read."""


def tapvid_clips(dataset: TapVid, root: str) -> Iterator[TestClip]:
    """The videos of a data set at their own size, each point that is ever visible queried in its
    first visible frame.

    Args:
        root: file, folder, or fsspec URL of either.

    Raises:
        ShardError: at once, if there is no such file.
        ShardError: later, if a file is damaged, is refused because its pickle holds more than
            arrays, or has another layout.
    """
    return (clip for url in matching(root, PATTERNS[dataset], "*.pkl") for clip in read_pickle(url))


def read_pickle(url: str) -> Iterator[TestClip]:
    """The videos of one file; see `tapvid_clips`."""
    with opened(url) as file:
        content = restricted_pickle.load(file, url)
    if isinstance(content, dict):
        for name in list(content):
            yield _clip(content.pop(name), str(name), url)
    elif isinstance(content, (list, tuple)):
        name = url.partition("::")[0] if is_url(url) else url
        stem, videos = PurePosixPath(name).stem, list(reversed(content))
        del content
        for number in range(len(videos)):
            yield _clip(videos.pop(), f"{stem}-{number:04d}", url)
    else:
        raise ShardError(
            f"{url}: not a file of TAP-Vid: its pickle holds a {type(content).__name__}, not a "
            "dict or list of videos."
        )


def _clip(video: Any, name: str, url: str) -> TestClip:
    where = f"{url}, video {name}"
    with layout(where, "a video of TAP-Vid, a dict with video, points, and occluded"):
        frames, points, occluded = (
            video["video"],
            np.asarray(video["points"], np.float64),
            np.asarray(video["occluded"], bool),
        )
    frames = _frames(frames, where)
    check_arrays(where, frames, points, occluded)
    shown = points[~occluded]
    if len(shown) and np.median(shown) > 2:
        raise ShardError(
            f"{where}: its points are not shares of width and height: half of them are above "
            f"{np.median(shown):g}."
        )
    height, width = frames.shape[1:3]
    return queried(name, frames, points * (width, height) - 0.5, ~occluded)


def _frames(frames: Any, where: str) -> np.ndarray:
    if isinstance(frames, np.ndarray) and frames.dtype != object:
        return np.asarray(frames)
    if not isinstance(frames, (list, tuple, np.ndarray)) or not all(
        isinstance(frame, (bytes, np.ndarray)) for frame in frames
    ):
        raise ShardError(f"{where}: its video is neither an array nor a list of images.")
    images = [
        decode_image(frame, where) if isinstance(frame, bytes) else np.asarray(frame)
        for frame in frames
    ]
    return stacked(images, where)
