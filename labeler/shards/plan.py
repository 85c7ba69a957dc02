"""The plan: which videos there are, and which unit of work each belongs to; fixed before the first
one is opened.

    plan.0000.parquet    one row per video: the fields of its `Source`, its unit, and why a filter
                         leaves it out (it is then in no unit); create-only. Later plans add units:
                         a video's latest unit counts

Probing, hashing, and finding cuts happen inside the unit, so planning 100,000 videos takes seconds.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labeler.io import Storage
from labeler.lazy_sequence import LazySequence
from labeler.reasons import LeftOut
from labeler.sources import Source
from labeler.sources.table import Sources
from teachers import ShardError

PLAN = re.compile(r"plan\.(\d{4})\.parquet")
VIDEOS_PER_UNIT, UNITS = 16, 32
"""A unit has this many videos, or fewer if there would be fewer than this many units, so that each
worker of a machine gets some."""
NO_UNIT = -1
"""The unit of a video that a filter leaves out."""
TEXT = "string[pyarrow]"
COLUMNS = {
    "uri": TEXT,
    "size": "int64",
    "etag": TEXT,
    "offset": "Int64",
    "metadata": TEXT,
    "unit": "int64",
    "left_out": TEXT,
}
"""Columns of a plan. Arrow holds the texts, in a tenth of the memory that Python's take."""
WHAT_BECAME = ("uri", "unit", "left_out")
"""Columns that say what became of a video."""
UNITS_AT_ONCE = 4096
"""How many units have their URIs turned into Python objects at a time."""


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
    why_not: Callable[[Source], str] | None = None,
) -> pd.DataFrame:
    """The plan as a table: consecutive sources share a unit. A source for which `why_not` gives a
    reason is in none, and the reason is stored.

    Without `videos_per_unit`, it depends only on the number of videos, so that it is the same on
    every machine.
    """
    table = (sources if isinstance(sources, Sources) else Sources.of(sources)).table
    reasons = [why_not(source) for source in sources] if why_not else [""] * len(sources)
    wanted = np.array([not reason for reason in reasons], bool)
    if videos_per_unit is None:
        videos_per_unit = min(VIDEOS_PER_UNIT, max(1, int(wanted.sum()) // UNITS))
    numbers = first_unit + (np.cumsum(wanted) - 1) // videos_per_unit
    return (
        as_frame(table)
        .assign(
            unit=np.where(wanted, numbers, NO_UNIT),
            left_out=pd.Series(reasons, dtype=TEXT),
        )
        .astype(COLUMNS)
    )


def create_plan(storage: Storage, number: int, table: pd.DataFrame) -> bool:
    """Write plan file `number`; False if another job was faster and wrote a different one, which
    then counts."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    name = f"plan.{number:04d}.parquet"
    return storage.create(name, buffer.getvalue()) or storage.read(name) == buffer.getvalue()


def read_plans(storage: Storage, columns: Collection[str] = COLUMNS) -> list[pd.DataFrame]:
    """Every plan file, in order, with some of its `COLUMNS`; empty if nothing has been planned yet.
    A ShardError if one is damaged."""
    names = [name for name in storage.names() if PLAN.fullmatch(name)]
    return [_parsed(storage.read(name), f"{storage.url}/{name}", columns) for name in names]


def _parsed(data: bytes, what: str, columns: Collection[str]) -> pd.DataFrame:
    kinds = {name: kind for name, kind in COLUMNS.items() if name in columns}
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if missing := COLUMNS.keys() - set(file.schema_arrow.names):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        table = file.read([*kinds])
        for name, kind in kinds.items():
            if kind == TEXT:
                table = table.set_column(
                    table.column_names.index(name), name, _text(table[name], name)
                )
        frame = as_frame(table).astype(kinds)
        if (frame["unit"] < NO_UNIT).any():
            raise ValueError("a unit has a number below -1")
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())
        raise ShardError(
            f"{what} is not a plan ({why}): restore it, or label into a new folder."
        ) from error
    return frame


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of texts, none of which is missing; a ValueError for any other column."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or column.null_count:
        raise ValueError(f"the column {name} does not hold only texts")
    return column.cast(pa.large_string())


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas, whose texts stay in Arrow's memory."""
    texts = {pa.string(): pd.StringDtype("pyarrow"), pa.large_string(): pd.StringDtype("pyarrow")}
    return table.to_pandas(types_mapper=texts.get, split_blocks=True)


class Units(LazySequence[Unit]):
    """The units of several plans. Each is made when it is accessed; the videos stay in the
    plans."""

    def __init__(
        self,
        plans: Sequence[pd.DataFrame],
        numbers: np.ndarray,  # int64 [U]   of each unit
        spans: np.ndarray,  # int64 [U, 3]  its plan, and where its rows begin and end in `rows`
        rows: Sequence[np.ndarray],  # for each plan, the numbers of its rows, sorted by unit
    ) -> None:
        self._plans, self.numbers, self._spans, self._rows = plans, numbers, spans, rows

    @property
    def videos(self) -> int:
        """Number of videos in all units."""
        return int((self._spans[:, 2] - self._spans[:, 1]).sum())

    def without(self, numbers: np.ndarray) -> Units:  # int64 [...]
        """The units except those with these numbers."""
        return self.take(np.flatnonzero(np.isin(self.numbers, numbers, invert=True)))

    def share(self, i: int, n: int) -> Units:
        """Every n-th unit, by number, from i on."""
        return self.take(np.flatnonzero(self.numbers % n == i))

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The units with these indices, in that order."""
        some = np.asarray(indices, np.int64)
        return type(self)(self._plans, self.numbers[some], self._spans[some], self._rows)

    def _item(self, index: int) -> Unit:
        plan, begin, end = self._spans[index].tolist()
        rows = self._plans[plan].iloc[self._rows[plan][begin:end]]
        return Unit(int(self.numbers[index]), plan, tuple(sources_of(rows)))


def units(plans: Sequence[pd.DataFrame]) -> Units:
    """Every unit of every plan, by number."""
    numbers, spans, rows = [], [], []
    for plan, table in enumerate(plans):
        of_unit = table["unit"].to_numpy()
        in_order = np.argsort(of_unit, kind="stable")
        in_order = in_order[np.searchsorted(of_unit[in_order], NO_UNIT, side="right") :]
        found, begins = np.unique(of_unit[in_order], return_index=True)
        ends = [*begins[1:].tolist(), len(in_order)] if len(found) else []
        numbers.append(found)
        spans.append(np.array([(plan, *both) for both in zip(begins, ends, strict=True)], int))
        rows.append(in_order)
    if not plans:
        return Units((), np.zeros(0, int), np.zeros((0, 3), int), ())
    return Units(
        plans,
        np.concatenate(numbers),
        np.concatenate([span.reshape(-1, 3) for span in spans]),
        rows,
    )


def sources_of(table: pd.DataFrame) -> list[Source]:
    """The videos in rows of a plan."""
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


def planned_again(plans: Sequence[pd.DataFrame]) -> dict[str, int]:
    """The same for the videos in plans after the first: they are few, while the first may have
    millions."""
    return unit_that_counts(plans[1:])


def counting_rows(
    plans: Sequence[pd.DataFrame],
) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """Each plan, and which of its rows count, bool [rows]: those whose video is in no later
    plan."""
    found, later = list[tuple[pd.DataFrame, np.ndarray]](), set[str]()
    for table in reversed(plans):
        again = table["uri"].isin(list(later)) if later else np.zeros(len(table), bool)
        found.append((table, ~np.asarray(again, dtype=bool)))
        if table is not plans[0]:
            later |= set(table["uri"])
    return found[::-1]


def hashes_of_units(plan: pd.DataFrame) -> dict[int, str]:
    """Unit -> `hash_of` the URIs of its videos."""
    in_order = np.argsort(plan["unit"].to_numpy(), kind="stable")
    of_unit = plan["unit"].to_numpy()[in_order]
    numbers, begins = np.unique(of_unit, return_index=True)
    ends = np.append(begins[1:], len(plan))
    found: dict[int, str] = {}
    for first in range(0, len(numbers), UNITS_AT_ONCE):
        some = slice(first, first + UNITS_AT_ONCE)
        start = int(begins[first])
        uris = plan["uri"].iloc[in_order[start : int(ends[some][-1])]].tolist()
        bounds = zip(numbers[some].tolist(), begins[some] - start, ends[some] - start, strict=True)
        found |= {unit: hash_of(uris[begin:end]) for unit, begin, end in bounds if unit != NO_UNIT}
    return found


def hash_of(uris: Iterable[str]) -> str:
    """A hash of a set of URIs, in whatever order they come."""
    return hashlib.blake2b("\n".join(sorted(uris)).encode(), digest_size=8).hexdigest()


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
    """Another plan, which puts only `uris` into new units."""
    known = {
        source.uri: source
        for table in plans
        for source in sources_of(table[table["uri"].isin(uris)])
    }
    first = 1 + max(int(table["unit"].max()) for table in plans)
    return cut_into_units([known[uri] for uri in sorted(known)], videos_per_unit, first_unit=first)
