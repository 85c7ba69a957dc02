"""Download: a file from the web, whole or not at all, continuing where an interrupted download
stopped.

The bytes that have arrived are kept in `<file>.part`; `<file>.part.json` records where they came
from, and the server's mark of that version (its ETag, or else its date). The next attempt, in this
process or a later one, asks for the rest on condition that the version is still the same (`Range`
with `If-Range`). If it is not, or if the server does not support ranges, it sends the whole file,
and the download starts anew. The file gets its name once all the bytes that the server announced
are there.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from teachers.errors import CheckpointError, TransientError

BLOCK_BYTES = 2**20
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes that may change in a moment."""

Watch = Callable[[int, int | None], None]
"""Called with the bytes that have arrived, and with their total, if the server states it."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, a download is tried."""

    attempts: int = 4
    """Attempts in a row that may bring no byte."""
    pause_s: float = 1.0
    """The pause before the second attempt; it doubles each time."""
    timeout_s: float = 30.0
    """The longest time without a byte."""


RETRIES = RetryPolicy()


class _Cut(Exception):
    """This attempt ended early; another may bring more."""


def download(
    url: str,
    path: Path,
    watch: Watch | None = None,
    retries: RetryPolicy = RETRIES,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Put the content of `url` (http or https) at `path`, whose folder must exist.

    Args:
        url: a user and password in it are sent as Basic authentication.
        headers: of the request, beside those of a download that goes on.

    Raises:
        CheckpointError: the server has no such file, or does not give it to us.
        TransientError: no network, a server that fails or hangs, a full disk, or another process
            that downloads the same file.
    """
    part = path.with_name(path.name + ".part")
    lock = part.with_name(part.name + ".lock")
    request = _request(url, headers or {})
    try:
        with FileLock(lock, timeout=0):
            try:
                with part.open("ab") as file:
                    _attempts(request, file, part, watch or (lambda done, total: None), retries)
                part.replace(path)
                _note(part).unlink(missing_ok=True)
            finally:
                # whoever waits for the lock notices, and takes a new one
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise TransientError(
            f"{part}: another process downloads it already: wait for that one."
        ) from error
    except OSError as error:
        raise TransientError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    """The request for the whole file."""
    address = urlsplit(url)
    credentials, _, host = address.netloc.rpartition("@")
    request = urllib.request.Request(address._replace(netloc=host).geturl(), headers=dict(headers))
    if credentials:
        code = base64.b64encode(unquote(credentials).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {code}")
    return request


def _attempts(
    request: urllib.request.Request, file: BinaryIO, part: Path, watch: Watch, retries: RetryPolicy
) -> None:
    most, fruitless = file.tell(), 0
    while True:
        try:
            return _attempt(request, file, part, watch, retries.timeout_s)
        except _Cut as cut:
            fruitless = 0 if file.tell() > most else fruitless + 1
            most = max(most, file.tell())
            if fruitless == retries.attempts:
                kept = (
                    f" {file.tell()} bytes are kept: the same command continues from there."
                    if file.tell()
                    else ""
                )
                raise TransientError(
                    f"{shown(request.full_url)}: {cut}, {fruitless} times in a row.{kept}"
                ) from cut
            time.sleep(retries.pause_s * 2 ** max(0, fruitless - 1))


def _attempt(
    request: urllib.request.Request, file: BinaryIO, part: Path, watch: Watch, timeout_s: float
) -> None:
    """Append the rest of what is asked for to `file`; returns when it is complete."""
    url = request.full_url
    version = _stored_version(part, url) if file.tell() else None
    for header, value in (("Range", f"bytes={file.tell()}-"), ("If-range", version)):
        request.remove_header(header)
        if version:
            request.add_header(header, str(value))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            total = _begin(url, answer.status, answer.headers, file, part, version)
            while block := answer.read1(BLOCK_BYTES):  # what has come, so that a hang loses nothing
                _write(file, block)
                watch(file.tell(), total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _note(part).unlink(missing_ok=True)
            raise _Cut("the server has no more bytes than are here") from error
        if error.code in BUSY:
            raise _Cut(f"the server answers {error.code} {error.reason}") from error
        raise CheckpointError(
            f"{shown(url)}: the server answers {error.code} {error.reason}: the file is not there, "
            "or not for us."
        ) from error
    except urllib.error.URLError as error:
        raise _Cut(f"cannot be reached ({error.reason})") from error
    except TimeoutError as error:
        raise _Cut(f"no byte came for {timeout_s:g} s") from error
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(f"the connection broke ({type(error).__name__})") from error
    if total is not None and file.tell() < total:
        raise _Cut(f"the connection ended after {file.tell()} of {total} bytes")


def _begin(
    url: str, status: int | None, headers: Message, file: BinaryIO, part: Path, version: str | None
) -> int | None:
    """Make `file` ready for the body of this answer; returns how long the whole file will be, if
    the server says so."""
    here = _version(headers)
    content = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if status == http.HTTPStatus.PARTIAL_CONTENT:
        if content and int(content[1]) == file.tell() and here in (version, None):
            return int(content[2])
        _note(part).unlink(missing_ok=True)
        raise _Cut("the server sent another part than was asked for")
    file.seek(0)
    file.truncate()
    _note(part).write_text(json.dumps({"url": url, "version": here}))
    length = headers.get("Content-Length")
    return int(length) if length else None


def _write(file: BinaryIO, block: bytes) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise TransientError(f"{file.name}: cannot be written: {error.strerror}.") from error


def _version(headers: Message) -> str | None:
    """What `If-Range` takes: a strong ETag, or else the date of the last change."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _note(part: Path) -> Path:
    """The file that records what `part` is a part of."""
    return part.with_name(part.name + ".json")


def _stored_version(part: Path, url: str) -> str | None:
    """The version of the bytes that have arrived; None if they came from elsewhere, or it is
    unknown."""
    try:
        note = json.loads(_note(part).read_text())
        return note["version"] if note["url"] == url else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def shown(url: str) -> str:
    """`url` as messages may show it: without a query, which may hold a signature, and without
    credentials."""
    address = urlsplit(url)
    return address._replace(
        query="", fragment="", netloc=address.netloc.rpartition("@")[2]
    ).geturl()
