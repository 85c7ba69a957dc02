"""Files: published data sets wherever they lie, as a file, a folder, or any fsspec URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import BinaryIO, Literal

from labeler.storage import file_system, surroundings
from teachers.errors import ShardError


def join(url: str, name: str) -> str:
    """The URL of `name` in the folder `url`; of a chain such as zip://folder::s3://bucket/data.zip, the first part is the folder."""
    folder, chain, rest = url.partition("::")
    return f"{folder.rstrip('/')}/{name}{chain}{rest}"


def listed(folder: str, kind: Literal["file", "directory"]) -> list[str]:
    """Names in a folder, sorted.

    Raises:
        ShardError: no such folder.
    """
    fs, path = file_system(folder)
    with surroundings(f"list {folder}"):
        try:
            entries = fs.ls(path, detail=True) if fs.isdir(path) else None
        except FileNotFoundError:
            entries = None
    if entries is None:
        raise ShardError(f"{folder}: no such file or folder.")
    return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == kind)


def matching(root: str, *patterns: str) -> list[str]:
    """URLs of the files: `root` itself if it is one, else those in it that the first pattern matches of those that match any, by name.

    Raises:
        ShardError: no such file or folder, or none of its files matches.
    """
    fs, path = file_system(root)
    with surroundings(f"look at {root}"):
        if fs.isfile(path):
            return [root]
    names = listed(root, "file")
    for pattern in patterns:
        found = [join(root, name) for name in names if fnmatch(name, pattern)]
        if found:
            return found
    there = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
    raise ShardError(
        f"{root}: holds no file {' or '.join(patterns)} (its files: {there}). Is it the right --root for this --dataset?"
    )


@contextlib.contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """The file, for reading.

    Raises:
        ShardError: there is none.
    """
    fs, path = file_system(url)
    with surroundings(f"read {url}"):
        try:
            file = fs.open(path, "rb")
        except FileNotFoundError as error:
            raise ShardError(f"{url} does not exist.") from error
        with file:
            yield file
