"""The plan: which videos there are, and which unit of work each belongs to; fixed before the first
one is opened.

    plan.0000.parquet    one row per video: the fields of its `Source`, its unit, and why a filter
                         leaves it out (it is then in no unit); create-only. Later plans add units:
                         a video's latest unit counts

Its footer holds `unit_table`, a row per unit, so that a data set of millions of videos is opened
without their URIs, and a seal: a hash of that table and of all bytes before the footer. In a plan
that was changed since, or is from before there were seals, the table is computed from the rows.

Probing, hashing, and finding cuts happen inside the unit, so planning 100,000 videos takes seconds.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
"""How many units have their URIs joined at a time."""
UNIT_SCHEMA = pa.schema([("unit", pa.int64()), ("videos", pa.int64()), ("uris", pa.string())])
"""Columns of `unit_table`."""
UNIT_TABLE, SEAL = b"tapdistill.units", b"tapdistill.seal"
"""Keys of a plan's footer."""


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
    text = pa.large_string()
    if why_not:
        reasons = pa.array([why_not(source) for source in sources], text)
    else:
        reasons = pa.repeat(pa.scalar("", text), len(table))
    wanted = np.asarray(pc.equal(reasons, pa.scalar("", text)))
    if videos_per_unit is None:
        videos_per_unit = min(VIDEOS_PER_UNIT, max(1, int(wanted.sum()) // UNITS))
    numbers = first_unit + (np.cumsum(wanted) - 1) // videos_per_unit
    table = table.append_column("unit", pa.array(np.where(wanted, numbers, NO_UNIT), pa.int64()))
    return as_frame(table.append_column("left_out", reasons)).astype(COLUMNS)


def create_plan(storage: Storage, number: int, table: pd.DataFrame) -> bool:
    """Write plan file `number`; False if another job was faster and wrote a different one, which
    then counts."""
    of_units = _packed(unit_table(table))
    rows = pa.Table.from_pandas(table, preserve_index=False)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(
            {UNIT_TABLE: of_units, SEAL: _seal(buffer.getbuffer(), of_units)}
        )
    name = f"plan.{number:04d}.parquet"
    return storage.create(name, buffer.getvalue()) or storage.read(name) == buffer.getvalue()


class Plans(Sequence[pd.DataFrame]):
    """The plan files of a data set, in order. One with a valid seal is parsed when it is first
    looked at; `unit_tables` does not need that."""

    def __init__(self, files: Sequence[_PlanFile]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, which: int) -> pd.DataFrame: ...

    @overload
    def __getitem__(self, which: slice) -> list[pd.DataFrame]: ...

    def __getitem__(self, which: int | slice) -> pd.DataFrame | list[pd.DataFrame]:
        if isinstance(which, slice):
            return [file.table for file in self._files[which]]
        return self._files[which].table

    @property
    def unit_tables(self) -> list[pd.DataFrame]:
        """The `unit_table` of each."""
        return [file.units for file in self._files]


def read_plans(storage: Storage, columns: Collection[str] = COLUMNS) -> Plans:
    """Every plan file, in order, with some of its `COLUMNS`; empty if nothing has been planned yet.
    A ShardError if one is damaged."""
    names = [name for name in storage.names() if PLAN.fullmatch(name)]
    return Plans(
        [_PlanFile(storage.read(name), f"{storage.url}/{name}", columns) for name in names]
    )


class _PlanFile:
    """One plan: its rows, and its table of units."""

    def __init__(self, data: bytes, what: str, columns: Collection[str]) -> None:
        self._data, self._what, self._columns = data, what, columns
        sealed = _sealed_units(data)
        if sealed is None:  # it may be damaged, which is found here
            _ = self.table
        else:
            self.units = sealed

    @cached_property
    def table(self) -> pd.DataFrame:
        parsed = _parsed(self._data, self._what, self._columns)
        self._data = b""
        return parsed

    @cached_property
    def units(self) -> pd.DataFrame:
        return unit_table(self.table)


def _seal(body: bytes | memoryview, of_units: bytes) -> bytes:
    """A hash of the bytes before the footer, and of the packed table of units."""
    digest = hashlib.blake2b(body, digest_size=16)
    digest.update(of_units)
    return digest.hexdigest().encode()


def _packed(of_units: pd.DataFrame) -> bytes:
    """A table of units as text that a footer can hold: parquet in base 64."""
    buffer = io.BytesIO()
    table = pa.Table.from_pandas(of_units, UNIT_SCHEMA, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(), buffer, compression="zstd")
    return base64.b64encode(buffer.getbuffer())


def _sealed_units(data: bytes) -> pd.DataFrame | None:
    """The table of units in the footer of a plan; None if the plan has no valid seal."""
    try:
        said = pq.read_metadata(io.BytesIO(data)).metadata or {}
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        if said[SEAL] != _seal(memoryview(data)[:footer], said[UNIT_TABLE]):
            return None
        table = pq.read_table(io.BytesIO(base64.b64decode(said[UNIT_TABLE])))
        if not table.schema.equals(UNIT_SCHEMA) or any(one.null_count for one in table.columns):
            return None
    except (pa.ArrowException, KeyError, ValueError, OSError):
        return None
    return as_frame(table)


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
        found, bounds = _runs(of_unit[in_order])
        numbers.append(found)
        spans.append(np.column_stack([np.full(len(found), plan), bounds[:-1], bounds[1:]]))
        rows.append(in_order)
    if not plans:
        return Units((), np.zeros(0, int), np.zeros((0, 3), int), ())
    return Units(
        plans,
        np.concatenate(numbers),
        np.concatenate(spans),
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


def unit_tables(plans: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The `unit_table` of each plan."""
    return plans.unit_tables if isinstance(plans, Plans) else [unit_table(plan) for plan in plans]


def unit_table(plan: pd.DataFrame) -> pd.DataFrame:
    """A row per unit of a plan, by number: unit, videos (how many), and uris, the `hash_of` theirs.
    The first is `NO_UNIT`, without a hash, if filters leave out any."""
    of_unit, uris = plan["unit"].to_numpy(), plan["uri"]
    if (of_unit[1:] < of_unit[:-1]).any():
        in_order = np.argsort(of_unit, kind="stable")
        of_unit, uris = of_unit[in_order], uris.iloc[in_order]
    numbers, bounds = _runs(of_unit)
    hashes = [""] * int((numbers == NO_UNIT).sum())
    for first in range(len(hashes), len(numbers), UNITS_AT_ONCE):
        hashes += _hashes(uris, bounds[first : first + UNITS_AT_ONCE + 1])
    return pd.DataFrame(
        {"unit": numbers, "videos": np.diff(bounds), "uris": pd.Series(hashes, dtype=TEXT)}
    )


def _runs(
    values: np.ndarray,  # int64 [N]
) -> tuple[np.ndarray, np.ndarray]:  # int64 [R], int64 [R + 1]
    """The value of each run of equal ones, and where the runs begin and the last one ends."""
    begins = np.flatnonzero(np.diff(values, prepend=values[:1] - 1) != 0)
    return values[begins], np.append(begins, len(values))


def _hashes(uris: pd.Series, bounds: np.ndarray) -> list[str]:
    """`hash_of` the URIs between each two bounds: int64, ascending."""
    texts = pa.array(uris.iloc[bounds[0] : bounds[-1]], pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not pc.all(pc.less_equal(texts[:-1], texts[1:])).as_py():
        span = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        both = pa.table({"span": span, "uri": texts})
        texts = both.sort_by([("span", "ascending"), ("uri", "ascending")])["uri"].combine_chunks()
    spans = pa.LargeListArray.from_arrays(bounds - bounds[0], texts)
    joined = pc.binary_join(spans, pa.scalar("\n", pa.large_string()))
    return [_hash(text) for text in joined.cast(pa.large_binary()).to_pylist()]


def videos_that_count(plans: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """For each plan, a row per unit: unit, videos (how many of it count: see `counting_rows`)."""
    if len(plans) < 2:
        return unit_tables(plans)
    found = []
    for plan, counts in counting_rows(plans):
        numbers, videos = np.unique(plan["unit"].to_numpy()[counts], return_counts=True)
        found.append(pd.DataFrame({"unit": numbers, "videos": videos}))
    return found


def number_of_units(plans: Sequence[pd.DataFrame]) -> int:
    """How many units there are in all plans."""
    numbers = [table["unit"].to_numpy() for table in unit_tables(plans)]
    return int((np.unique(np.concatenate(numbers)) != NO_UNIT).sum()) if numbers else 0


def hash_of(uris: Iterable[str]) -> str:
    """A hash of a set of URIs, in whatever order they come."""
    return _hash("\n".join(sorted(uris)).encode())


def _hash(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


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
