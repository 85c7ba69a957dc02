"""The plan: which videos there are, and which unit of work each belongs to; fixed before the first
one is opened.

    plan.0000.parquet    one row per video: the fields of its `Source`, its unit, and why a filter
                         leaves it out (then it is in no unit); create-only. Further plans add
                         units: a video's latest unit counts

Probing, hashing, and shot cuts happen inside the unit, so planning 100,000 videos takes seconds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from labeler.io import Storage
from labeler.reasons import LeftOut
from labeler.sources import Source
from teachers import ShardError

PLAN = re.compile(r"plan\.(\d{4})\.parquet")
VIDEOS_PER_UNIT, UNITS = 16, 32
"""A unit has so many videos, or fewer where that would make fewer units than a machine has workers
for."""
NO_UNIT = -1
"""Of a video that a filter leaves out."""
COLUMNS = {
    "uri": "object",
    "size": "int64",
    "etag": "object",
    "offset": "Int64",
    "metadata": "object",
    "unit": "int64",
    "left_out": "object",
}
"""Of a plan; an "object" is a text."""


@dataclass(frozen=True)
class Unit:
    """One unit of work: the videos of one shard."""

    number: int
    plan: int
    videos: tuple[Source, ...]


def cut_into_units(
    sources: Sequence[Source],
    videos_per_unit: int | None = None,
    *,
    first_unit: int = 0,
    why_not: Callable[[Source], str] = lambda source: "",
) -> pd.DataFrame:
    """The plan as a table: consecutive sources share a unit; one of which `why_not` says something
    is in none, and that is kept.

    Without `videos_per_unit` it is chosen by the number of videos alone, so that it is the same on
    every machine.
    """
    reasons = [why_not(source) for source in sources]
    if videos_per_unit is None:
        videos_per_unit = min(VIDEOS_PER_UNIT, max(1, reasons.count("") // UNITS))
    numbers, wanted = [], 0
    for reason in reasons:
        numbers.append(NO_UNIT if reason else first_unit + wanted // videos_per_unit)
        wanted += not reason
    return pd.DataFrame(
        {
            "uri": [source.uri for source in sources],
            "size": [source.size for source in sources],
            "etag": [source.etag for source in sources],
            "offset": [source.offset for source in sources],
            "metadata": [source.metadata for source in sources],
            "unit": numbers,
            "left_out": reasons,
        },
    ).astype(COLUMNS)


def create_plan(storage: Storage, number: int, table: pd.DataFrame) -> bool:
    """Write plan file `number`; False if another job wrote another one first (then that one
    counts)."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    name = f"plan.{number:04d}.parquet"
    return storage.create(name, buffer.getvalue()) or storage.read(name) == buffer.getvalue()


def read_plans(storage: Storage) -> list[pd.DataFrame]:
    """Every plan file, in order; empty before a job was planned. ShardError for one that is
    damaged."""
    names = [name for name in storage.names() if PLAN.fullmatch(name)]
    return [_parsed(storage.read(name), f"{storage.url}/{name}") for name in names]


def _parsed(data: bytes, what: str) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(data))[list(COLUMNS)].astype(COLUMNS)
        texts = table.select_dtypes(object)
        if (
            not all(isinstance(value, str) for name in texts for value in texts[name])
            or (table["unit"] < NO_UNIT).any()
        ):
            raise ValueError("a column holds something else than it should")
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise ShardError(
            f"{what} is not a plan ({error}): restore it, or label into a new folder."
        ) from error
    return table


def units(plans: Sequence[pd.DataFrame]) -> list[Unit]:
    """Every unit of every plan, by number."""
    return [
        Unit(int(str(number)), plan, tuple(sources_of(rows)))
        for plan, table in enumerate(plans)
        for number, rows in table[table["unit"] != NO_UNIT].groupby("unit", sort=False)
    ]


def sources_of(table: pd.DataFrame) -> list[Source]:
    """The videos of (a part of) a plan."""
    columns = zip(
        table["uri"], table["size"], table["etag"], table["offset"], table["metadata"], strict=True
    )
    return [
        Source(uri, int(size), etag, None if pd.isna(offset) else int(offset), metadata)
        for uri, size, etag, offset, metadata in columns
    ]


def unit_that_counts(plans: Sequence[pd.DataFrame]) -> dict[str, int]:
    """uri -> the latest unit it was planned in; `NO_UNIT` for a video that a filter leaves out."""
    return {
        uri: int(unit)
        for table in plans
        for uri, unit in zip(table["uri"], table["unit"], strict=True)
    }


def left_out_by_filters(plans: Sequence[pd.DataFrame]) -> list[LeftOut]:
    """A row for each video that a filter leaves out."""
    return [
        LeftOut(uri=uri, what="video", stage="plan", reason="unwanted", detail=detail)
        for table in plans
        for uri, detail in table.loc[table["unit"] == NO_UNIT, ["uri", "left_out"]].itertuples(
            index=False
        )
    ]


def plan_again(
    plans: Sequence[pd.DataFrame], uris: Collection[str], videos_per_unit: int | None = None
) -> pd.DataFrame:
    """A further plan with only `uris`, in new units."""
    known = {
        source.uri: source
        for table in plans
        for source in sources_of(table[table["uri"].isin(uris)])
    }
    first = 1 + max(int(table["unit"].max()) for table in plans)
    return cut_into_units([known[uri] for uri in sorted(known)], videos_per_unit, first_unit=first)
