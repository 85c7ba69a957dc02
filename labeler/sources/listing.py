"""Listing: which videos a job is asked for, found without opening one.

    folder, glob, file, URL      what the storage lists there, by `labeler.sources.rules`; a folder
                                 that holds pictures and nothing else is one video, whose URI ends
                                 with a slash
    *.tar                        a WebDataset of videos: each member that is one, by the same rules
    *.txt, *.list                one path or URL a line; '#' begins a comment
    *.csv, *.parquet             a column of paths or URLs; the other columns are metadata, and
                                 travel into the shards

Listing costs one look at the storage, or one at the headers of each tar, so 100,000 videos take
seconds; metadata files of a storage that is not local are read several at once. Entries of a list
or table are not checked: a missing file, or an empty entry, becomes a row of the job, like any
broken video. Only the folders of local entries are listed, for the metadata files beside the
videos: at a URL, a folder with a million objects would be listed for one entry, and http has no
listings. Where the list itself says something else, the list counts. Whatever is named but not used
is counted, with one sentence for each kind. A tar that was cut short, or that holds more than plain
files with plain names, is refused: whatever is behind the damage would be missing from the counts.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from glob import has_magic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from labeler.io import s3, transient_errors
from labeler.io.secrets import refuse_secrets
from labeler.io.storage import UnknownProtocol, check_protocol, file_system, is_url, tag_of
from labeler.sources import rules
from labeler.sources.beside import Beside, read_small
from labeler.sources.folders import Folders, entries_of
from labeler.sources.lists import read_entries
from labeler.sources.metadata import from_members, to_metadata
from labeler.sources.rules import LISTS, TABLES, TARS, TagsOnly, Unused
from labeler.sources.table import Source as Source
from labeler.sources.table import Sources
from labeler.sources.tars import members
from teachers import ConfigError

_HERE = re.compile(r"/(?:\.?/)+")
"""What a path may have in place of a slash: "//", "/./"."""
HEADER_BYTES = 1 << 16
"""A storage that is not local is asked for so much of a tar at a time: the header of a member, the
metadata behind it, and the next header. s3fs would take 50 MiB, and so the whole tar."""
TOGETHER, READERS = 256, 16
"""Metadata files are read for so many videos at a time, and so many files at once."""


def list_sources(
    videos: Sequence[str],
    column: str | None = None,
    notes: list[str] | None = None,
    *,
    known: Mapping[str, str] | None = None,
) -> Sources:
    """The videos named by folders, globs, files, URLs, tars, lists, and tables, without opening
    one; sorted by URI, each once.

    A folder gives the videos below it, by the rules of `labeler.sources.rules`; files of a labelled
    data set in it are not among them. Use a glob ('clips/**/*.mp4') to take only some. Links to
    files are followed, links to folders are not. Rows, members, and files that name a video again
    add to its metadata.

    Args:
        videos: as above.
        column: the column of a table that holds the paths; without it, the first of
            `labeler.sources.lists.URI_COLUMNS` that is there.
        notes: gets a sentence for each kind of thing that was named and is not used.
        known: the tags of an earlier listing by URI. With it, the listing is one of URIs and tags:
            no metadata is read, and the members of a tar that has the tag that it had are left out.

    Raises:
        ConfigError: a folder or glob has no file; nothing is named at all, or nothing that is
            there (of several, a file that is gone becomes a row); a list, table, tar, or
            archive cannot be read whole; or an address holds a password or a signature.
    """
    unused = Unused() if known is None else TagsOnly(known)
    ends: list[int] = []
    found, several = Sources.of(_named(videos, column, unused, ends)).in_order()
    there = (is_url(name) or has_magic(name) or os.path.lexists(name) for name in videos)
    if videos and not any(there):
        raise ConfigError(f"{', '.join(videos[:3])}: no such file or folder.")
    if several:
        _count_twice(several, ends, unused)
        found = _merged(found, several)
    if notes is not None:
        notes += unused.lines()
    if not len(found):
        why = " ".join(unused.lines())
        raise ConfigError(
            "no video named: give at least one file, folder, glob, list, table, or URL."
            + (f" What was named: {why}" if why else "")
        )
    return found


def _named(
    videos: Sequence[str], column: str | None, unused: Unused, ends: list[int]
) -> Iterator[Source]:
    """The sources in the order in which they are named, as they can stand in a plan; `ends` gets
    how many there are up to the end of each of `videos`."""
    count = 0
    for pattern in videos:
        if not pattern:
            raise ConfigError(
                "a video is named by an empty text: is a variable of the shell not set?"
            )
        for source in _named_by(pattern, column, unused):
            uri = _storable(source.uri)
            yield source if uri == source.uri else replace(source, uri=uri)
            count += 1
        ends.append(count)


Several = Mapping[str, Sequence[tuple[int, Source]]]
"""URI -> [(index, source), ...], for URIs that were named several times."""


def _count_twice(several: Several, ends: Sequence[int], unused: Unused) -> None:
    """Count the sources that a single folder, list, or table names more than once."""
    again = []
    for uri, found in several.items():
        of = [bisect.bisect_right(ends, index) for index, _ in found]
        again += [(found[i][0], uri) for i in range(len(of)) if of[i] in of[:i]]
    for _, uri in sorted(again):
        unused.add(*rules.TWICE, uri)


def _merged(found: Sources, several: Several) -> Sources:
    """The sources; the metadata of one that was named several times is merged."""
    said: dict[str, str] = {}
    for uri, ((_, first), *others) in several.items():
        says: dict[str, Any] | None = None
        for _, other in others:
            if other.metadata and first.metadata != other.metadata:
                before = json.loads(first.metadata or "{}") if says is None else says
                says = rules.merged(before, json.loads(other.metadata))
        if says is not None:
            said[uri] = to_metadata(says)
    return Sources.of(
        replace(source, metadata=said.get(source.uri, source.metadata)) for source in found
    )


def _storable(uri: str) -> str:
    """`uri`; or, for a name that is not UTF-8 and so cannot be in a plan, one that can be, and that
    no file has, so that it becomes a row."""
    try:
        uri.encode()
    except UnicodeEncodeError:
        text = uri.encode(errors="backslashreplace").decode()
        return f"{text}#its name is not UTF-8: rename it"
    return uri


def _named_by(pattern: str, column: str | None, unused: Unused) -> Iterator[Source]:
    fs, path = file_system(pattern)
    lower = path.lower()
    with transient_errors(f"list {pattern}"):
        try:
            there = fs.exists(path)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
                raise
            there = False
        if there and fs.isdir(path):
            yield from _below(fs, path, pattern, unused)
        elif any(sign in path for sign in "*?[") and not there:
            yield from _matched(fs, path, pattern, column, unused)
        else:
            _refuse_unreadable(pattern, lower)
            # one file; a missing one becomes a row, so that a list with one wrong name still runs
            info = fs.info(path) if there else {"type": "file", "size": 0}
            yield from _of_file(fs, path, info, pattern, column, unused)


def _refuse_unreadable(name: str, lower: str) -> None:
    """Raise a ConfigError for an archive or a table that is named and cannot be read here."""
    if lower.endswith(rules.PACKED):
        raise ConfigError(
            f"{name}: packed archives are not read: unpack it, or write its files into a plain "
            ".tar."
        )
    if lower.endswith(rules.OTHER_TABLES):
        raise ConfigError(f"{name}: tables are read from .csv and .parquet: write one of these.")


def _of_file(
    fs: Any, path: str, info: Any, pattern: str, column: str | None, unused: Unused
) -> Iterator[Source]:
    """The videos that one file is or names."""
    lower = path.lower()
    if lower.endswith(LISTS + TABLES) and fs.isfile(path):
        with fs.open(path, "rb") as opened:
            yield from _listed(_uri(fs, path, pattern), opened, column, unused)
        return
    source = _source(fs, path, info, pattern)
    if lower.endswith(TARS) and source.size:
        yield from _in_tar(fs, path, source, unused)
    else:
        yield Beside(unused).of(source) if isinstance(fs, LocalFileSystem) else source


def _in_tar(fs: Any, path: str, archive: Source, unused: Unused) -> Iterator[Source]:
    """The videos of a tar, each with the metadata in the members of its key."""
    if isinstance(unused, TagsOnly) and unused.knows(archive.uri, archive.etag):
        return
    with fs.open(path, "rb", block_size=HEADER_BYTES) as opened:
        there = members(opened, archive.uri)
        size = max((member.size for member in there.values()), default=0)
        empty, where = True, f"{archive.uri}#"
        for video in rules.sorted_out(there, unused, lambda one: one.size, where):
            empty = False
            said = []
            for name, member in () if isinstance(unused, TagsOnly) else video.metadata:
                opened.seek(member.offset_data)
                said.append((name, opened.read(min(size, member.size))))
            yield Source(
                f"{archive.uri}#{video.name}",
                video.file.size,
                archive.etag,
                video.file.offset_data,
                from_members(said, lambda name: unused.add(*rules.NO_JSON, f"{where}{name}")),
            )
    if empty:
        unused.add(*rules.EMPTY_TAR, archive.uri)


def _below(fs: Any, path: str, pattern: str, unused: Unused) -> Iterator[Source]:
    """The videos in a folder and below it; one folder at a time is held in memory."""
    root = path.rstrip("/") + "/"
    local = isinstance(fs, LocalFileSystem)
    walked = _walk(path, root, unused) if local else _found(fs, path, root, unused)
    empty = True
    for _, files in itertools.groupby(walked, lambda file: file[0].rpartition("/")[0]):
        empty = False
        named = {name: _source(fs, root + name, info, pattern) for name, info in files}
        yield from _chosen(fs, named, unused, root)
    if empty:
        _refuse_empty(pattern, unused)


def _refuse_data_set(folder: str) -> None:
    raise ConfigError(
        f"{folder}: a data set of labels (it holds a {rules.MANIFEST}), not a folder of videos."
    )


def _walk(path: str, root: str, unused: Unused) -> Iterator[tuple[str, Any]]:
    """(name below the root, info) of every file of a local folder; folders of labelled data sets
    and links to folders are not entered."""
    folders, own = [path], set[str]()
    fs = Folders(unused)
    while folders:
        folder = folders.pop()
        entries = entries_of(fs, folder)
        if _is_data_set([str(entry["name"]) for entry in entries]):
            if folder == path:
                _refuse_data_set(path)
            own.add(folder)
        for entry in entries:
            name, is_link = str(entry["name"]), bool(entry.get("islink"))
            if entry["type"] == "directory" and not is_link:
                folders.append(name)
                own |= {name} if folder in own else set()
            elif is_link and fs.isdir(name):
                unused.add(*rules.LINK, name)
            elif folder in own:
                unused.add(*rules.OWN, name)
            elif entry["type"] == "file" or is_link:
                yield name.removeprefix(root), entry
            else:
                unused.add(*rules.SPECIAL, name)


def _found(fs: Any, path: str, root: str, unused: Unused) -> Iterator[tuple[str, Any]]:
    """The same for a folder that is not local, which is listed at once, and held as columns."""
    listed = s3.entries(fs, path) if s3.is_s3(fs) else fs.find(path, detail=True).values()
    folders: dict[str, int] = {}
    of_folder = array.array("q")

    def named() -> Iterator[Source]:
        for info in listed:
            name = str(info["name"])
            if not name.endswith("/") and f"{name}/" != root:  # a marker of a folder
                of_folder.append(folders.setdefault(name.rpartition("/")[0], len(folders)))
                yield Source(name.removeprefix(root), int(info.get("size") or 0), tag_of(info))

    table = Sources.of(named()).table.combine_chunks()
    in_order = np.argsort(np.frombuffer(of_folder, np.int64), kind="stable")
    edges = np.searchsorted(np.sort(np.frombuffer(of_folder, np.int64)), range(len(folders) + 1))
    of_data_sets = _data_sets(table, of_folder, in_order, edges, folders)
    own = tuple(f"{folder}/" for folder in of_data_sets)
    if root in own:
        _refuse_data_set(_shown(fs, path))
    for folder, number in folders.items():
        rows = table.take(pa.array(in_order[edges[number] : edges[number + 1]]))
        for source in Sources(rows):
            if own and f"{folder}/".startswith(own):
                unused.add(*rules.OWN, _shown(fs, root + source.uri))
            else:
                yield source.uri, {"size": source.size, "etag": source.etag}


def _data_sets(
    table: pa.Table,  # of files: see `Sources`
    of_folder: Sequence[int],  # the number of each file's folder
    in_order: np.ndarray,  # numbers of the files, sorted by folder
    edges: np.ndarray,  # where the files of each folder begin in that order
    folders: Mapping[str, int],  # the number of each folder
) -> list[str]:
    """The folders that are labelled data sets."""
    names = table["uri"]
    manifests = pc.or_(pc.ends_with(names, f"/{rules.MANIFEST}"), pc.equal(names, rules.MANIFEST))
    some = {of_folder[row] for row in np.flatnonzero(manifests.to_numpy()).tolist()}
    return [
        folder
        for folder, number in folders.items()
        if number in some
        and _is_data_set(
            names.take(pa.array(in_order[edges[number] : edges[number + 1]])).to_pylist()
        )
    ]


def _above(name: str) -> Iterator[str]:
    """The folders in which a path lies."""
    while name := name.rpartition("/")[0]:
        yield name


def _is_data_set(names: Sequence[str]) -> bool:
    """Whether a folder with these files is a labelled data set: it has a dataset.json that is not
    the metadata of a video."""
    last = [name.rpartition("/")[2] for name in names]
    return rules.MANIFEST in last and not any(
        rules.key(name) == "dataset" and rules.suffix(name) in rules.VIDEO_SUFFIXES for name in last
    )


def _matched(
    fs: Any, path: str, pattern: str, column: str | None, unused: Unused
) -> Iterator[Source]:
    """What a glob finds. A part of it that is the literal name of a folder means that folder; if
    nothing is found, "[" is taken as a letter."""
    if isinstance(fs, LocalFileSystem):
        fs = Folders(unused)
    entries = fs.glob(_literal_folders(fs, path), detail=True)
    if not entries and "[" in path:
        entries = fs.glob(path.replace("[", "[[]"), detail=True)
    infos, folders = {}, list[str]()
    for name, info in sorted(entries.items()):
        if name.endswith("/"):
            continue  # the marker of a folder in a bucket
        if info["type"] == "file" or (info.get("islink") and not fs.isdir(name)):
            infos[name] = info
        elif info.get("islink"):
            unused.add(*rules.LINK, name)
        elif info["type"] == "directory":  # it is a video if it holds pictures
            below = entries_of(fs, name)
            infos |= {one["name"]: one for one in below if rules.is_picture(one["name"])}
            folders.append(name)
        else:
            unused.add(*rules.SPECIAL, name)
    used = {above for name in infos for above in _above(name)}
    for folder in folders:
        if folder not in used:
            unused.add(*rules.NOT_ENTERED, _shown(fs, folder))
    if path.lower().endswith(LISTS + TABLES):
        for name, info in infos.items():
            yield from _of_file(fs, name, info, pattern, column, unused)
        return
    root = os.path.commonpath(infos).rpartition("/")[0] if len(infos) == 1 else ""
    root = f"{root or (os.path.commonpath(infos) if infos else '')}/".replace("//", "/")
    files = {
        name.removeprefix(root): _source(fs, name, info, pattern) for name, info in infos.items()
    }
    if not files:
        _refuse_empty(pattern, unused)
    found = _chosen(fs, files, unused, root)
    if isinstance(fs, LocalFileSystem) and not any(map(rules.is_metadata, files)):
        found = map(Beside(unused).of, found)
    yield from found


def _literal_folders(fs: Any, path: str) -> str:
    """The glob, with folders that exist under their literal names escaped: "d [HD]/*.mp4"."""
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:end])
        if any(sign in folder for sign in "*?[") and fs.isdir(folder):
            return "/".join([re.sub(r"([*?[])", r"[\1]", folder), *parts[end:]])
    return path


def _refuse_empty(pattern: str, unused: Unused) -> None:
    letter = " In a glob, [...] stands for any one of the letters in it." if "[" in pattern else ""
    named = " ".join(["", *unused.lines()])
    raise ConfigError(
        f"{pattern}: no file there. Give a video, a folder of videos, or a glob in quotes "
        f"such as 'videos/**/*.mp4'.{letter}{named}"
    )


def _chosen(fs: Any, files: dict[str, Source], unused: Unused, root: str) -> Iterator[Source]:
    """The videos among the files of folders or a glob, by their names below `root`, and those in
    tars."""
    files, folders = rules.picture_folders(files)
    for _, pictures in sorted(folders.items()):
        tags = "".join(source.etag for source in pictures)
        yield Source(
            f"{pictures[0].uri.rpartition('/')[0]}/",
            sum(source.size for source in pictures),
            hashlib.sha256(tags.encode()).hexdigest() if tags else "",
        )
    videos = rules.sorted_out(files, unused, lambda source: source.size, _shown(fs, root))

    local = isinstance(fs, LocalFileSystem)

    def said(video: rules.Found[Source]) -> tuple[str, list[str], list[str]]:
        """What the metadata files of a video say; which cannot be read, and which are not JSON."""
        texts, closed, broken = [], list[str](), list[str]()
        for name, _ in () if isinstance(unused, TagsOnly) else video.metadata:
            try:
                texts.append((name, read_small(fs, root + name)))
            except (FileNotFoundError, PermissionError):  # a link to nowhere, for one
                closed.append(name)
        return from_members(texts, broken.append) if texts else "", closed, broken

    for some in iter(lambda: list(itertools.islice(videos, TOGETHER)), []):
        if local or not any(video.metadata for video in some):
            metadata = list(map(said, some))
        else:
            with ThreadPoolExecutor(READERS) as readers:
                metadata = list(readers.map(said, some))
        for video, (text, closed, broken) in zip(some, metadata, strict=True):
            for kind, names in ((rules.CLOSED_FILE, closed), (rules.NO_JSON, broken)):
                for name in names:
                    unused.add(*kind, _shown(fs, root + name))
            if video.name.lower().endswith(TARS) and video.file.size:
                yield from _in_tar(fs, root + video.name, video.file, unused)
            else:
                yield replace(video.file, metadata=text) if text else video.file


def _source(fs: Any, path: str, info: Any, pattern: str) -> Source:
    return Source(_uri(fs, path, pattern), int(info.get("size") or 0), tag_of(info))


def _shown(fs: Any, path: str) -> str:
    """A path as a user would write it: with its protocol, unless it is local."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _uri(fs: Any, path: str, pattern: str) -> str:
    return str(fs.unstrip_protocol(path)) if is_url(pattern) else path


def _listed(name: str, opened: Any, column: str | None, unused: Unused) -> Iterator[Source]:
    """The videos that a list or table names; relative paths are relative to its own folder."""
    folder = name.rpartition("/")[0] if is_url(name) else os.path.dirname(os.path.abspath(name))
    beside, i = Beside(unused), -1
    for i, entry in enumerate(read_entries(name, opened, column)):
        # a name that becomes a row, as every entry without a video does
        uri = entry.uri or f"{name}#entry {i} is empty"
        refuse_secrets(uri, f"{name}, entry {i}")
        with contextlib.suppress(UnknownProtocol):  # that entry's row says so
            check_protocol(uri)
        whole = uri if is_url(uri) or os.path.isabs(uri) else f"{folder}/{uri}"
        if not is_url(whole):
            whole = _HERE.sub("/", whole)
        metadata = entry.metadata if is_url(whole) else beside.also(whole, entry.metadata)
        yield Source(whole, 0, "", metadata=metadata)
    if i < 0:
        unused.add(*rules.EMPTY_LIST, name)
