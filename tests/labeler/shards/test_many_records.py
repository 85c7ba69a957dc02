"""What a data set of any size costs: few records in memory, few requests, and copies as a job
goes."""

from __future__ import annotations

import dataclasses
import errno
import gc
import io
import itertools
import pickle
from dataclasses import asdict

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.records import clip_entry, record_of
from labeler.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.labels import AgreementConfig
from labeler.reasons import LeftOut
from labeler.shards import copies as copies_module
from labeler.shards import plan as plan_module
from labeler.shards import records as module
from labeler.shards import tables
from labeler.shards.manifest import Frozen, freeze
from labeler.shards.plan import create_plan, cut_into_units, unit_that_counts, units
from labeler.shards.record import Record, VideoEntry, record_name
from labeler.shards.records import COPIES, Copying, copy_records, latest_records
from labeler.shards.verify import verify
from labeler.sources import Source
from labeler.sources.table import Sources
from teachers import ShardError

UNITS = 40


def record(unit: int) -> Record:
    """A unit of one video with two clips, or of one that could not be opened."""
    uri = f"/v/{unit:03d}.mp4"
    if unit % 7 == 3:
        row = LeftOut(uri=uri, what="video", stage="open", reason="timeout")
        return record_of(unit, teachers={"x": {}}, videos=[], clips=[], rows=[row], planned=1)
    entries = [clip_entry(f"{unit:03d}{i}", uri, queries=4, kept=unit % 5) for i in range(2)]
    video = VideoEntry(uri=uri, sha256="0" * 64, clips=2)
    return record_of(unit, teachers={"x": {}}, videos=[video], clips=entries, planned=1)


@pytest.fixture
def storage(tmp_path) -> Storage:
    storage = Storage(str(tmp_path))
    sources = [Source(f"/v/{unit:03d}.mp4", 1, "") for unit in range(UNITS)]
    assert create_plan(storage, 0, cut_into_units(sources, 1))
    for unit in range(UNITS):
        assert storage.create(record_name(unit, 0), record(unit).to_bytes())
    return storage


def logged(storage: Storage) -> list[str]:
    """Names that are read from now on."""
    read: list[str] = []
    storage.read = lambda name, original=storage.read: read.append(name) or original(name)
    return read


def alive() -> int:
    return sum(type(one) is Record for one in gc.get_objects())


@pytest.fixture
def most_alive(monkeypatch) -> list[int]:
    """How many records were in memory, whenever one was looked at."""
    counts = [0]
    original = module.digest_of

    def digest_of(one: Record) -> dict:
        counts.append(alive())
        return original(one)

    monkeypatch.setattr(module, "digest_of", digest_of)
    monkeypatch.setattr(module, "HELD", 4)
    monkeypatch.setattr(tables, "PART", 4)
    return counts


@pytest.mark.slow
def test_few_records_are_in_memory_however_many_there_are(storage, most_alive):
    before = alive()
    for _ in range(2):  # from their own files, then from the copies
        found = latest_records(storage)
        tables.compact(storage, found)
        assert sum(1 for _ in found) == UNITS
        most_alive.append(alive())
        del found
    assert max(most_alive) - before <= 4 * 4 < UNITS
    assert len(pd.read_parquet(storage.path("clips.parquet"))) == 2 * (UNITS - 6)


def test_verify_holds_one_record_at_a_time(storage):
    freeze(storage, Frozen(sources=("/v",)), "0")
    for unit in range(UNITS):
        with open(storage.path(record(unit).tar_name), "wb") as file:
            file.truncate(record(unit).size_bytes)
    before, most, seen = alive(), [0], list[int]()

    def look(one: Record) -> None:
        seen.append(one.unit)
        if one.unit % 10 == 9:  # it looks through all objects
            most.append(alive())

    found = list(verify(storage, quick=True, seen=look))
    assert [finding for finding in found if not finding.harmless] == []
    assert seen == list(range(UNITS))
    assert max(most) - before <= 2
    for name in storage.names():
        if name.startswith("plan."):
            storage.remove(name)
    (lost,) = verify(storage, quick=True)
    assert "the accounts are wrong" in lost.problem


def test_a_killed_job_leaves_copies_and_the_next_one_reads_only_the_rest(storage, monkeypatch):
    monkeypatch.setattr(module, "COPIED_AT_ONCE", 16)
    copying = Copying(storage)
    for unit in range(UNITS):
        copying.committed(unit, 0)
    read = logged(storage)
    found = latest_records(storage)
    assert len([name for name in read if name.startswith("copies/")]) == 2
    assert sorted(name for name in read if name.startswith("shards/")) == [
        record_name(unit, 0) for unit in range(32, UNITS)
    ]
    assert list(found) == [record(unit) for unit in range(UNITS)]
    tables.compact(storage, found)  # the end of a job
    assert storage.names("copies") == []
    read.clear()
    assert list(latest_records(storage)) == list(found)
    assert read[0] == COPIES


def test_a_job_that_fails_copies_what_it_did(storage):
    copying = Copying(storage)
    copying.committed(3, 0)
    copying.__exit__(RuntimeError)
    read = logged(storage)
    assert len(latest_records(storage)) == UNITS
    assert record_name(3, 0) not in read


def test_tables_that_are_written_already_are_not_written_again(storage):
    tables.compact(storage, latest_records(storage))
    before = storage.tags()
    tables.compact(storage, latest_records(storage))
    assert storage.tags() == before
    other = dataclasses.replace(record(0), planned=7)
    storage.replace(record_name(0, 0), other.to_bytes())
    tables.compact(storage, latest_records(storage))
    assert storage.tags()["clips.parquet"] != before["clips.parquet"]


@pytest.mark.parametrize("name", ["clips.parquet", "failures.parquet"])
def test_a_table_that_an_earlier_job_wrote_last_is_written_again(storage, name):
    """Of two jobs that end together, the one that knew fewer records may write a table last."""
    last = record(UNITS - 1)
    storage.remove(last.name)
    tables.compact(storage, latest_records(storage))
    earlier = storage.read(name)
    storage.create(last.name, last.to_bytes())
    tables.compact(storage, latest_records(storage))
    whole = storage.read(name)
    unmarked = pq.read_table(storage.path(name)).replace_schema_metadata()
    storage.replace(name, earlier)
    tables.compact(storage, latest_records(storage))
    assert storage.read(name) == whole
    pq.write_table(unmarked, storage.path(name))  # as clips.parquet was, whoever wrote it
    tables.compact(storage, latest_records(storage))
    assert storage.read(name) == whole


@pytest.mark.parametrize("digests", [True, False])
def test_a_copy_that_is_no_record_gives_way_to_the_record_itself(storage, digests):
    copy_records(storage, latest_records(storage))
    table = pq.read_table(storage.path(COPIES))
    spoilt = [b"{" if i == 7 else one for i, one in enumerate(table["record"].to_pylist())]
    table = table.set_column(table.schema.get_field_index("record"), "record", [spoilt])
    pq.write_table(
        table if digests else table.select(["name", "tag", "record"]), storage.path(COPIES)
    )
    assert list(latest_records(storage)) == [record(unit) for unit in range(UNITS)]


class Opened(io.BytesIO):
    """A file that cannot be read any more once `replaced` is set, as on S3."""

    replaced = False

    def read(self, size: int | None = -1) -> bytes:
        if Opened.replaced:
            raise OSError(errno.EBUSY, "the remote file no longer exists")
        return super().read(size)


@pytest.mark.parametrize("digests", [True, False])
def test_records_are_read_from_their_own_files_once_their_copies_are_replaced(
    storage, monkeypatch, digests
):
    copy_records(storage, latest_records(storage))
    if not digests:
        table = pq.read_table(storage.path(COPIES))
        pq.write_table(table.select(["name", "tag", "record"]), storage.path(COPIES))
    monkeypatch.setattr(copies_module, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(module, "HELD", 4)
    storage.open = lambda name: Opened(storage.read(name))
    expected = [record(unit) for unit in range(UNITS)]
    if digests:
        found = latest_records(storage)
        monkeypatch.setattr(Opened, "replaced", True)
    else:  # replaced between the index and the records
        index_of = copies_module._index_of

        def then_replaced(file):
            try:
                return index_of(file)
            finally:
                monkeypatch.setattr(Opened, "replaced", True)

        monkeypatch.setattr(copies_module, "_index_of", then_replaced)
        found = latest_records(storage)
    assert list(found) == expected
    assert found[7] == expected[7]


def test_what_is_said_of_copies_is_what_is_said_of_the_records(storage):
    plans = [cut_into_units([Source(f"/v/{unit:03d}.mp4", 1, "") for unit in range(UNITS)], 1)]
    again = cut_into_units(
        [Source("/v/003.mp4", 1, ""), Source("/v/004.mp4", 1, "")], 1, first_unit=UNITS
    )
    for some in (plans, [*plans, again]):
        whole = tables.accounts(some, [record(unit) for unit in range(UNITS)])
        assert tables.accounts(some, latest_records(storage)) == whole
    copy_records(storage, latest_records(storage))
    copied = latest_records(storage)
    assert list(pickle.loads(pickle.dumps(copied))) == list(copied)
    assert tables.accounts([*plans, again], copied) == whole
    current = pickle.loads(pickle.dumps(tables.without_superseded([*plans, again], copied)))
    assert current[4].clips == current[3].rows == []
    assert current[5] == record(5)
    assert current.table["clips"].tolist() == [len(one.clips) for one in current]


def test_copies_of_before_which_hold_the_records_alone_are_read(storage):
    tags = storage.tags("shards")
    rows = [
        (one.name, tags[one.name.removeprefix("shards/")], one.to_bytes())
        for one in map(record, range(UNITS))
    ]
    table = pd.DataFrame(rows, columns=["name", "tag", "record"])
    table.to_parquet(storage.path(COPIES), index=False)
    read = logged(storage)
    assert list(latest_records(storage)) == [record(unit) for unit in range(UNITS)]
    assert read == [COPIES]


def as_before(storage: Storage) -> None:
    """Write the plan and records.parquet again as they were until there were sealed plans."""
    names = ("plan.0000.parquet", COPIES)
    for name, groups in zip(names, (None, 64), strict=True):
        table = pq.read_table(storage.path(name)).replace_schema_metadata()
        pq.write_table(table, storage.path(name), compression="zstd", row_group_size=groups)


def test_a_data_set_of_before_says_the_same_and_one_of_now_reads_no_row_of_its_plan(
    storage, monkeypatch
):
    """And where another plan stands in its place, either says so."""
    freeze(storage, Frozen(sources=("/v",)), "0")
    for unit in range(UNITS):
        one = dataclasses.replace(record(unit), agreement=asdict(AgreementConfig()))
        storage.replace(record_name(unit, 0), one.to_bytes())
    tables.compact(storage, latest_records(storage))
    monkeypatch.setattr(plan_module, "_parsed", None)  # whoever calls it gets a TypeError
    now = open_dataset(storage.url)
    said = now.summary
    assert said["videos"] == "40 planned: 34 done, 0 left out, 6 failed, 0 open"
    monkeypatch.undo()
    failures = now.failures
    assert failures["reason"].tolist() == ["timeout"] * 6
    as_before(storage)
    before = open_dataset(storage.url)
    assert before.summary == said
    assert list(before.records) == list(now.records)
    pd.testing.assert_frame_equal(before.failures, failures)
    pd.testing.assert_frame_equal(before.records.table, now.records.table)
    other = cut_into_units([Source(f"/w/{unit:03d}.mp4", 1, "") for unit in range(UNITS)], 1)
    for write in (
        lambda: other.to_parquet(storage.path("plan.0000.parquet"), index=False),
        lambda: storage.remove("plan.0000.parquet") or create_plan(storage, 0, other),
    ):
        write()
        with pytest.raises(ShardError, match=r"000\.mp4 is in a commit record, but in no plan"):
            _ = open_dataset(storage.url).summary


def test_of_units_with_several_revisions_the_highest_counts_with_and_without_copies(storage):
    for unit, revision in ((3, 1), (3, 2), (17, 1), (5, 1)):
        tar = record(unit).tar
        later = dataclasses.replace(
            record(unit), revision=revision, tar=tar.replace(".r0.", f".r{revision}.")
        )
        assert storage.create(record_name(unit, revision), later.to_bytes())
    expected = [{3: 2, 17: 1, 5: 1}.get(unit, 0) for unit in range(UNITS)]
    for _ in range(2):  # from their own files, then from the copies
        found = latest_records(storage)
        assert found.table["revision"].tolist() == expected
        assert found.table["unit"].tolist() == list(range(UNITS))
        copy_records(storage, found)


def test_units_are_made_when_asked_for_and_are_those_of_the_plan():
    """Beside the plain way: a unit at a time by its number."""
    names = [f"/v/{i:03d}.mp4" for i in range(23)]
    plan = cut_into_units(
        [Source(name, i, "") for i, name in enumerate(names)],
        4,
        why_not=lambda source: "no" if source.size % 5 == 2 else "",
    )
    found = units([plan])
    for unit in found:
        rows = plan[plan["unit"] == unit.number]
        assert [video.uri for video in unit.videos] == rows["uri"].tolist()
    assert found.videos == sum(len(unit.videos) for unit in found) == (plan["unit"] >= 0).sum()
    assert [unit.number for unit in found.share(1, 3)] == [1, 4]
    assert [unit.number for unit in found.without(np.array([0, 2]))] == [1, 3, 4]
    assert found[1:3] == [found[1], found[2]]
    assert unit_that_counts([plan])[names[2]] == -1


def test_sources_come_sorted_with_the_first_of_each_and_all_of_those_that_came_twice():
    rng = np.random.default_rng(0)
    named = [
        Source(f"/v/{n}.mp4", i, "", None if i % 2 else i, "")
        for i, n in enumerate(rng.integers(0, 300, 400).tolist())
    ]
    plain: dict[str, list[tuple[int, Source]]] = {}
    for place, source in enumerate(named):
        plain.setdefault(source.uri, []).append((place, source))
    found, several = Sources.of(iter(named)).in_order()
    assert found == [plain[uri][0][1] for uri in sorted(plain)]
    assert several == {uri: all_of for uri, all_of in plain.items() if len(all_of) > 1}
    assert found[7] == next(itertools.islice(found, 7, None)) == found[7:9][0]


def test_records_are_taken_in_any_order_and_as_often_as_asked(storage):
    found = latest_records(storage)
    assert [one.unit for one in found.take([3, 0, 3])] == [3, 0, 3]
