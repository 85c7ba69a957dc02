"""Rules: which files of a folder, a tar, or a glob are videos, which belong to a video, and which
are not used; the same rules for all three.

    .a.mp4, ._a.mp4, __MACOSX/a.mp4     hidden
    a.mp4, b.webm                       videos, by what their names end with
    a.json, a.txt, a.info.json          metadata of the videos of their key
    a.wav, a.cls                        side files of a video of their key
    b.json, c.csv, d.jpg                known to be no video
    a.tar                               in a folder: its members, by the same rules
    1.png, 2.png, and nothing else      a folder that is one video
    f, f.dat                            tried as a video: if it is none, it becomes a row

The key is WebDataset's: the name up to the first dot of its last part. A side file whose name is
that of a video, except for the ending, belongs to that video only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

TARS = (".tar",)
LISTS, TABLES = (".txt", ".list"), (".csv", ".parquet")
_VIDEO = (
    "mp4 mov m4v mkv webm avi mpg mpeg mpe m2v m1v ts mts m2ts tp vob mod tod ogv ogg ogm flv f4v "
    "3gp 3g2 wmv asf wtv gxf mxf dv dif gif apng avif y4m ivf obu h261 h264 264 h265 265 hevc vc1 "
    "nut divx qt mjpeg mjpg rm rmvb"
)
VIDEO_SUFFIXES = frozenset(_VIDEO.split())
PICTURES = (".png", ".jpg", ".jpeg")
METADATA_SUFFIXES = ("json", "txt")
MAX_METADATA_BYTES = 1 << 20
"""The most bytes of a json or txt file; a longer one is not metadata."""
_NO_VIDEO = (
    "json jsonl ndjson txt list csv tsv parquet arrow feather xlsx npz npy pt pth pkl safetensors "
    "jpg jpeg png webp bmp tif tiff heic wav mp3 m4a aac flac opus srt vtt ass sub idx nfo log md "
    "html htm xml yaml yml toml ini cfg pdf py sh ipynb part tmp ytdl crdownload md5 sha256 "
    "torrent description"
)
SIDE_SUFFIXES = frozenset(_NO_VIDEO.split())
"""Endings of files that are known not to be videos."""
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
PACKED = (*ARCHIVES, ".zip", ".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".lz4")
_TABLES = "tsv tab jsonl ndjson json arrow feather orc avro xlsx xls ods pkl h5 hdf5"
OTHER_TABLES = tuple(f".{ending}" for ending in _TABLES.split())
MANIFEST = "dataset.json"
"""What the root folder of a labelled data set contains."""


class Unused:
    """Counts what a source names and a listing does not use, by kind."""

    def __init__(self) -> None:
        self._sorts: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, one: str, several: str, example: str) -> None:
        """Count a file; `one` and `several` are what such files are called."""
        count, first = self._sorts.get((one, several), (0, example))
        self._sorts[one, several] = count + 1, first

    def lines(self) -> list[str]:
        """One sentence for each kind."""
        return [
            f"{count:,} {one if count == 1 else several}, such as {example!r}."
            for (one, several), (count, example) in sorted(self._sorts.items())
        ]


class TagsOnly(Unused):
    """The same for a listing of which only URIs and tags are wanted: no metadata is read."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """`known` are URIs and tags of an earlier listing."""
        super().__init__()
        self._archives = {
            uri[:end]: tag
            for uri, tag in known.items()
            for end in (sign.start() for sign in re.finditer("#", uri))
            if uri[:end].lower().endswith(TARS)
        }

    def knows(self, archive: str, tag: str) -> bool:
        """Whether a tar has the tag that it had, so that its members are those that it had."""
        return bool(tag) and self._archives.get(archive) == tag


HIDDEN = ("hidden file is not used", "hidden files are not used")
SIDE = (
    "file beside a video is not used (neither video nor metadata)",
    "files beside videos are not used (neither videos nor metadata)",
)
NO_VIDEO = (
    "file is not used, because its ending is not that of a video",
    "files are not used, because their endings are not those of videos",
)
LONG = (
    "metadata file is above 1 MiB and not used",
    "metadata files are above 1 MiB and not used",
)
CLOSED_FILE = (
    "metadata file cannot be read and is not used",
    "metadata files cannot be read and are not used",
)
NO_JSON = (
    "metadata file is not JSON and not used",
    "metadata files are not JSON and not used",
)
NOT_READ = ("archive is not read", "archives are not read: unpack them, or write .tar")
OWN = ("file of a data set of labels is not used", "files of data sets of labels are not used")
LINK = ("link to a folder is not followed", "links to folders are not followed")
NOT_ENTERED = (
    "folder that a glob finds is not entered, because it is not one of pictures",
    "folders that a glob finds are not entered, because they are not ones of pictures",
)
SPECIAL = ("device or pipe is not used", "devices or pipes are not used")
CLOSED = ("folder cannot be read", "folders cannot be read")
TWICE = (
    "row names a video that another row named: what they say is kept as lists",
    "rows name videos that other rows named: what they say is kept as lists",
)
EMPTY_LIST = ("list or table names no video", "lists or tables name no video")
EMPTY_TAR = ("tar holds no video", "tars hold no video")


def key(name: str) -> str:
    """The key that WebDataset gives a file: its name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0] or last}"


def stem(name: str) -> str:
    """The name without its ending."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.rpartition('.')[0] or last}"


def suffix(name: str) -> str:
    """The part of its last part after the last dot, in lower case; "" if there is none."""
    last = name.rpartition("/")[2].lstrip(".")
    return last.rpartition(".")[2].lower() if "." in last else ""


OF_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})
"""What macOS, Windows, and network disks put beside files, in lower case."""


def is_hidden(name: str) -> bool:
    """True for a path with a part that begins with a dot, or that a system put beside files."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.lower() in OF_SYSTEMS
        for part in name.split("/")
    )


def is_metadata(name: str) -> bool:
    """Whether a file may say something about a video."""
    return suffix(name) in METADATA_SUFFIXES


def is_picture(name: str) -> bool:
    """Whether a file may be a frame of a folder of pictures."""
    return name.lower().endswith(PICTURES)


def picture_folders(files: Mapping[str, T]) -> tuple[dict[str, T], dict[str, list[T]]]:
    """The other files, and the folders whose visible files are all pictures, two or more. A cover
    beside a video stays a file, and so does a single picture."""
    by_folder = _grouped((name for name in files if not is_hidden(name)), _folder)
    folders = {
        folder: [files[name] for name in sorted(names)]
        for folder, names in by_folder.items()
        if len(names) > 1 and all(map(is_picture, names))
    }
    others = {
        name: file
        for name, file in files.items()
        if _folder(name) not in folders or is_hidden(name)
    }
    return others, folders


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


@dataclass(frozen=True)
class Found(Generic[T]):
    """A video, and the metadata files that belong to it, the most specific last."""

    name: str
    file: T
    metadata: list[tuple[str, T]] = field(default_factory=list)


def sorted_out(
    files: Mapping[str, T], unused: Unused, size: Callable[[T], int], where: str = ""
) -> Iterator[Found[T]]:
    """The videos among `files` (name -> any object), by the rules above; `where` is put before the
    name of a file that is counted as not used."""
    visible: dict[str, T] = {}
    for name, file in files.items():
        if is_hidden(name):
            unused.add(*HIDDEN, where + name)
        else:
            visible[name] = file
    videos = [name for name in visible if suffix(name) in VIDEO_SUFFIXES]
    of_stem, of_key = _grouped(videos, stem), _grouped(videos, key)
    metadata: dict[str, list[tuple[bool, str, T]]] = {}
    tried = []
    for name, file in visible.items():
        ending = suffix(name)
        if ending in VIDEO_SUFFIXES:
            continue
        if name.lower().endswith(TARS):
            tried.append(name)
            continue
        exact = of_stem.get(stem(name))
        owners = exact or of_key.get(key(name))
        if owners and ending in METADATA_SUFFIXES:
            if size(file) > MAX_METADATA_BYTES:
                unused.add(*LONG, where + name)
                continue
            for owner in owners:
                metadata.setdefault(owner, []).append((exact is not None, name, file))
        elif owners:
            unused.add(*SIDE, where + name)
        elif name.lower().endswith(PACKED):
            unused.add(*NOT_READ, where + name)
        elif ending in SIDE_SUFFIXES:
            unused.add(*NO_VIDEO, where + name)
        else:
            tried.append(name)
    for name in (*videos, *tried):
        said = sorted(metadata.get(name, []), key=lambda one: one[:2])
        yield Found(name, visible[name], [(which, file) for _, which, file in said])


def _grouped(names: Iterable[str], by: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(by(name), []).append(name)
    return groups


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What two rows say about one video: a column in which they differ becomes a list of both
    values."""
    both = dict(first)
    for name, value in second.items():
        if name not in both:
            both[name] = value
        elif isinstance(both[name], Several):
            if value not in both[name]:
                both[name] = Several([*both[name], value])
        elif both[name] != value:
            both[name] = Several([both[name], value])
    return both


class Several(list[Any]):
    """The values of several rows, as opposed to a list that is the value of one row."""
