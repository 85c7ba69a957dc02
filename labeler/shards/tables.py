"""Tables of a whole data set, from its commit records: clips.parquet, failures.parquet, and the
accounts.

Records are the truth; the parquet files are copies for pandas and DuckDB (and records.parquet for
ourselves), written again at the end of each job.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pandas as pd

from labeler.io import Storage
from labeler.reasons import LeftOut
from labeler.shards.members import to_json
from labeler.shards.plan import (
    NO_UNIT,
    Unit,
    left_out_by_filters,
    read_plans,
    unit_that_counts,
    units,
)
from labeler.shards.records import ClipEntry, Record, VideoEntry, copy_records
from teachers import ShardError

T = TypeVar("T", VideoEntry, ClipEntry, LeftOut)

CLIPS, FAILURES = "clips.parquet", "failures.parquet"


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """What went in, and what became of it; each video by its latest unit."""

    videos: int
    """Planned."""
    done: int
    videos_left_out: int
    videos_failed: int
    open: int
    """Videos of units without a record."""
    clips: int
    """Found."""
    labelled: int
    clips_left_out: int
    clips_failed: int
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(video, clip, or teacher; reason) -> count."""

    def __post_init__(self) -> None:
        if self.videos != self.done + self.videos_left_out + self.videos_failed + self.open:
            raise ShardError(
                f"the accounts of the videos do not close: {self}. A record is damaged; run "
                "`tapdistill verify`."
            )
        if self.clips != self.labelled + self.clips_left_out + self.clips_failed:
            raise ShardError(
                f"the accounts of the clips do not close: {self}. A record is damaged; run "
                "`tapdistill verify`."
            )


def accounts(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> Accounts:
    """The accounts of a data set; ShardError if they do not close."""
    counts = unit_that_counts(plans)
    unplanned = next(
        (uri for record in records for uri in record.uris() if uri not in counts), None
    )
    if unplanned is not None:
        raise ShardError(
            f"{unplanned} is in a commit record, but in no plan: a plan file was replaced or is "
            "missing."
        )
    current = without_superseded(plans, records)
    rows = [*left_out_by_filters(plans), *(row for record in current for row in record.rows)]
    videos = [video for record in current for video in record.videos]
    entries = [entry for record in current for entry in record.clips]
    closed = {NO_UNIT, *(record.unit for record in records)}
    by = Counter((row.what, row.status) for row in rows)
    return Accounts(
        videos=len(counts),
        done=len(videos),
        videos_left_out=by["video", "left out"],
        videos_failed=by["video", "failed"],
        open=sum(unit not in closed for unit in counts.values()),
        clips=sum(video.clips for video in videos),
        labelled=len(entries),
        clips_left_out=by["clip", "left out"],
        clips_failed=by["clip", "failed"],
        reasons=Counter((row.what, row.reason) for row in rows),
    )


def without_superseded(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> list[Record]:
    """The records without what they say of videos that a later plan gave to another unit: there
    they are done again."""
    if len(plans) < 2:
        return list(records)
    counts = unit_that_counts(plans)

    def current(record: Record, part: list[T]) -> list[T]:
        return [one for one in part if counts.get(one.uri) == record.unit]

    return [
        replace(
            record,
            videos=current(record, record.videos),
            clips=current(record, record.clips),
            rows=current(record, record.rows),
        )
        for record in records
    ]


def clips_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per labelled clip: key, unit, revision, tar, uri, place and size, queries, kept, mean
    support, mean trust, teachers, verifier (its version), offsets (JSON)."""
    columns = [
        "key",
        "unit",
        "revision",
        "tar",
        *(name for name in ClipEntry.__dataclass_fields__ if name not in ("key", "offsets")),
    ]
    return pd.DataFrame(
        [
            {
                **{name: getattr(entry, name) for name in ClipEntry.__dataclass_fields__},
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
        columns=[*columns, "teachers", "verifier", "offsets"],
    )


def failures_table(plans: Sequence[pd.DataFrame], records: Sequence[Record]) -> pd.DataFrame:
    """One row per video, clip, or teacher's part of a clip that did not become a label: unit, uri,
    what, status, stage, reason, detail.

    Videos that a filter leaves out come first; they are in no unit (-1).
    """
    columns = ["unit", "uri", "what", "status", "stage", "reason", "detail", "key", "attempts"]
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
        columns=columns,
    )


def compact(storage: Storage, records: Sequence[Record]) -> None:
    """Write clips.parquet, failures.parquet, and records.parquet from the records."""
    plans = read_plans(storage)
    current = without_superseded(plans, records)
    for name, table in ((CLIPS, clips_table(current)), (FAILURES, failures_table(plans, current))):
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        storage.replace(name, buffer.getvalue())
    copy_records(storage, records)


def open_units(
    plans: Sequence[pd.DataFrame], records: Sequence[Record], teachers: set[str]
) -> list[Unit]:
    """Units that have no record yet, or not every one of `teachers` in it."""
    have = {record.unit: set(record.teachers) for record in records}
    return [
        unit
        for unit in units(plans)
        if unit.number not in have or not teachers <= have[unit.number]
    ]
