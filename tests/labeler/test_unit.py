"""A unit of work, step by step: killed at any write, overtaken by another writer, or with a decoder
that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, write_moving
from labeler.clips import QueryConfig
from labeler.clips.process import DecodingProcess
from labeler.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards.plan import Unit, read_plans, units
from labeler.shards.record import record_name
from labeler.shards.records import latest_records
from labeler.unit import (
    ClipDone,
    ClipStarted,
    Job,
    UnitDone,
    VideoDone,
    _add_teachers,
    _label,
    do_unit,
)
from pipelines.engines.common import TeacherSpec
from pipelines.engines.local import LocalTrackers
from teachers import InstallationError, ShardError
from tests.support.jobs import FAR, differences, findings

FEW = "tests.support.stub_teachers:NeedsLongClips"


@pytest.fixture(scope="module")
def decoding(videos) -> Iterator[DecodingProcess]:
    with DecodingProcess(config(videos, "unused").frozen(), deadline_s=60, memory_gib=8) as process:
        yield process


class Killed(BaseException):
    """Stands for a kill -9: nobody may catch it."""


class DyingStorage(Storage):
    """Dies at the n-th write: before it, or once it is done."""

    writes_left, after = 0, False

    def _write(self, write, *args):
        if DyingStorage.writes_left == 0 and not DyingStorage.after:
            raise Killed
        result = write(*args)
        if DyingStorage.writes_left == 0:
            raise Killed
        DyingStorage.writes_left -= 1
        return result

    def create(self, *args):
        return self._write(super().create, *args)

    def publish(self, *args):
        return self._write(super().publish, *args)


def only_unit(videos: Path, out: Path) -> tuple[Job, list]:
    """A planned but untouched job of one unit with all videos."""
    from labeler.shards.manifest import freeze
    from labeler.shards.plan import create_plan, cut_into_units
    from labeler.sources.listing import list_sources

    settings = config(videos, out)
    storage = Storage(str(out))
    freeze(storage, settings.frozen(), "test")
    create_plan(storage, 0, cut_into_units(list_sources([str(videos)]), 99))
    return Job(url=str(out), frozen=settings.frozen(), agreement=settings.agreement), units(
        read_plans(storage)
    )


def trackers(*names: str) -> LocalTrackers:
    return LocalTrackers([TeacherSpec(name=name) for name in names])


def label_twice(job: Job, unit: Unit, decoding: DecodingProcess) -> None:
    """By two teachers, then by a third."""
    for names in ((STILL, NEAR), (STILL, NEAR, FAR)):
        list(do_unit(job, unit, decoding, trackers(*names)))


@pytest.mark.parametrize(
    ("writes", "after"),
    [
        pytest.param(
            writes,
            after,
            id=f"{writes}-{'after' if after else 'before'}",
            marks=() if (writes, after) == (3, False) else pytest.mark.slow,
        )
        for writes in range(4)
        for after in (False, True)
    ],
)
def test_a_unit_killed_at_any_write_ends_with_the_same_bytes(
    videos, tmp_path, decoding, monkeypatch, writes, after
):
    """Two teachers, then a third: tar, record, tar, record are its four writes."""
    job, (unit,) = only_unit(videos, tmp_path / "killed")
    calm, (same,) = only_unit(videos, tmp_path / "calm")
    label_twice(calm, same, decoding)
    DyingStorage.writes_left, DyingStorage.after = writes, after
    with monkeypatch.context() as patch:
        patch.setattr("labeler.unit.Storage", DyingStorage)
        with pytest.raises(Killed):
            label_twice(job, unit, decoding)
    label_twice(job, unit, decoding)
    assert differences(tmp_path / "calm", tmp_path / "killed") == []
    assert findings(tmp_path / "killed") == []


def test_the_events_of_a_unit_tell_every_clip_and_video(videos, tmp_path, decoding):
    job, (unit,) = only_unit(videos, tmp_path)
    events = list(do_unit(job, unit, decoding, trackers(STILL, NEAR)))
    assert sum(isinstance(event, ClipDone) for event in events) == 7
    assert events[-1] == UnitDone(0, 0)
    assert sum(event.tracks for event in events if isinstance(event, ClipDone)) == 7 * 24 * 2
    assert list(do_unit(job, unit, decoding, trackers(NEAR))) == [UnitDone(0, 0)]


def test_the_events_of_a_teacher_that_is_added_tell_what_it_works_on(videos, tmp_path, decoding):
    job, (unit,) = only_unit(videos, tmp_path)
    events = [list(do_unit(job, unit, decoding, trackers(*names))) for names in ((STILL,), (FAR,))]
    began, again = ([each for each in one if isinstance(each, ClipStarted)] for one in events)
    assert again == began
    kinds = [type(event) for event in events[1]]
    assert kinds == [ClipStarted, ClipDone] * 7 + [VideoDone] * 5 + [UnitDone]
    first, added = (next(e for e in reversed(one) if isinstance(e, VideoDone)) for one in events)
    assert added.seconds.keys() == first.seconds.keys()
    assert added.seconds["waiting for frames"] > 0


class Overtaken(Storage):
    """Just before the first record is created, another job commits the unit with a teacher of its
    own."""

    rival = None

    def create(self, name, data):
        if name.startswith("shards/") and Overtaken.rival:
            rival, Overtaken.rival = Overtaken.rival, None
            rival()
        return super().create(name, data)


def test_who_loses_the_race_adds_its_teachers_without_running_them_again_and_keeps_its_rows(
    tmp_path, decoding, monkeypatch
):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    job = replace(job, frozen=config(tmp_path, "unused").frozen())
    ours, runs = trackers(STILL, NEAR, FEW), []
    track = ours.track
    monkeypatch.setattr(
        ours, "track", lambda names, *rest: runs.append(names) or track(names, *rest)
    )
    Overtaken.rival = lambda: list(do_unit(job, unit, second, trackers(FAR)))
    with (
        DecodingProcess(job.frozen, deadline_s=60, memory_gib=8) as second,
        monkeypatch.context() as patch,
    ):
        patch.setattr("labeler.unit.Storage", Overtaken)
        list(do_unit(job, unit, decoding, ours))
    record = latest_records(Storage(str(tmp_path / "out")))[0]
    assert (record.revision, sorted(record.teachers)) == (
        1,
        ["far", "near", "needslongclips", "still"],
    )
    assert [row.stage for row in record.rows] == ["teacher:needslongclips"]
    assert runs == [["near", "needslongclips", "still"]]
    assert findings(tmp_path / "out") == []


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param(QueryConfig(count=24, sift=0.0, motion=0.0), id="other points"),
        pytest.param(QueryConfig(count=12), id="fewer points"),
    ],
)
def test_tracks_of_other_queries_than_the_winner_stored_are_not_put_into_its_clips(
    tmp_path, decoding, monkeypatch, theirs
):
    """The winner's machine may draw other points in the same clip, or have pruned it."""
    write_moving(tmp_path / "v.mp4", seed=1)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    recipe = config(tmp_path, "unused", queries=theirs).frozen()
    Overtaken.rival = lambda: list(do_unit(job, unit, other, trackers(FAR)))
    with (
        DecodingProcess(recipe, deadline_s=60, memory_gib=8) as other,
        monkeypatch.context() as patch,
    ):
        patch.setattr("labeler.unit.Storage", Overtaken)
        list(do_unit(job, unit, decoding, trackers(STILL, NEAR)))
    clip = open_dataset(str(tmp_path / "out"))[0]
    assert len(clip.queries) == theirs.count
    still = clip.tracks["still"].xy
    np.testing.assert_allclose(still[:, 0], clip.queries[:, 1:], atol=1 / 64)


def test_who_loses_the_race_to_add_a_teacher_does_not_run_it_again(tmp_path, decoding, monkeypatch):
    write_moving(tmp_path / "v.mp4", seed=1, frames=34)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    list(do_unit(job, unit, decoding, trackers(STILL)))
    ours, runs = trackers(STILL, NEAR), []
    track = ours.track
    monkeypatch.setattr(
        ours, "track", lambda names, *rest: runs.append(names) or track(names, *rest)
    )
    Overtaken.rival = lambda: list(do_unit(job, unit, decoding, trackers(STILL, FAR)))
    monkeypatch.setattr("labeler.unit.Storage", Overtaken)
    list(do_unit(job, unit, decoding, ours))
    (record,) = latest_records(Storage(str(tmp_path / "out")))
    assert (record.revision, sorted(record.teachers)) == (2, ["far", "near", "still"])
    assert runs == [["near"], ["near"]]  # one of each clip
    calm, (same,) = only_unit(tmp_path / "v.mp4", tmp_path / "calm")
    list(do_unit(calm, same, decoding, trackers(STILL, NEAR, FAR)))
    assert differences(tmp_path / "calm", tmp_path / "out") == []


def test_the_tracks_of_a_unit_are_not_held_in_memory(tmp_path, decoding):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    storage, tracked = Storage(job.url), {}
    ours = trackers(STILL, NEAR, FEW)
    list(_label(storage, job, unit, decoding.clips(unit.videos), ours, tracked))
    (known,) = tracked.values()
    assert list(known) == ["needslongclips"]  # why it failed
    record = latest_records(storage)[0]
    list(_add_teachers(storage, True, record, unit, trackers(STILL, NEAR, FEW, FAR), tracked))
    assert list(known) == ["needslongclips"]


class Collected(Storage):
    """Once the first tar is opened, another job commits the next revision, and `gc` removes what it
    replaces: S3 tells that at the next block."""

    rival = None

    def open(self, name):
        opened = super().open(name)
        if name.endswith(".tar") and Collected.rival:
            rival, Collected.rival = Collected.rival, None
            rival()

            def gone(*_):
                raise FileNotFoundError(name)

            return closing(SimpleNamespace(read=gone, tell=lambda: 0, close=opened.close))
        return opened


@pytest.mark.parametrize("replaced", [True, False])
def test_a_shard_that_is_removed_while_a_teacher_is_added_stops_no_job(
    tmp_path, decoding, monkeypatch, replaced
):
    write_moving(tmp_path / "v.mp4", seed=1)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    list(do_unit(job, unit, decoding, trackers(STILL)))
    Collected.rival = lambda: replaced and list(do_unit(job, unit, decoding, trackers(STILL, FAR)))
    monkeypatch.setattr("labeler.unit.Storage", Collected)
    adding = do_unit(job, unit, decoding, trackers(STILL, NEAR))
    if not replaced:
        with pytest.raises(ShardError, match=r"\.tar was removed while it was read"):
            list(adding)
        return
    list(adding)
    (record,) = latest_records(Storage(str(tmp_path / "out")))
    assert (record.revision, sorted(record.teachers)) == (2, ["far", "near", "still"])


def test_settings_that_json_changes_are_the_same_settings(videos, tmp_path, decoding):
    """The stub has a tuple in its settings, which comes back from a record as a list."""
    job, (unit,) = only_unit(videos, tmp_path)
    list(do_unit(job, unit, decoding, trackers(STILL)))
    assert list(do_unit(job, unit, decoding, trackers(STILL))) == [UnitDone(0, 0)]


def test_a_damaged_record_stops_the_unit_with_its_name(videos, tmp_path, decoding):
    job, (unit,) = only_unit(videos, tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / record_name(0, 0)).write_bytes(b'{"schema":1,')
    with pytest.raises(Exception, match=r"000000\.r0\.json is not a commit record"):
        list(do_unit(job, unit, decoding, trackers(STILL)))


def test_a_fault_of_our_own_in_the_decoder_is_no_row_and_leaves_the_unit_open(
    videos, tmp_path, decoding, monkeypatch
):
    call = decoding._process.call
    monkeypatch.setattr(
        decoding._process,
        "call",
        lambda method, video, *rest, **more: call(
            "no_such_method" if video.uri.endswith("1.mp4") else method, video, *rest, **more
        ),
    )
    job, (unit,) = only_unit(videos, tmp_path)
    with pytest.raises(InstallationError, match=r"1\.mp4: AttributeError: .*no_such_method"):
        list(do_unit(job, unit, decoding, trackers(STILL, NEAR)))
    assert latest_records(Storage(str(tmp_path))) == []
