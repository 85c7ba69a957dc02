"""Sources: which videos a job is asked for, found without opening one.

    folder, glob, file, URL      what the storage lists there
    *.tar                        a WebDataset of videos: each member that is one; json and txt members of its key are its metadata
    *.txt, *.list                one path or URL a line; '#' begins a comment
    *.csv, *.parquet             a column of paths or URLs; the other columns are metadata, and travel into the shards

Listing costs one look at the storage, or one at each tar's headers, so 100,000 videos take seconds. What a list or table names is not
looked up: a missing file becomes a row of the job, as any broken video does.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import pyarrow as pa

from labeler.storage import file_system, refuse_credentials, surroundings, tag_of, without_credentials
from teachers import ConfigError

LISTS, TABLES, TARS = (".txt", ".list"), (".csv", ".parquet"), (".tar",)
URI_COLUMNS = ("uri", "url", "path", "video", "file")
"""Names by which the column of a table is found, in this order."""
VIDEO_SUFFIXES = frozenset({"mp4", "mov", "m4v", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "ogv", "flv", "3gp", "wmv"})
"""Of a tar's members, which are videos."""
SECRETS = frozenset({"signature", "sig", "token", "access_token", "x-amz-signature", "x-amz-security-token", "x-goog-signature"})
"""Parts of a web address that let who reads it in."""
IN_TAR = ".tar#"
MAX_METADATA_BYTES = 1 << 20
"""Of a json or txt member; a longer one is not metadata."""


@dataclass(frozen=True)
class Source:
    """A video as a listing sees it."""

    uri: str
    """Path or URL; "archive.tar#member.mp4" for a member of a tar."""
    size: int
    """Bytes; 0 where the listing does not say."""
    etag: str
    """What the storage says of the content: an ETag, or size and time of a local file; "" where the listing does not say."""
    offset: int | None = None
    """Where the bytes of a tar's member begin."""
    metadata: str = ""
    """What a table or a tar says of the video, as a JSON object; "" if nothing."""

    @property
    def span(self) -> tuple[int, int] | None:
        """(offset, size) of a tar's member."""
        return None if self.offset is None else (self.offset, self.size)


def list_sources(videos: Sequence[str], column: str | None = None) -> list[Source]:
    """The videos named by folders, globs, files, URLs, tars, lists, and tables, without opening one; sorted by URI, each once.

    A folder gives every file below it that is not hidden, whatever its ending: what is no video becomes a row that says so. Use a glob
    ('clips/**/*.mp4') to take only some. Links to files are followed, links to folders are not.

    Args:
        videos: as above.
        column: of a table, which holds the paths; without it the first of `URI_COLUMNS` that is there.

    Raises:
        ConfigError: a folder or glob without a file, nothing named at all, a list or table that cannot be read, an address that holds a
            password or a signature.
    """
    found: dict[str, Source] = {}
    for pattern in videos:
        for source in _named_by(pattern, column):
            found.setdefault(source.uri, source)
    if not found:
        raise ConfigError("no video named: give at least one file, folder, glob, list, table, or URL.")
    return [found[uri] for uri in sorted(found)]


def _named_by(pattern: str, column: str | None) -> Iterator[Source]:
    refuse_secrets(pattern)
    fs, path = file_system(pattern)
    with surroundings(f"list {without_credentials(pattern)}"):
        if path.endswith(LISTS + TABLES) and fs.isfile(path):
            yield from _listed(pattern, fs.cat_file(path), column)
            return
        if any(sign in path for sign in "*?[") and not fs.exists(path):
            entries = fs.glob(path, detail=True)
        elif fs.isdir(path):
            below = path.rstrip("/") + "/"
            entries = {name: info for name, info in fs.find(path, detail=True).items() if not _hidden(name.removeprefix(below))}
        else:  # one file; a missing one becomes a row, so that a list with one wrong name still runs
            entries = {path: fs.info(path) if fs.exists(path) else {"type": "file", "size": 0}}
        files = {name: info for name, info in entries.items() if info["type"] == "file" or (info.get("islink") and fs.isfile(name))}
        if not files:
            raise ConfigError(
                f"{pattern}: no file there. Give a video, a folder of videos, or a glob in quotes such as 'videos/**/*.mp4'."
            )
        for name, info in files.items():
            source = Source(fs.unstrip_protocol(name) if "://" in pattern else name, int(info.get("size") or 0), tag_of(info))
            if name.endswith(TARS) and source.size:
                with fs.open(name, "rb") as opened:
                    yield from _members(source, opened)
            else:
                yield source


def _hidden(path: str) -> bool:
    """True for a path below a folder of which a part begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def _members(archive: Source, opened: Any) -> Iterator[Source]:
    """The videos of a tar. Names are names only: nothing is unpacked, so where they point does not matter."""
    videos: dict[str, tarfile.TarInfo] = {}
    metadata: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                if not member.isfile():
                    continue
                if suffix.lower() in VIDEO_SUFFIXES:
                    videos[member.name] = member
                elif suffix in ("json", "txt") and member.size <= MAX_METADATA_BYTES:
                    text = tar.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
                    metadata.setdefault(key, {}).update(_as_metadata(suffix, text))
    except tarfile.TarError as error:
        raise ConfigError(f"{archive.uri} is not a whole tar ({error}): nothing of it is planned.") from error
    if not videos:
        raise ConfigError(f"{archive.uri}: no member of this tar is a video (mp4, mkv, webm, ...).")
    for name, member in videos.items():
        said = metadata.get(name.rpartition(".")[0], {})
        yield Source(f"{archive.uri}#{name}", member.size, archive.etag, member.offset_data, _to_json(said))


def _as_metadata(suffix: str, text: str) -> dict[str, Any]:
    """The columns that a member says: those of a json object, or the text itself."""
    if suffix == "txt":
        return {"txt": text.strip()}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {"json": value}


def _listed(name: str, data: bytes, column: str | None) -> Iterator[Source]:
    """What a list or table names; relative paths are relative to its own folder."""
    folder = name.rpartition("/")[0] if "://" in name else os.path.dirname(os.path.abspath(name))
    for i, (uri, metadata) in enumerate(_rows(name, data, column)):
        refuse_secrets(uri, f"{name}, entry {i}")
        yield Source(uri if "://" in uri or os.path.isabs(uri) else f"{folder}/{uri}", 0, "", metadata=metadata)


def _rows(name: str, data: bytes, column: str | None) -> Iterator[tuple[str, str]]:
    """(path or URL, metadata) of each entry of a list or table."""
    if name.endswith(LISTS):
        try:
            lines = data.decode().splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name} is not a list of paths: it is not text ({error}).") from error
        yield from ((line.strip(), "") for line in lines if line.strip() and not line.lstrip().startswith("#"))
        return
    try:
        table = pd.read_parquet(io.BytesIO(data)) if name.endswith(".parquet") else pd.read_csv(io.BytesIO(data))
    except (ValueError, pa.ArrowException, OSError) as error:
        raise ConfigError(f"{name} is not a table ({error}).") from error
    taken = column if column is not None else next((one for one in URI_COLUMNS if one in table), None)
    if taken not in table:
        wanted = f"no column {column!r}" if column else f"none of the columns {', '.join(URI_COLUMNS)}"
        raise ConfigError(f"{name} has {wanted}: it has {', '.join(map(str, table))}. Name one with --column.")
    table = table.dropna(subset=[taken])
    others = [(str(one), table[one].tolist()) for one in table if one != taken]
    for i, uri in enumerate(table[taken].astype(str)):
        yield uri.strip(), _to_json({one: values[i] for one, values in others if _is_known(values[i])})


def _is_known(value: Any) -> bool:
    return not (value is None or value is pd.NaT or (isinstance(value, float) and value != value))


def _to_json(metadata: Mapping[str, Any]) -> str:
    """ "" for no metadata; what JSON does not know (a date) as text."""
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False, default=str) if metadata else ""


def refuse_secrets(url: str, where: str = "") -> None:
    """ConfigError for an address that holds a password or a signature: it would stand in plans, records, and shards.

    The message does not show it; `where` says which entry it is.
    """
    if "://" not in url:
        return
    refuse_credentials(url)
    secret = next((key for key, _ in parse_qsl(urlsplit(url).query) if key.lower() in SECRETS), None)
    if secret:
        raise ConfigError(
            f"{where or url.partition('?')[0]}: the address holds a {secret!r}, which would be stored with the labels. Give addresses that "
            "need none, and credentials through the environment."
        )
