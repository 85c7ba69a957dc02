"""Files: published data sets wherever they lie, as a file, a folder, or any fsspec URL.

Frames that are stored one by one are JPEG or PNG files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import BinaryIO, Literal

import cv2
import numpy as np

from labeler.io.storage import file_system, is_url, transient_errors
from teachers.errors import ShardError


def join(url: str, name: str) -> str:
    """The URL of `name` in the folder `url`; of a chain such as zip://folder::s3://bucket/data.zip,
    the first part is the folder."""
    if not is_url(url):
        return f"{url.rstrip('/')}/{name}"
    folder, chain, rest = url.partition("::")
    return f"{folder.rstrip('/')}/{name}{chain}{rest}"


def listed(folder: str, kind: Literal["file", "directory"]) -> list[str]:
    """Names in a folder, sorted.

    Raises:
        ShardError: no such folder.
    """
    fs, path = file_system(folder)
    with transient_errors(f"list {folder}"):
        try:
            entries = fs.ls(path, detail=True) if fs.isdir(path) else None
        except FileNotFoundError:
            entries = None
    if entries is None:
        raise ShardError(f"{folder}: no such file or folder.")
    return sorted(
        entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == kind
    )


def matching(root: str, *patterns: str) -> list[str]:
    """URLs of the files: `root` itself if it is one, else those in it that the first pattern
    matches of those that match any, by name.

    Raises:
        ShardError: no such file or folder, or none of its files matches.
    """
    fs, path = file_system(root)
    with transient_errors(f"look at {root}"):
        if fs.isfile(path):
            return [root]
    names = listed(root, "file")
    for pattern in patterns:
        found = [join(root, name) for name in names if fnmatch(name, pattern)]
        if found:
            return found
    there = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
    raise ShardError(
        f"{root}: holds no file {' or '.join(patterns)} (its files: {there}). Is it the right "
        "--root for this --dataset?"
    )


@contextlib.contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """The file, for reading.

    Raises:
        ShardError: there is none.
    """
    fs, path = file_system(url)
    with transient_errors(f"read {url}"):
        try:
            file = fs.open(path, "rb")
        except FileNotFoundError as error:
            raise ShardError(f"{url} does not exist.") from error
        with file:
            yield file


def decode_image(content: bytes, name: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB from a JPEG or PNG.

    Raises:
        ShardError: it is damaged, or no image; `name` is in the text.
    """
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ShardError(f"{name}: an image that cannot be decoded ({len(content)} bytes).")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@contextlib.contextmanager
def layout(where: str, expected: str) -> Iterator[None]:
    """A ShardError where the block finds another layout than `expected` in what a file holds."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ShardError(f"{where}: not {expected} ({type(error).__name__}: {error}).") from error


def stacked(images: Sequence[np.ndarray], name: str) -> np.ndarray:
    """uint8 [T, H, W, 3]; a ShardError if there is none, or if they are not of one size."""
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) != 1:
        raise ShardError(
            f"{name}: frames of one size are needed, not of {sizes or 'none'} (height, width)."
        )
    return np.stack(images)
