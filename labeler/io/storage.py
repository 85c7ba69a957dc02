"""Storage: the few file operations that a data set needs, on a folder or any fsspec URL.

A file is created whole or not at all. `create` is exclusive: of several writers of one name exactly
one wins, where the storage can promise that (local folders by `link`, S3 by a conditional put).
Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

import labeler.io.s3 as s3
from labeler.io.scratch import FullScratchError, is_abandoned, is_full, try_lock
from labeler.io.secrets import refuse_secrets, without_secrets
from teachers import ConfigError, FullStorageError, ShardError, TransientError

PART = ".part"
OWN_PART = re.compile(r"\..+@[0-9a-f]{16}\.part", re.DOTALL)
"""The name of a file that is being written."""
ANY = re.compile(r".*", re.DOTALL)
CONFLICTS = 5
"""Times that S3 may answer a create-only write with "conflict", which is neither won nor lost,
before it is an error."""
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a disk answers that cannot give a file a second name."""
NETWORK_PACKAGES = frozenset({"botocore", "aiobotocore", "aiohttp", "asyncio"})
"""Packages whose errors are the network's, though not all of them are OSErrors."""

INSIDE_OTHERS = frozenset({"zip", "tar", "libarchive", "simplecache", "filecache", "blockcache"})
"""Protocols that read from another address, which may be a local path."""
_PROTOCOL = re.compile(r"[A-Za-z][\w+.-]*")
_URL = re.compile(rf"(?:{_PROTOCOL.pattern}::)*{_PROTOCOL.pattern}://")


class StoredFile(NamedTuple):
    """A file as a listing shows it."""

    name: str
    """The last part of its path."""
    tag: str
    """See `tag_of`."""
    size: int
    """Bytes."""


class UnknownProtocol(ConfigError):
    """An address with a protocol that fsspec does not know."""


s3.prepare()


class Storage:
    """A folder on any fsspec file system; paths are relative to it, with '/'."""

    def __init__(self, url: str) -> None:
        """ConfigError for an address that cannot be one: see `file_system`."""
        if not url:
            raise ConfigError(
                "a folder or URL is named by an empty text: is a variable of the shell not set?"
            )
        self.url = url if is_url(url) else os.path.abspath(url)
        self.fs, self.root = file_system(self.url)
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Full path of `name` on the file system."""
        return f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file; ShardError if there is none."""
        with self._missing(name), transient_errors(f"read {self.url}/{name}"):
            return self.fs.cat_file(self.path(name))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`, without reading the rest of the file."""
        with self._missing(name), transient_errors(f"read {self.url}/{name}"):
            return self.fs.cat_file(self.path(name), start=start, end=start + size)

    def open(self, name: str) -> BinaryIO:
        """The file, opened for reading."""
        with self._missing(name), transient_errors(f"open {self.url}/{name}"):
            return self.fs.open(self.path(name), "rb")

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None if there is none."""
        with transient_errors(f"look at {self.url}/{name}"):
            try:
                return self.fs.info(self.path(name))["size"]
            except FileNotFoundError:
                return None

    def modified(self, name: str) -> float:
        """When the file was last written, in seconds since 1970; now, if it is gone."""
        with transient_errors(f"look at {self.url}/{name}"):
            try:
                return self.fs.modified(self.path(name)).timestamp()
            except FileNotFoundError:
                return time.time()

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in `folder`, sorted; empty if there is no such folder."""
        return sorted(file.name for file in self.files(folder))

    def is_file(self) -> bool:
        """Whether there is a file in place of the folder."""
        with transient_errors(f"look at {self.url}"):
            return self.fs.isfile(self.root)

    def folders(self) -> list[str]:
        """Names of the folders directly in it, sorted; a FileNotFoundError if it does not exist."""
        with transient_errors(f"list {self.url}"):
            listed = self.fs.ls(self.root, detail=True)
            return sorted(_last(one) for one in listed if one["type"] == "directory")

    def tags(self, folder: str = "") -> dict[str, str]:
        """Name -> tag of each file in `folder`: a file that was written anew has another tag. Empty
        if there is no such folder."""
        return {file.name: file.tag for file in self.files(folder)}

    def tag(self, name: str) -> str | None:
        """Tag of one file, or None if there is none."""
        with transient_errors(f"look at {self.url}/{name}"):
            self.fs.invalidate_cache(self.path(name))
            try:
                return tag_of(self.fs.info(self.path(name)))
            except FileNotFoundError:
                return None

    def files(self, folder: str = "", named: re.Pattern[str] = ANY) -> Iterator[StoredFile]:
        """The files in `folder` whose whole name matches `named`, in any order, one by one, so that
        a folder of a million shards is not held in memory. Empty if there is no such folder."""
        with transient_errors(f"list {self.url}/{folder}"), contextlib.suppress(FileNotFoundError):
            self.fs.invalidate_cache(self.path(folder))  # another process may have written there
            yield from files_of(self.fs, self.path(folder), named)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file whole; False, and nothing changed, if the name is taken."""
        with transient_errors(f"write {self.url}/{name}"):
            if self.local:
                return self._link(name, data)
            for _ in range(CONFLICTS):
                try:
                    self.fs.pipe_file(self.path(name), data, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    if "ConditionalRequestConflict" in str(error.__cause__ or error):
                        # another writer is creating it right now; the next try shows who won
                        continue
                    raise
                return True
            raise OSError(f"another writer was at {name} {CONFLICTS} times")

    def replace(self, name: str, data: bytes) -> None:
        """Write a file whole, over an old one if there is one; readers see the old or the new."""
        with transient_errors(f"write {self.url}/{name}"):
            if self.local:
                with self._part(name, data) as part:
                    os.replace(part, self.path(name))
            else:
                self.fs.pipe_file(self.path(name), data)

    def publish(
        self, file: Path, name: str, sent: Callable[[int], None] = lambda size: None
    ) -> None:
        """Copy a finished local file here; it is visible only when complete. Equal names mean equal
        bytes, so publishing twice is harmless. `sent` is called with the bytes of each part, where
        the storage tells them."""
        with transient_errors(f"write {self.url}/{name}"):
            if self.local:
                with self._part(name, file) as part:
                    os.replace(part, self.path(name))
            else:
                self.fs.put_file(str(file), self.path(name), callback=_Told(sent))

    def remove(self, name: str) -> None:
        """Remove a file; fine if it is gone already."""
        with transient_errors(f"remove {self.url}/{name}"), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def remove_abandoned_parts(self, folder: str) -> None:
        """Remove half-written files that a killed process left in a local `folder` ("": the data
        set's own): those that nobody holds a lock on."""
        if not self.local:
            return
        for part in self.files(folder, OWN_PART):
            name = f"{folder}/{part.name}" if folder else part.name
            if is_abandoned(Path(self.path(name))):
                self.remove(name)

    def _link(self, name: str, data: bytes) -> bool:
        with self._part(name, data) as part:
            try:
                os.link(part, self.path(name))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                raise ConfigError(
                    f"{self.url}: its disk has no hard links ({error.strerror}), without which two "
                    "writers could take one name. exFAT, some network shares, and mounted buckets "
                    "have none: take a folder on another disk, or the URL of the bucket, such as "
                    "s3://bucket/labels."
                ) from error
            return True

    @contextlib.contextmanager
    def _part(self, name: str, content: bytes | Path) -> Iterator[str]:
        """A complete, flushed temporary file beside `name`; what is left of it afterwards is
        removed."""
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}@{secrets.token_hex(8)}{PART}")
        try:
            with part.open("wb") as out:
                try_lock(out.fileno())  # until it has its name, or the process is gone
                if isinstance(content, bytes):
                    out.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
                if not part.exists():
                    raise OSError(errno.ESTALE, "somebody removed it while it was written", part)
                yield str(part)
        finally:
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _missing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ShardError(f"{self.url}/{name} does not exist.") from error


class _Told(fsspec.Callback):  # type: ignore[misc]
    """Passes on how many bytes were sent."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        super().__init__()
        self._sent = sent

    def relative_update(self, inc: int = 1) -> None:
        self._sent(inc)


def files_of(fs: Any, path: str, named: re.Pattern[str] = ANY) -> Iterator[StoredFile]:
    """The files in a folder, or the file at `path` itself, whose last part matches `named`; one by
    one on a local disk and on S3, where that is possible. A FileNotFoundError if nothing is there.

    A local disk is read without fsspec, which takes half a minute for a million files, and leaves
    links out. Here, a link to a file is that file (DVC and the cache of the Hugging Face Hub hold
    links), and one to nowhere is listed too, so that whoever reads it says what is missing.
    """
    if isinstance(fs, LocalFileSystem) and not os.path.isfile(path):
        matches = named.fullmatch
        with os.scandir(path) as found:
            for entry in found:
                name = entry.name
                try:
                    if not matches(name):
                        continue
                    lost = entry.is_symlink() and not os.path.exists(entry.path)
                    if lost or entry.is_file():
                        seen = entry.stat(follow_symlinks=not lost)
                        size = seen.st_size
                        yield StoredFile(name, _local_tag(size, seen.st_mtime), size)
                except FileNotFoundError:  # removed since it was listed
                    continue
        return
    listed = s3.entries(fs, path, delimiter="/") if s3.is_s3(fs) else fs.ls(path, detail=True)
    for info in listed:
        if info["type"] == "file" and named.fullmatch(_last(info)):
            yield StoredFile(_last(info), tag_of(info), int(info["size"] or 0))


def _last(entry: Mapping[str, Any]) -> str:
    """The last part of an entry's name."""
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def tag_of(info: Mapping[str, Any]) -> str:
    """What a storage tells about a file's content without reading it: its ETag, or the size and
    time of a local file."""
    tag = (
        info.get("ETag") or info.get("etag") or _local_tag(info.get("size"), info.get("mtime", ""))
    )
    return str(tag).strip('"')


def _local_tag(size: Any, mtime: Any) -> str:
    return f"{size}-{mtime}"


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or local path, and the path on it.

    Raises:
        ConfigError: the URL holds a secret, or is of a kind that is unknown or not installed.
        TransientError: the file system does not answer.
    """
    refuse_secrets(url)
    check_protocol(url)
    with transient_errors(f"open {url}"):
        try:
            return parsed(url)
        except ValueError as error:
            raise ConfigError(f"{url}: {error}.") from error


def parsed(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or local path, and the path on it; the URL is not checked for
    secrets or a known protocol.

    Only what begins with a protocol is a URL, and "::" makes a chain of URLs only if there is a
    protocol on either side of it. Anywhere else, these signs belong to a file name, whatever fsspec
    would make of them. A ValueError for a broken URL.
    """
    if not is_url(url):
        return LocalFileSystem(), os.path.abspath(url)
    urlsplit(url)
    if _is_chain(url):
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    kind = fsspec.get_filesystem_class(url.partition("://")[0])
    settings = kind._get_kwargs_from_urls(url)
    protocol = url.partition("://")[0]
    fs = fsspec.filesystem(protocol, **{"use_listings_cache": False, **settings})
    return fs, kind._strip_protocol(url)


def is_url(text: str) -> bool:
    """Whether `text` begins with a protocol, or with a chain of them, such as
    "simplecache::s3://"; anything else is a local path."""
    return _URL.match(text) is not None


def _is_chain(url: str) -> bool:
    """Whether every "::" of a URL stands between two addresses, and none in a name."""
    *outer, last = url.split("::")
    inside = outer and outer[0].partition("://")[0] in INSIDE_OTHERS
    return bool(outer and ("://" in last or inside)) and all(
        "://" in part or _PROTOCOL.fullmatch(part) for part in outer
    )


@contextlib.contextmanager
def transient_errors(doing: str, *, scratch: bool = False) -> Iterator[None]:
    """Turn an OSError other than a missing file into a TransientError: the disk, the network, or
    the permissions are at fault, not the data. So is a bucket that is missing where something is
    written. A full disk is a FullStorageError; with `scratch`, where only temporary files are
    written, a FullScratchError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not (
            s3.lacks_bucket(error) and doing.startswith("write ")
        ):
            raise
        if (
            not isinstance(error, OSError)
            and type(error).__module__.partition(".")[0] not in NETWORK_PACKAGES
        ):
            raise
        if isinstance(error, OSError) and is_full(error):
            raise _full(doing, error, scratch) from error
        known = s3.advice(error)
        if isinstance(error, NotADirectoryError):
            known = "a part of that path is a file, not a folder"
        raise TransientError(
            f"could not {doing}: {without_secrets(str(error)).rstrip('.')}"
            f"{f' ({known})' if known else ''}. Nothing committed is lost; fix this and run the "
            "same command again."
        ) from error


def _full(doing: str, error: OSError, scratch: bool) -> FullStorageError:
    what = f"could not {doing}: {without_secrets(str(error))}."
    if scratch:
        return FullScratchError(
            f"{what} The temporary files of {socket.gethostname()} are in {tempfile.gettempdir()}, "
            "which TMPDIR sets. Nothing committed is lost: make room there, or make that disk "
            "writable, and run the same command again."
        )
    return FullStorageError(
        f"{what} The job stops, because no other unit would fare better. Nothing committed is "
        "lost: make room, or make the disk writable (temporary files are in "
        f"{tempfile.gettempdir()}, which TMPDIR sets), and run the same command again."
    )


def check_protocol(url: str) -> None:
    """Raise a ConfigError if the package for the protocol of `url` is not installed, and an
    UnknownProtocol if fsspec does not know it; no server is contacted."""
    if not is_url(url):
        return
    protocols = [url.partition("://")[0]]
    if _is_chain(url):
        protocols = re.findall(r"([A-Za-z][\w+.-]*)(?=://|::)", url)
    try:
        for protocol in protocols:
            fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        kind = UnknownProtocol if isinstance(error, ValueError) else ConfigError
        raise kind(
            f"{without_secrets(url)}: {error}. A URL is a folder or what fsspec knows, such as "
            "s3://bucket/folder."
        ) from error
