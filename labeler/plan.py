"""The plan: which videos there are, and which unit of work each belongs to; fixed before the first one is opened.

    plan.0000.parquet    uri, size, etag, unit; create-only. Further plans add units: a video's latest unit counts

Listing costs one look at the storage and opens nothing, so 100,000 videos take seconds. Probing, hashing, and shot cuts happen inside
the unit.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from labeler.storage import Storage, file_system, surroundings, tag_of
from teachers import ConfigError

PLAN = re.compile(r"plan\.(\d{4})\.parquet")


@dataclass(frozen=True)
class Source:
    """A video as a listing sees it."""

    uri: str
    size: int
    etag: str
    """What the storage says of the content: an ETag, or size and time of a local file."""


@dataclass(frozen=True)
class Unit:
    """One unit of work: the videos of one shard."""

    number: int
    plan: int
    uris: tuple[str, ...]


def list_sources(videos: Sequence[str]) -> list[Source]:
    """The videos named by folders, globs, and files or URLs, without opening one; sorted by URI, each once.

    A folder gives every file below it that is not hidden, whatever its ending: what is no video becomes a row that says so. Use a glob
    ('clips/**/*.mp4') to take only some. Links to files are followed, links to folders are not.

    Raises:
        ConfigError: a folder or glob without a file, or nothing named at all.
    """
    found: dict[str, Source] = {}
    for pattern in videos:
        fs, path = file_system(pattern)
        with surroundings(f"list {pattern}"):
            if any(sign in path for sign in "*?[") and not fs.exists(path):
                entries = fs.glob(path, detail=True)
            elif fs.isdir(path):
                below = path.rstrip("/") + "/"
                entries = {name: info for name, info in fs.find(path, detail=True).items() if not _hidden(name.removeprefix(below))}
            else:  # one file; a missing one becomes a row, so that a list with one wrong name still runs
                entries = {path: fs.info(path) if fs.exists(path) else {"type": "file", "size": 0}}
            files = {
                name: info for name, info in entries.items() if info["type"] == "file" or (info.get("islink") and fs.isfile(name))
            }
        if not files:
            raise ConfigError(
                f"{pattern}: no file there. Give a video, a folder of videos, or a glob in quotes such as 'videos/**/*.mp4'."
            )
        for name, info in files.items():
            uri = fs.unstrip_protocol(name) if "://" in pattern else name
            found[uri] = Source(uri, int(info.get("size") or 0), tag_of(info))
    if not found:
        raise ConfigError("no video named: give at least one file, folder, glob, or URL.")
    return [found[uri] for uri in sorted(found)]


def _hidden(path: str) -> bool:
    """True for a path below a folder of which a part begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def cut_into_units(sources: Sequence[Source], videos_per_unit: int, *, first_unit: int = 0) -> pd.DataFrame:
    """The plan as a table (uri, size, etag, unit): consecutive sources share a unit."""
    return pd.DataFrame(
        {
            "uri": pd.Series([source.uri for source in sources], dtype=object),
            "size": pd.Series([source.size for source in sources], dtype="int64"),
            "etag": pd.Series([source.etag for source in sources], dtype=object),
            "unit": pd.Series([first_unit + i // videos_per_unit for i in range(len(sources))], dtype="int64"),
        }
    )


def create_plan(storage: Storage, number: int, table: pd.DataFrame) -> bool:
    """Write plan file `number`; False if another job wrote it first (then that one counts)."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return storage.create(f"plan.{number:04d}.parquet", buffer.getvalue())


def read_plans(storage: Storage) -> list[pd.DataFrame]:
    """Every plan file, in order; empty before a job was planned."""
    names = [name for name in storage.names() if PLAN.fullmatch(name)]
    return [pd.read_parquet(io.BytesIO(storage.read(name))) for name in names]


def units(plans: Sequence[pd.DataFrame]) -> list[Unit]:
    """Every unit of every plan, by number."""
    return [
        Unit(int(number), plan, tuple(uris))
        for plan, table in enumerate(plans)
        for number, uris in table.groupby("unit", sort=False)["uri"]
    ]


def unit_that_counts(plans: Sequence[pd.DataFrame]) -> dict[str, int]:
    """uri -> the latest unit it was planned in."""
    return {uri: int(unit) for table in plans for uri, unit in zip(table["uri"], table["unit"], strict=True)}
