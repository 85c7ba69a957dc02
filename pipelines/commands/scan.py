"""tapdistill scan: find exact duplicates among videos, by the hash of their content.

Only files of equal size can be equal, so where the listing gives sizes, only those are read. A
labelling job finds duplicates within a unit by itself; this command finds them across a whole
collection, before it is labelled.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from labeler.sources import Source, list_sources
from labeler.sources.rules import LISTS
from labeler.video.container import VideoLimits
from labeler.video.fetch import local_file
from labeler.video.pictures import content_sha256
from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle
from pipelines.wording import counted
from teachers import ConfigError, TransientError, VideoError

THREADS = 8
TABLE = ".parquet"
URI = "uri"
"""The column of a table that names the videos: the first that `label` looks for."""


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """Find videos that are identical, byte for byte."""

    videos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="VIDEOS", help_behavior_hint="(required)"),
    ]
    """Videos, folders, globs in quotes, URLs, lists, tables, and tars, as for `label`."""
    column: str | None = None
    """Column of a table that holds the paths or URLs."""
    unique: Path | None = None
    """File for a list (.txt) of the videos without the duplicates, one per line, or a table
    (.parquet), which keeps their metadata, too; `tapdistill label` takes either."""


@dataclass(frozen=True)
class Scanned:
    """What a scan found."""

    groups: list[list[Source]]
    """Equal videos, the first by URI first; only groups of two or more."""
    unread: list[tuple[Source, str]]
    """Videos that could not be read, and why."""


def run(config: ScanConfig) -> int:
    """Print the groups of equal videos; the exit code is 0 whether there are any or not."""
    unique = config.unique
    if unique is not None and not unique.name.lower().endswith((*LISTS, TABLE)):
        raise ConfigError(
            f"--unique {unique}: name a list, such as unique.txt, or a table, unique.parquet."
        )
    unused: list[str] = []
    sources = list_sources(config.videos, config.column, unused)
    for sentence in unused:
        say(f"note: {sentence}")
    if unique is not None and any(source.span for source in sources):
        raise ConfigError(
            "--unique writes a list of files, which members of a tar are not: scan folders or "
            "lists."
        )
    found = scan(sources)
    for group in found.groups:
        say(f"{group[0].uri}")
        for source in group[1:]:
            say(f"    = {source.uri}")
    for source, why in found.unread:
        say(f"not read: {source.uri}: {why}")
    again = {source.uri for group in found.groups for source in group[1:]}
    say(
        f"{len(sources)} videos, {len(again)} of them duplicates in {len(found.groups)} groups, "
        f"{len(found.unread)} not read."
    )
    if unique is not None:
        _write([source for source in sources if source.uri not in again], unique)
        say(f"the {len(sources) - len(again)} others are listed in {unique}")
    return 0


def _write(sources: Sequence[Source], file: Path) -> None:
    """Write the videos into a list or a table, and say whose metadata it does not give back."""
    odd = next((s.uri for s in sources if "\n" in s.uri or s.uri != s.uri.strip()), None)
    if odd is not None:
        raise ConfigError(
            f"--unique {file}: {odd!r} cannot stand in a list of one video a line: rename it."
        )
    is_table = file.name.lower().endswith(TABLE)
    try:
        if is_table:
            pq.write_table(unique_table(sources), file)
        else:
            file.write_text("".join(f"{source.uri}\n" for source in sources))
    except (OSError, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"--unique {file}: cannot be written: {why}.") from error
    read = {source.uri: _of(source) for source in list_sources([str(file)])}
    other = sum(_of(source) != read.get(source.uri) for source in sources)
    if other and is_table:
        say(
            f"note: {file} has the metadata of {counted(other, 'video')} as text: in other videos, "
            "the same columns have values of other types."
        )
    elif other:
        say(
            f"note: {file} lacks the metadata of {counted(other, 'video')}, which a list cannot "
            f"hold: `--unique {file.with_suffix(TABLE)}` writes a table with it."
        )


def unique_table(sources: Sequence[Source]) -> pa.Table:
    """The URIs of the videos, and a column for each thing that their metadata say."""
    said = [_of(source) for source in sources]
    names = sorted({name for one in said for name in one})
    if URI in names:
        raise ConfigError(
            f"the metadata of the videos have {URI!r}, which in a table is the video: rename it, "
            "or write a list, such as --unique unique.txt."
        )
    columns = {name: _column([one.get(name) for one in said]) for name in names}
    return pa.table({URI: pa.array([source.uri for source in sources], pa.string()), **columns})


def _column(values: list[Any]) -> pa.Array:
    """The values, which JSON knows; as text where they have no type in common."""
    try:
        array = pa.array(values)
        if array.to_pylist() == values and "struct<>" not in str(array.type):
            return array
    except (pa.ArrowException, OverflowError):
        pass
    texts = [one if one is None or isinstance(one, str) else json.dumps(one) for one in values]
    return pa.array(texts, pa.string())


def _of(source: Source) -> dict[str, Any]:
    """What the metadata of a video say."""
    return json.loads(source.metadata) if source.metadata else {}


def scan(sources: Sequence[Source]) -> Scanned:
    """Groups of equal videos among `sources`."""
    by_size: dict[int, list[Source]] = defaultdict(list)
    for source in sources:
        by_size[source.size].append(source)
    candidates = [
        source for size, some in by_size.items() for source in some if size == 0 or len(some) > 1
    ]
    if any(not source.size for source in candidates):
        candidates = list(sources)  # the listing gives no sizes, so any two may be equal
    by_hash: dict[str, list[Source]] = defaultdict(list)
    unread: list[tuple[Source, str]] = []
    lines = LineThrottle()
    for done, (source, digest, why) in enumerate(_hashes(candidates), 1):
        if why:
            unread.append((source, why))
        else:
            by_hash[digest].append(source)
        if lines.due():
            say(f"{done}/{len(candidates)} files of equal size read")
    groups = [
        sorted(some, key=lambda source: source.uri) for some in by_hash.values() if len(some) > 1
    ]
    return Scanned(sorted(groups, key=lambda group: group[0].uri), unread)


def _hashes(sources: Sequence[Source]) -> Iterator[tuple[Source, str, str]]:
    """(source, sha256, "") or (source, "", why it could not be read), in order."""

    def one(source: Source) -> tuple[Source, str, str]:
        try:
            with ExitStack() as stack:
                file = local_file(source.uri, VideoLimits(), stack, source.span)
                return source, content_sha256(file), ""
        except (VideoError, TransientError, OSError) as error:
            return source, "", str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(one, sources)
