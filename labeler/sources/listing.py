"""Sources: which videos a job is asked for, found without opening one.

    folder, glob, file, URL      what the storage lists there; a folder that holds pictures and
                                 nothing else is one video, whose URI ends with a slash
    *.tar                        a WebDataset of videos: each member that is one; json and txt
                                 members of its key are its metadata
    *.txt, *.list                one path or URL a line; '#' begins a comment
    *.csv, *.parquet             a column of paths or URLs; the other columns are metadata, and
                                 travel into the shards

Listing costs one look at the storage, or one at each tar's headers, so 100,000 videos take seconds.
What a list or table names is not looked up: a missing file, or an empty entry, becomes a row of the
job, as any broken video does. A tar that was cut, or that holds more than plain files with plain
names, is refused: what is behind its damage would be missing from the counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler.io import transient_errors
from labeler.io.secrets import refuse_secrets
from labeler.io.storage import check_protocol, file_system, tag_of
from labeler.sources.lists import LISTS, TABLES, read_entries
from labeler.sources.metadata import to_metadata
from teachers import ConfigError

TARS = (".tar",)
VIDEO_SUFFIXES = frozenset(
    {"mp4", "mov", "m4v", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "ogv", "flv", "3gp", "wmv"}
)
"""Of a tar's members, which are videos."""
PICTURES = (".png", ".jpg", ".jpeg")
IN_TAR = ".tar#"
MAX_METADATA_BYTES = 1 << 20
"""Of a json or txt member; a longer one is not metadata."""


@dataclass(frozen=True)
class Source:
    """A video as a listing sees it."""

    uri: str
    """Path or URL; "archive.tar#member.mp4" for a member of a tar, "folder/" for a folder of
    pictures."""
    size: int
    """Bytes; 0 where the listing does not say."""
    etag: str
    """What the storage says of the content: an ETag, or size and time of a local file; "" where the
    listing does not say."""
    offset: int | None = None
    """Where the bytes of a tar's member begin."""
    metadata: str = ""
    """What a table or a tar says of the video, as a JSON object; "" if nothing."""

    @property
    def span(self) -> tuple[int, int] | None:
        """(offset, size) of a tar's member."""
        return None if self.offset is None else (self.offset, self.size)


def list_sources(videos: Sequence[str], column: str | None = None) -> list[Source]:
    """The videos named by folders, globs, files, URLs, tars, lists, and tables, without opening
    one; sorted by URI, each once.

    A folder gives every file below it that is not hidden, whatever its ending: what is no video
    becomes a row that says so. Use a glob ('clips/**/*.mp4') to take only some. Links to files are
    followed, links to folders are not.

    Args:
        videos: as above.
        column: of a table, which holds the paths; without it the first of
            `labeler.sources.lists.URI_COLUMNS` that is there.

    Raises:
        ConfigError: a folder or glob without a file, nothing named at all, a list, table, or tar
            that cannot be read whole, an address that holds a password or a signature, a name that
            no file of a data set can hold.
    """
    found: dict[str, Source] = {}
    for pattern in videos:
        if not pattern:
            raise ConfigError(
                "a video is named by an empty text: is a variable of the shell not set?"
            )
        for source in _named_by(pattern, column):
            _refuse_odd_name(source.uri)
            found.setdefault(source.uri, source)
    if not found:
        raise ConfigError(
            "no video named: give at least one file, folder, glob, list, table, or URL."
        )
    return [found[uri] for uri in sorted(found)]


def _refuse_odd_name(uri: str) -> None:
    """ConfigError for a name that no file of a data set can hold."""
    if not uri.isascii() and uri != uri.encode(errors="replace").decode():
        raise ConfigError(
            f"{uri!r}: this name is not UTF-8, and cannot stand in a plan or a shard: rename it."
        )


def _named_by(pattern: str, column: str | None) -> Iterator[Source]:
    fs, path = file_system(pattern)
    with transient_errors(f"list {pattern}"):
        if path.endswith(LISTS + TABLES) and fs.isfile(path):
            yield from _listed(pattern, fs.cat_file(path), column)
            return
        if any(sign in path for sign in "*?[") and not fs.exists(path):
            entries: dict[str, dict[str, Any]] = {}
            for name, info in fs.glob(path, detail=True).items():
                # a folder that a glob names is a video if it holds pictures
                below = fs.ls(name, detail=True) if info["type"] == "directory" else []
                entries |= {each["name"]: each for each in below if _is_picture(each["name"])}
                entries[name] = info
        elif fs.isdir(path):
            below = path.rstrip("/") + "/"
            entries = {
                name: info
                for name, info in fs.find(path, detail=True).items()
                if not _hidden(name.removeprefix(below))
            }
        # one file; a missing one becomes a row, so that a list with one wrong name still runs
        else:
            entries = {path: fs.info(path) if fs.exists(path) else {"type": "file", "size": 0}}
        # A link that leads nowhere becomes a row, as a missing file does.
        files = {
            name: info
            for name, info in entries.items()
            if info["type"] == "file" or (info.get("islink") and not fs.isdir(name))
        }
        if not files:
            raise ConfigError(
                f"{pattern}: no file there. Give a video, a folder of videos, or a glob in quotes "
                "such as 'videos/**/*.mp4'."
            )
        folders, files = _folders_of_pictures(files)
        for name, inside in folders.items():
            url = fs.unstrip_protocol(name) if "://" in pattern else name
            tags = "".join(tag_of(info) for _, info in sorted(inside.items()))
            yield Source(
                f"{url}/",
                sum(int(info.get("size") or 0) for info in inside.values()),
                hashlib.sha256(tags.encode()).hexdigest() if tags else "",
            )
        for name, info in files.items():
            source = Source(
                fs.unstrip_protocol(name) if "://" in pattern else name,
                int(info.get("size") or 0),
                tag_of(info),
            )
            if name.endswith(TARS) and source.size:
                with fs.open(name, "rb") as opened:
                    yield from _members(source, opened)
            else:
                yield source


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def _folders_of_pictures(
    files: Mapping[str, dict[str, Any]],
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, dict[str, Any]]]:
    """The folders all of whose listed files are pictures, two or more, each with its files; and the
    other files. A cover beside a video stays a file, and so does a single picture."""
    by_folder: dict[str, dict[str, dict[str, Any]]] = {}
    for name, info in files.items():
        by_folder.setdefault(name.rpartition("/")[0], {})[name] = info
    folders = {
        folder: inside
        for folder, inside in by_folder.items()
        if len(inside) > 1 and all(map(_is_picture, inside))
    }
    others = {n: info for n, info in files.items() if n.rpartition("/")[0] not in folders}
    return folders, others


def _hidden(path: str) -> bool:
    """True for a path below a folder of which a part begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def _members(archive: Source, opened: Any) -> Iterator[Source]:
    """The videos of a tar, each with what the json and txt members of its key say."""
    videos: list[tarfile.TarInfo] = []
    metadata: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar:
                _refuse_odd_member(member, archive.uri)
                stem, _, suffix = member.name.rpartition(".")
                if not member.isfile():
                    continue
                if suffix.lower() in VIDEO_SUFFIXES:
                    videos.append(member)
                elif suffix.lower() in ("json", "txt") and member.size <= MAX_METADATA_BYTES:
                    text = tar.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
                    metadata.setdefault(stem, {}).update(_as_metadata(suffix.lower(), text))
            _refuse_cut(opened, tar.offset)
    except tarfile.TarError as error:
        raise ConfigError(
            f"{archive.uri} is not a whole tar ({error}): nothing of it is planned."
        ) from error
    if not videos:
        raise ConfigError(f"{archive.uri}: no member of this tar is a video (mp4, mkv, webm, ...).")
    name, times = Counter(member.name for member in videos).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"{archive.uri} holds {times} members named {name!r}: nothing of it is planned."
        )
    for member in videos:
        stem = member.name.rpartition(".")[0]
        said = metadata.get(stem) or metadata.get(_key(member.name), {})
        yield Source(
            f"{archive.uri}#{member.name}",
            member.size,
            archive.etag,
            member.offset_data,
            to_metadata(said),
        )


def _key(name: str) -> str:
    """The key that WebDataset gives a member: its name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _refuse_odd_member(member: tarfile.TarInfo, archive: str) -> None:
    """ConfigError for what no tar of videos needs, and who unpacks one may be led astray by."""
    if not (member.isfile() or member.isdir()) or member.issparse():
        kind = (
            "a sparse file"
            if member.issparse()
            else "a link"
            if member.islnk() or member.issym()
            else "a device"
        )
        raise ConfigError(
            f"{archive} holds {member.name!r}, {kind}: refused. Write a tar of plain files."
        )
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise ConfigError(
            f"{archive} holds {member.name!r}, a name that points out of it: refused. Write a tar "
            "of plain names."
        )


def _refuse_cut(opened: Any, end: int) -> None:
    """TarError if no mark of its end stands at `end`, where its members do: `tarfile` takes what it
    can't read for the end."""
    opened.seek(end)
    if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"its members end at byte {end:,}, and no mark of the end is there")


def _as_metadata(suffix: str, text: str) -> dict[str, Any]:
    """The columns that a member says: those of a json object, or the text itself."""
    if suffix == "txt":
        return {"txt": text.strip()}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {"json": value}


def _listed(name: str, data: bytes, column: str | None) -> Iterator[Source]:
    """What a list or table names; relative paths are relative to its own folder."""
    folder = name.rpartition("/")[0] if "://" in name else os.path.dirname(os.path.abspath(name))
    for i, entry in enumerate(read_entries(name, data, column)):
        # so that it becomes a row, as every entry without a video does
        uri = entry.uri or f"{name}#entry {i} is empty"
        refuse_secrets(uri, f"{name}, entry {i}")
        check_protocol(uri)
        yield Source(
            uri if "://" in uri or os.path.isabs(uri) else f"{folder}/{uri}",
            0,
            "",
            metadata=entry.metadata,
        )
