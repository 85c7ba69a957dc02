"""Tar: a shard is a tar with the samples of one unit of work, named by unit, revision, and content.

    shards/000123.r0.<hash>.tar     never overwritten; <hash> = first 12 hex digits of its sha256

The same members give the same bytes: webdataset's own writer is used, with a fixed time. Whether a
shard exists is not decided here but by its commit record (`records.py`).
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from labeler.io import file_sha256
from labeler.shards.members import MAX_MEMBER_BYTES
from teachers import ShardError

Offsets = dict[str, tuple[int, int]]
"""By suffix of a member, (offset, size) of its bytes in the tar."""


@dataclass(frozen=True)
class WrittenShard:
    """A finished tar on the local disk."""

    file: Path
    size_bytes: int
    sha256: str
    offsets: dict[str, Offsets]
    """Offsets by key of the sample, in the order of the tar."""


class ShardWriter:
    """Writes samples into a local tar file, one after another; leaving the context closes a tar
    that is not finished."""

    def __init__(self, file: Path) -> None:
        # webdataset reads this when it is imported: no pickles, no pipes
        os.environ.setdefault("WDS_SECURE", "1")
        import webdataset  # here, because it imports torch

        self.file = file
        self._stream = file.open("wb")
        self._tar = webdataset.TarWriter(self._stream, encoder=False, mtime=0.0)
        self._keys: list[str] = []

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add one sample, bytes by suffix; in the tar, members are in the order of their
        suffixes."""
        if "." in key or "/" in key:
            raise ShardError(
                f"key {key!r} of a sample holds '.' or '/': WebDataset would cut it there."
            )
        self._tar.write({"__key__": key, **members})
        self._keys.append(key)

    def finish(self) -> WrittenShard | None:
        """Close the tar and describe it; None (and no file) if it holds no sample."""
        self._tar.close()
        self._stream.close()
        if not self._keys:
            self.file.unlink()
            return None
        size, digest = self.file.stat().st_size, file_sha256(self.file)
        return WrittenShard(self.file, size, digest, tar_offsets(self.file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._stream.closed:  # unfinished: nobody will read it
            with contextlib.suppress(OSError):
                self._tar.close()
            with contextlib.suppress(OSError):
                self._stream.close()


def tar_offsets(file: Path) -> dict[str, Offsets]:
    """Where the bytes of each member are, by key of the sample and by suffix."""
    found: dict[str, Offsets] = {}
    with tarfile.open(file) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, {})[suffix] = (member.offset_data, member.size)
    return found


def shard_name(unit: int, revision: int, sha256: str) -> str:
    """The path of a shard in its data set."""
    return f"shards/{unit:06d}.r{revision}.{sha256[:12]}.tar"


def read_samples(stream: BinaryIO, what: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, bytes by suffix) of every sample, in the order of the tar. A ShardError if members are
    not plain files with plain names."""
    key, parts = "", dict[str, bytes]()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                refuse_odd_member(member, what)
                name, _, suffix = member.name.partition(".")
                if name != key and parts:
                    yield key, parts
                    parts = {}
                key = name
                # this is None only for members that are refused above
                content = tar.extractfile(member)
                parts[suffix] = content.read() if content else b""
    except tarfile.TarError as error:
        raise ShardError(
            f"{what} is not a whole tar ({error}). Run `tapdistill verify`."
        ) from error
    if parts:
        yield key, parts


def refuse_odd_member(member: tarfile.TarInfo, what: str) -> None:
    """Raise a ShardError for a member that no genuine shard has: a link, a folder, a path, a
    gigabyte."""
    if member.size > MAX_MEMBER_BYTES:
        raise ShardError(
            f"{what} holds {member.name!r} of {member.size:,} bytes; a member may have "
            f"{MAX_MEMBER_BYTES:,}: refused."
        )
    if (
        not member.isfile()
        or "/" in member.name
        or "\\" in member.name
        or member.name.startswith(".")
    ):
        raise ShardError(
            f"{what} holds {member.name!r}, which is not a plain file with a plain name: refused."
        )
