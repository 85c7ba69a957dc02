"""Tables of a whole data set, from its commit records: clips.parquet, failures.parquet, and the
accounts.

What counts is the records; the parquet files are copies for pandas and DuckDB, and records.parquet
for tapdistill itself. All are written anew at the end of each job.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labeler.io import Storage, transient_errors
from labeler.io.scratch import scratch_folder
from labeler.reasons import LEFT_OUT, LeftOut
from labeler.shards.copies import COPIES, CopiesWriter
from labeler.shards.members import to_json
from labeler.shards.plan import (
    NO_UNIT,
    Units,
    left_out_by_filters,
    planned_again,
    read_plans,
    unit_tables,
    units,
    videos_that_count,
)
from labeler.shards.record import ClipEntry, Record, VideoEntry
from labeler.shards.records import Records, digests_of, rows_to_copy
from teachers import ShardError

One = TypeVar("One", VideoEntry, ClipEntry, LeftOut)
T = TypeVar("T")

CLIPS, FAILURES = "clips.parquet", "failures.parquet"
CLIP_COLUMNS = {
    "key": pa.string(),
    "video": pa.string(),
    "frames": pa.int64(),
    "queries": pa.int64(),
    "kept": pa.int64(),
    "mean_support": pa.float64(),
    "mean_trust": pa.float64(),
    "teachers": pa.string(),
    "verifier": pa.string(),
    "uri": pa.string(),
    "source_start": pa.int64(),
    "stride": pa.int64(),
    "unit": pa.int64(),
    "revision": pa.int64(),
    "tar": pa.string(),
    "decoder": pa.string(),
    "truncated": pa.bool_(),
    "height": pa.int64(),
    "width": pa.int64(),
    "offsets": pa.string(),
}
"""Of clips.parquet, the telling ones first; `Dataset.clips` leaves out the last."""
FAILURE_COLUMNS = {
    "unit": pa.int64(),
    "uri": pa.string(),
    "what": pa.string(),
    "status": pa.string(),
    "stage": pa.string(),
    "reason": pa.string(),
    "detail": pa.string(),
    "key": pa.string(),
    "attempts": pa.int64(),
}
MADE_OF = b"made of"
"""Metadata of clips.parquet and failures.parquet: the plans and records that each was made of. Of
two jobs that end together, one may write the first last and the other the second."""
PART = 256
"""How many records are turned into rows at a time."""


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """What went in, and what became of it; each video by its latest unit."""

    videos: int
    """Videos that were planned."""
    done: int
    videos_left_out: int
    videos_failed: int
    open: int
    """Videos in units without a record."""
    clips: int
    """Clips that were found."""
    labelled: int
    clips_left_out: int
    clips_failed: int
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(video, clip, or teacher; reason) -> count."""

    def __post_init__(self) -> None:
        become = {
            "videos": self.done + self.videos_left_out + self.videos_failed + self.open,
            "clips": self.labelled + self.clips_left_out + self.clips_failed,
        }
        for what, total in become.items():
            if getattr(self, what) != total:
                raise ShardError(
                    f"the {what} do not add up: {self}. A record is damaged; run `tapdistill "
                    "verify`."
                )


def accounts(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> Accounts:
    """The accounts of a data set; a ShardError if they do not add up."""
    _refuse_unplanned(plans, records)
    table = digests_of(without_superseded(plans, records))
    by, reasons = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    unwanted = sum(int(of["videos"][of["unit"] == NO_UNIT].sum()) for of in unit_tables(plans))
    if unwanted:
        by["video", "left out"] = reasons["video", "unwanted"] = unwanted
    for text, times in table["reasons"].value_counts().items():
        for what, reason, rows in json.loads(str(text)):
            by[what, "left out" if reason in LEFT_OUT else "failed"] += rows * int(times)
            reasons[what, reason] += rows * int(times)
    closed = np.array([NO_UNIT, *digests_of(records)["unit"]])
    planned = videos_that_count(plans)
    return Accounts(
        videos=sum(int(of["videos"].sum()) for of in planned),
        done=int(table["videos"].sum()),
        videos_left_out=by["video", "left out"],
        videos_failed=by["video", "failed"],
        open=sum(
            int(of["videos"][np.isin(of["unit"], closed, invert=True)].sum()) for of in planned
        ),
        clips=int(table["found"].sum()),
        labelled=int(table["clips"].sum()),
        clips_left_out=by["clip", "left out"],
        clips_failed=by["clip", "failed"],
        reasons=reasons,
    )


def _refuse_unplanned(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> None:
    """Raise a ShardError if a record mentions a source that is in no plan."""
    table = digests_of(records)
    planned: dict[int, str] = {}
    for of in unit_tables(plans):
        planned.update(zip(of["unit"].tolist(), of["uris"].tolist(), strict=True))
    hashes = zip(table["unit"].tolist(), table["uris"].tolist(), strict=True)
    odd = [i for i, (unit, said) in enumerate(hashes) if planned.get(unit) != said]
    if not odd:
        return
    known = {uri for plan in plans for uri in plan["uri"]}
    some = records.take(odd) if isinstance(records, Records) else [records[i] for i in odd]
    for record in some:
        for uri in sorted(record.uris() - known):
            raise ShardError(
                f"{uri} is in a commit record, but in no plan: a plan file was replaced or is "
                "missing."
            )


@dataclass(frozen=True)
class _Current:
    """Leaves out of a record the videos for which another unit counts."""

    counts: Mapping[str, int]
    """uri -> the unit that counts, for videos in plans after the first."""

    def __call__(self, record: Record) -> Record:
        if not self.counts:
            return record
        return replace(
            record,
            videos=self._part(record, record.videos),
            clips=self._part(record, record.clips),
            rows=self._part(record, record.rows),
        )

    def _part(self, record: Record, entries: list[One]) -> list[One]:
        return [one for one in entries if self.counts.get(one.uri, record.unit) == record.unit]


@overload
def without_superseded(plans: Sequence[pd.DataFrame], records: Records) -> Records: ...


@overload
def without_superseded(
    plans: Sequence[pd.DataFrame], records: Sequence[Record]
) -> Sequence[Record]: ...


def without_superseded(
    plans: Sequence[pd.DataFrame], records: Sequence[Record]
) -> Sequence[Record]:
    """The records without the videos that a later plan gave to another unit, in which they are done
    again."""
    counts = planned_again(plans)
    if not counts:
        return records

    current = _Current(counts)
    if not isinstance(records, Records):
        return [current(record) for record in records]
    units = {
        unit
        for plan in plans
        for unit in plan.loc[plan["uri"].isin(list(counts)), "unit"].unique().tolist()
    }
    return records.changed(units, current)


def uris_with_reason(plans: Sequence[pd.DataFrame], records: Records, reason: str) -> set[str]:
    """The videos that have a row with that reason in the unit that counts for them."""
    current = without_superseded(plans, records)
    have = current.table["reasons"].astype("object").str.contains(f'"{reason}"', regex=False)
    return {
        row.uri
        for record in current.take(np.flatnonzero(have.astype(bool)))
        for row in record.rows
        if row.reason == reason
    }


def clips_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per labelled clip, with the columns of `CLIP_COLUMNS`: `video` is the last part of
    `uri`, `verifier` a version, and `offsets` JSON: suffix -> (offset, size) in the tar."""
    return pd.DataFrame(
        [
            {
                **{name: getattr(entry, name) for name in ClipEntry.__dataclass_fields__},
                "video": entry.uri.rpartition("/")[2],
                "unit": record.unit,
                "revision": record.revision,
                "tar": record.tar,
                "teachers": ",".join(sorted(record.teachers)),
                "verifier": record.verifier,
                "offsets": to_json(entry.offsets),
            }
            for record in records
            for entry in record.clips
        ],
        columns=[*CLIP_COLUMNS],
    )


def failures_table(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> pd.DataFrame:
    """One row per video, clip, or teacher's part of a clip that did not become a label: unit, uri,
    what, status, stage, reason, detail.

    Videos that a filter leaves out come first; they are in no unit (-1).
    """
    return pd.DataFrame(
        [
            {
                **{name: getattr(row, name) for name in LeftOut.__dataclass_fields__},
                "status": row.status,
                "unit": unit,
            }
            for unit, rows in [
                (NO_UNIT, left_out_by_filters(plans)),
                *((record.unit, record.rows) for record in records),
            ]
            for row in rows
        ],
        columns=[*FAILURE_COLUMNS],
    )


def compact(storage: Storage, records: Sequence[Record]) -> None:
    """Write clips.parquet, failures.parquet, and records.parquet from the records, a few at a time;
    writes nothing if all three are up to date."""
    plans = read_plans(storage)
    made_of = ""
    if isinstance(records, Records):
        made_of = f"{len(plans)} plans, {len(records)} records, {records.fingerprint()}"
        if records.are_copied() and _are_of(storage, made_of):
            return
    current = _Current(planned_again(plans))
    first: Sequence[pd.DataFrame] = plans
    with (
        transient_errors(f"write the tables of {storage.url}"),
        scratch_folder() as folder,
    ):
        with (
            pq.ParquetWriter(folder / CLIPS, _schema(CLIP_COLUMNS, made_of)) as clips,
            pq.ParquetWriter(folder / FAILURES, _schema(FAILURE_COLUMNS, made_of)) as failures,
            CopiesWriter(folder / COPIES) as copies,
        ):
            for some in _parts(rows_to_copy(storage, records)):
                copies.write([row for _, row in some])
                now = [current(record) for record, _ in some]
                clips.write_table(_as_arrow(clips_table(now), clips.schema))
                failures.write_table(_as_arrow(failures_table(first, now), failures.schema))
                first = []
        for name in (CLIPS, COPIES, FAILURES):
            storage.publish(folder / name, name)
    if isinstance(records, Records):
        records.forget_copies()


def _parts(rows: Iterator[T]) -> Iterator[list[T]]:
    """The rows in parts; one empty part if there are none."""
    yield list(islice(rows, PART))
    while some := list(islice(rows, PART)):
        yield some


def _as_arrow(table: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pandas(table, schema, preserve_index=False).replace_schema_metadata(
        schema.metadata
    )


def _schema(columns: Mapping[str, pa.DataType], made_of: str) -> pa.Schema:
    return pa.schema(list(columns.items()), metadata={MADE_OF: made_of.encode()})


def _are_of(storage: Storage, made_of: str) -> bool:
    """Whether clips.parquet and failures.parquet exist, and were made of just that. One that does
    not say so was not: an earlier version may have left it without its last rows."""
    try:
        for name in (CLIPS, FAILURES):
            if storage.size(name) is None:
                return False
            with storage.open(name) as file:
                if (pq.read_schema(file).metadata or {}).get(MADE_OF) != made_of.encode():
                    return False
    except (pa.ArrowException, OSError, ShardError):
        return False
    return True


def open_units(
    plans: Sequence[pd.DataFrame], records: Sequence[Record], teachers: set[str]
) -> Units:
    """Units that have no record yet, or whose record lacks one of `teachers`."""
    table = digests_of(records)
    has_all = {text: teachers <= set(json.loads(text)) for text in table["teachers"].unique()}
    done = table["unit"][[has_all[text] for text in table["teachers"]]]
    return units(plans).without(done.to_numpy())
