"""Accounts: what goes in is what comes out plus the rows."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter

import pandas as pd
import pytest

from benchmarks.harness.records import clip_entry, record_of
from labeler.io.storage import Storage
from labeler.reasons import FAILED, LEFT_OUT, REASONS, LeftOut
from labeler.shards.plan import cut_into_units
from labeler.shards.record import ClipEntry, Record, VideoEntry
from labeler.shards.tables import accounts, clips_table, compact, failures_table, open_units
from labeler.sources.listing import Source
from teachers import ShardError


def plan(*names: str, first_unit: int = 0) -> pd.DataFrame:
    """One video in each unit."""
    return cut_into_units([Source(name, 1, "") for name in names], 1, first_unit=first_unit)


def clip(uri: str, number: int = 0) -> ClipEntry:
    return clip_entry(f"{uri}-{number}", uri, queries=4, kept=3, mean_support=0.5)


def record(
    unit: int,
    videos: dict[str, int],
    clips: list[ClipEntry],
    rows: list[LeftOut],
    teachers: str = "a b",
) -> Record:
    return record_of(
        unit,
        tar=None,
        size_bytes=0,
        sha256=None,
        teachers={name: {} for name in teachers.split()},
        videos=[VideoEntry(uri=uri, sha256="", clips=count) for uri, count in videos.items()],
        clips=clips,
        rows=rows,
        planned=1,
    )


def video_row(uri: str, reason: str) -> LeftOut:
    return LeftOut(uri=uri, what="video", stage="open", reason=reason)


def clip_row(uri: str, reason: str) -> LeftOut:
    return LeftOut(uri=uri, what="clip", stage="clip", reason=reason)


def test_every_reason_is_either_left_out_or_failed():
    assert not LEFT_OUT.keys() & FAILED.keys()
    assert {LeftOut(uri="", what="clip", stage="", reason=reason).status for reason in REASONS} == {
        "left out",
        "failed",
    }
    with pytest.raises(ValueError, match="'bored' is not one of the reasons"):
        LeftOut(uri="", what="clip", stage="", reason="bored")


def test_the_accounts_of_a_small_job_worked_by_hand():
    records = [
        record(0, {"a": 3}, [clip("a")], [clip_row("a", "static"), clip_row("a", "decode-error")]),
        record(1, {}, [], [video_row("b", "duplicate")]),
        record(2, {}, [], [video_row("c", "empty")]),
    ]
    found = accounts([plan("a", "b", "c", "d")], records)
    assert (found.videos, found.done, found.videos_left_out, found.videos_failed, found.open) == (
        4,
        1,
        1,
        1,
        1,
    )
    assert (found.clips, found.labelled, found.clips_left_out, found.clips_failed) == (3, 1, 1, 1)
    assert found.reasons == Counter(
        {
            ("clip", "static"): 1,
            ("clip", "decode-error"): 1,
            ("video", "duplicate"): 1,
            ("video", "empty"): 1,
        }
    )


def test_the_row_of_a_teacher_is_outside_the_sums():
    row = LeftOut(uri="a", what="teacher", stage="teacher:x", reason="teacher-error")
    found = accounts([plan("a")], [record(0, {"a": 1}, [clip("a")], [row])])
    assert (found.labelled, found.clips_failed) == (1, 0)


def test_a_video_planned_again_counts_once_by_its_latest_unit():
    plans = [plan("a", "b"), plan("b", first_unit=2)]
    first = [record(0, {"a": 1}, [clip("a")], []), record(1, {}, [], [video_row("b", "timeout")])]
    assert accounts(plans, first).open == 1
    again = accounts(plans, [*first, record(2, {"b": 1}, [clip("b")], [])])
    assert (again.videos, again.done, again.videos_failed, again.open) == (2, 2, 0, 0)


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (record(0, {}, [], []), "the videos do not add up"),
        (record(0, {"a": 2}, [clip("a")], []), "the clips do not add up"),
    ],
)
def test_a_record_that_loses_something_is_found(damaged, says):
    with pytest.raises(ShardError, match=says):
        accounts([plan("a")], [damaged])


def test_units_without_a_record_or_without_a_teacher_are_open():
    plans = [plan("a", "b", "c")]
    records = [record(0, {}, [], [], teachers="x y"), record(1, {}, [], [], teachers="x")]
    assert [unit.number for unit in open_units(plans, records, {"x"})] == [2]
    assert [unit.number for unit in open_units(plans, records, {"x", "y"})] == [1, 2]


def test_tables_without_rows_have_their_columns(tmp_path):
    storage = Storage(str(tmp_path))
    compact(storage, [])
    assert {"key", "unit", "tar", "uri", "teachers", "offsets"} <= set(
        pd.read_parquet(tmp_path / "clips.parquet").columns
    )
    assert {"uri", "what", "status", "reason"} <= set(
        pd.read_parquet(tmp_path / "failures.parquet").columns
    )


def test_the_tables_say_what_the_records_say():
    records = [record(3, {"a": 2}, [clip("a")], [clip_row("a", "dark")])]
    clips, failures = clips_table(records), failures_table([], records)
    assert clips[["key", "unit", "kept", "teachers"]].values.tolist() == [["a-0", 3, 3, "a,b"]]
    assert json.loads(clips["offsets"][0]) == {"mp4": [512, 400_000]}
    assert clips.columns[-1] == "offsets"
    assert failures[["unit", "uri", "what", "status", "reason"]].values.tolist() == [
        [3, "a", "clip", "left out", "dark"]
    ]


def test_byte_offsets_cut_a_member_out_of_its_tar(dataset):
    """With pandas and a byte range alone, as a reader on S3 does it."""
    table = pd.read_parquet(dataset.folder / "clips.parquet")
    assert len(table) > 0
    for row in table.itertuples():
        tar = dataset.folder / row.tar
        for suffix, (start, size) in json.loads(row.offsets).items():
            with tarfile.open(tar) as archive:
                member = archive.extractfile(f"{row.key}.{suffix}").read()
            assert Storage(str(dataset.folder)).read_range(row.tar, start, size) == member
        assert io.BytesIO(member).read(1)
