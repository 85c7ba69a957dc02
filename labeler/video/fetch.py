"""Fetch: get a local file with the bytes of a video, wherever they are.

A local file is used where it is; bytes, URLs, and members of a tar are copied to a temporary file,
and a folder at a URL, which ends with a slash, to a temporary folder. The answer of the storage
decides the reason of an error: a missing or forbidden file will stay so, everything else is
"unreachable", and may be gone at the next try.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from labeler.io.scratch import is_full, scratch_folder
from labeler.io.secrets import without_secrets
from labeler.io.storage import (
    UnknownProtocol,
    check_protocol,
    is_url,
    parsed,
)
from labeler.sources.rules import TARS
from labeler.video.container import VideoLimits
from teachers.errors import OWN_FAULTS, TapdistillError, TransientError, VideoError

BLOCK_BYTES = 8 * 2**20
"""Bytes that a download reads at a time."""
TRY_AGAIN = (408, 425, 429)
"""HTTP status codes in the 400s that blame the moment, not the request."""


def shown(source: str | Path | bytes) -> str:
    """`source` as messages may show it: no credentials, and no query of a web address, which may
    hold a signature."""
    if isinstance(source, bytes):
        return f"video of {len(source)} bytes"
    url = without_secrets(str(source))
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def local_file(
    source: str | Path | bytes,
    limits: VideoLimits,
    stack: contextlib.ExitStack,
    span: tuple[int, int] | None = None,
) -> Path:
    """A local file with the content of `source`, which exists as long as `stack` does; with `span`,
    that of the bytes at (offset, size) of "archive.tar#member"."""
    if span is None and (local := _path_of(source)) is not None:
        return local
    try:
        if span is not None:
            return _member(str(source), span, limits, stack)
        path = stack.enter_context(scratch_folder()) / "video"
        if isinstance(source, str) and source.endswith("/"):
            _download_folder(source, path, limits)
            return path
        with path.open("wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                _download(str(source), file, limits)
    except OSError as error:
        if is_full(error):
            raise
        raise TransientError(
            f"{shown(source)}: cannot be copied to a temporary file: {error.strerror}."
        ) from error
    return path


def _path_of(source: str | Path | bytes) -> Path | None:
    """Where a video lies that need not be copied; None for any other."""
    if isinstance(source, Path) or (isinstance(source, str) and not is_url(source)):
        return Path(source)
    if isinstance(source, str) and source.startswith("file://"):
        return Path(source.removeprefix("file://"))
    return None


def _download_folder(url: str, folder: Path, limits: VideoLimits) -> None:
    """Copy the files directly in the folder at `url`, not those in folders below it, into
    `folder`."""
    with _reasons(url):
        fs, path = _storage_of(url.rstrip("/"))
        if not fs.isdir(path):
            raise VideoError("not-found", f"{shown(url)}: there is no such folder.")
        listed = [info for info in fs.ls(path, detail=True) if info["type"] == "file"]
        # but for the marker of the folder itself, which a bucket may have
        files = [info for info in listed if not info["name"].endswith("/")]
    if sum(int(info.get("size") or 0) for info in files) > limits.max_gib * 2**30:
        raise VideoError(
            "too-large",
            f"{shown(url)}: the folder is above the limit of {limits.max_gib:g} GiB (max_gib).",
        )
    _check_room(sum(int(info.get("size") or 0) for info in files), shown(url))
    folder.mkdir()
    for info in files:
        name = info["name"].rpartition("/")[2]
        with (folder / name).open("wb") as file:
            _download(url + name, file, limits)


def _storage_of(url: str) -> tuple[Any, str]:
    """The storage of an address and the path on it; a VideoError for an address that no storage
    has."""
    try:
        check_protocol(url)
        return parsed(url)
    except (UnknownProtocol, ValueError) as unknown:
        raise VideoError(
            "not-found", f"{shown(url)}: not an address that can be read."
        ) from unknown


def _member(
    source: str, span: tuple[int, int], limits: VideoLimits, stack: contextlib.ExitStack
) -> Path:
    """A temporary file with one member of a tar, read by its offset."""
    archive = archive_of(source)
    path = stack.enter_context(scratch_folder()) / "video"
    with path.open("wb") as file:
        _download(archive, file, limits, span)
    if path.stat().st_size != span[1]:
        raise VideoError(
            "decode-error",
            f"{shown(source)}: the tar ends inside this member ({path.stat().st_size} of {span[1]} "
            "bytes).",
        )
    return path


def archive_of(member: str) -> str:
    """The tar of "archive.tar#member", which may also have a "#" in any part of its name."""
    parts = member.split("#")
    candidates = ["#".join(parts[:i]) for i in range(1, len(parts))]
    candidates = [one for one in candidates if one.lower().endswith(TARS)] or [candidates[0]]
    if len(candidates) == 1:
        return candidates[0]
    # the member itself may also be named "x.tar#y.mp4": it depends on which of them is a file
    return next((one for one in candidates if _is_file(one)), candidates[0])


def _is_file(url: str) -> bool:
    try:
        fs, path = parsed(url)
        return bool(fs.isfile(path))
    except (OSError, ValueError):
        return False


def _download(
    url: str, file: BinaryIO, limits: VideoLimits, span: tuple[int, int] | None = None
) -> None:
    """Copy what is at `url`, or `span` (offset, size) of it, to `file`."""
    for block in _blocks(url, limits, span):
        file.write(block)


def _blocks(url: str, limits: VideoLimits, span: tuple[int, int] | None) -> Iterator[bytes]:
    with _reasons(url):
        fs, path = _storage_of(url)
        # of a member of a tar, s3fs would take 50 MiB more than it is asked for
        with fs.open(path, "rb", **({"cache_type": "none"} if span else {})) as remote:
            remote.seek(span[0] if span else 0)
            left = span[1] if span else None
            claimed = left if left is not None else getattr(remote, "size", None) or 0
            _check_room(claimed, shown(url))
            blocks = iter(
                lambda: remote.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)), b""
            )
            for i, block in enumerate(blocks):
                left = None if left is None else left - len(block)
                if max(claimed, i * BLOCK_BYTES) > limits.max_gib * 2**30:
                    raise VideoError(
                        "too-large",
                        f"{shown(url)}: the file is above the limit of {limits.max_gib:g} GiB "
                        "(max_gib).",
                    )
                yield block


def _check_room(size: int, name: str) -> None:
    """Look whether the disk of temporary files can hold `size` bytes, before they are copied.

    Raises:
        VideoError: it could not even if it were empty.
        OSError: it cannot now, as a write would say once it is full.
    """
    disk = shutil.disk_usage(tempfile.gettempdir())
    if not disk.total:  # of a file system that does not tell
        return
    if size > disk.total:
        raise VideoError(
            "too-large",
            f"{name}: {size / 2**30:.1f} GiB, but the whole disk of temporary files has "
            f"{disk.total / 2**30:.1f} GiB: set TMPDIR to a folder on a larger one.",
        )
    if size > disk.free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"the copy of {name}")


@contextlib.contextmanager
def _reasons(url: str) -> Iterator[None]:
    """Turn what reading `url` raises into a VideoError with the reason.

    Every protocol has error classes of its own, and their texts may hold the URL with its
    credentials: only the class is named.
    """
    name = shown(url)
    try:
        yield
    except (TapdistillError, MemoryError, *OWN_FAULTS):
        raise
    except Exception as failure:
        error: BaseException = failure
        if isinstance(error, OSError) and is_full(error):  # of a protocol that keeps a copy here
            raise
        while url.startswith("http") and isinstance(error, FileNotFoundError) and error.__cause__:
            # for fsspec, whatever stops a web request, even a refused connection, is a missing file
            error = error.__cause__
        status = getattr(error, "status", None)
        what = f"{type(error).__name__}, HTTP {status}" if status else type(error).__name__
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            raise VideoError("not-found", f"{name}: there is no such file.") from None
        if isinstance(error, PermissionError) or status in (401, 403, 451):
            raise VideoError("forbidden", f"{name}: the storage does not let us read it.") from None
        if isinstance(error, ValueError):
            raise VideoError(
                "not-found", f"{name}: not an address that can be read ({what})."
            ) from None
        if status is not None and 400 <= status < 500 and status not in TRY_AGAIN:
            raise VideoError("not-found", f"{name}: the server answers HTTP {status}.") from None
        raise VideoError(
            "unreachable", f"{name}: reading failed ({what}): try again later."
        ) from None
