"""tapdistill scan: find exact duplicates among videos, by the hash of their content.

Only files of equal size can be equal, so where the listing gives sizes, only those are read. A
labelling job finds duplicates within a unit by itself; this command finds them across a whole
collection, before it is labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from labeler.sources import Source, list_sources
from labeler.video.container import VideoLimits
from labeler.video.fetch import local_file
from labeler.video.pictures import content_sha256
from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle
from teachers import ConfigError, TransientError, VideoError

THREADS = 8


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
    """File for a list of the videos without the duplicates, one per line, which `tapdistill label`
    takes."""


@dataclass(frozen=True)
class Scanned:
    """What a scan found."""

    groups: list[list[Source]]
    """Equal videos, the first by URI first; only groups of two or more."""
    unread: list[tuple[Source, str]]
    """Videos that could not be read, and why."""


def run(config: ScanConfig) -> int:
    """Print the groups of equal videos; the exit code is 0 whether there are any or not."""
    unused: list[str] = []
    sources = list_sources(config.videos, config.column, unused)
    for sentence in unused:
        say(f"note: {sentence}")
    if config.unique is not None and any(source.span for source in sources):
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
    if config.unique is not None:
        odd = next(
            (
                source.uri
                for source in sources
                if "\n" in source.uri or source.uri != source.uri.strip()
            ),
            None,
        )
        if odd is not None:
            raise ConfigError(
                f"--unique {config.unique}: {odd!r} cannot stand in a list of one video a line: "
                "rename it."
            )
        try:
            config.unique.write_text(
                "".join(f"{source.uri}\n" for source in sources if source.uri not in again)
            )
        except OSError as error:
            raise ConfigError(
                f"--unique {config.unique}: cannot be written: {error.strerror}."
            ) from error
        say(f"the {len(sources) - len(again)} others are listed in {config.unique}")
    return 0


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
