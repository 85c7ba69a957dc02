"""Kubric: the synthetic clips on which CoTracker3 is trained before it sees real video, as its
authors release them.

    <root>/<name>/frames/*.png    the frames, in the order of their names
    <root>/<name>/<name>.npy      a pickled dict: coords [N, T, 2] px (x, y), and visibility [N, T],
                                  which in truth says "occluded"

    for sequence in sequences(root):
        clip = read_sequence(sequence)

`student.data.exact.training_clip` takes parts of them to train on.

The root is a folder or any fsspec URL; a sequence is read when it is asked for. Points outside the
frame count as not visible.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from student.clip import TestClip
from student.evaluation.files import decode_image, join, layout, listed, opened, stacked
from student.evaluation.restricted_pickle import load_npy
from student.evaluation.testsets import check_arrays, queried
from teachers.errors import ShardError
from teachers.tracks import inside

READERS = 8
"""Frames that are fetched at once."""


@dataclass(frozen=True)
class KubricSequence:
    """Where a sequence lies."""

    url: str
    name: str


def sequences(root: str) -> list[KubricSequence]:
    """The sequences in a folder, by name; nothing is opened.

    Raises:
        ShardError: no such folder, or no folder in it.
    """
    names = listed(root, "directory")
    if not names:
        raise ShardError(
            f"{root}: holds no folder: Kubric has NAME/frames/*.png and NAME/NAME.npy there."
        )
    return [KubricSequence(join(root, name), name) for name in names]


def read_sequence(sequence: KubricSequence) -> TestClip:
    """The whole clip, each point that is ever visible queried in its first visible frame.

    Raises:
        ShardError: files are missing or damaged, refused because their pickle holds more than
            arrays, or do not fit each other.
    """
    frames, xy, visible = decoded(sequence, fetched(sequence))
    return queried(sequence.name, frames, xy, visible)


@dataclass(frozen=True)
class _Files:
    """What the files of a sequence hold, as it was read."""

    tracks: bytes
    frames: dict[str, bytes]
    """By URL, in the order of the names."""


def fetched(sequence: KubricSequence) -> _Files:
    folder = join(sequence.url, "frames")
    urls = [join(folder, name) for name in listed(folder, "file") if name.endswith(".png")]
    with ThreadPoolExecutor(READERS) as pool:
        return _Files(
            _content(_tracks_url(sequence)), dict(zip(urls, pool.map(_content, urls), strict=True))
        )


def _content(url: str) -> bytes:
    with opened(url) as file:
        return file.read()


def _tracks_url(sequence: KubricSequence) -> str:
    return join(sequence.url, f"{sequence.name}.npy")


def decoded(sequence: KubricSequence, files: _Files) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """frames uint8 [T, H, W, 3], xy float32 [N, T, 2] px, visible bool [N, T]"""
    xy, occluded = _tracks(files.tracks, _tracks_url(sequence))
    with ThreadPoolExecutor(READERS) as pool:
        frames = stacked(
            list(pool.map(decode_image, files.frames.values(), files.frames)),
            join(sequence.url, "frames"),
        )
    check_arrays(sequence.url, frames, xy, occluded)
    return frames, xy, ~occluded & inside(xy, (frames.shape[1], frames.shape[2]))


def _tracks(file: bytes, url: str) -> tuple[np.ndarray, np.ndarray]:
    content = load_npy(io.BytesIO(file), url)
    with layout(url, "a dict with arrays 'coords' and 'visibility'"):
        fields = content.item()
        return np.asarray(fields["coords"], np.float32), np.asarray(fields["visibility"], bool)
