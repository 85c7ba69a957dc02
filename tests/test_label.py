"""Whole jobs on the local engine: what goes in comes out, whatever is killed on the way, and never other bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labeler import tables
from labeler.agreement import AgreementConfig
from labeler.clips import ClipConfig
from labeler.dataset import open_dataset
from labeler.decoding_process import DecodingProcess
from labeler.encode import decode_clip
from labeler.plan import Unit, read_plans, units
from labeler.records import latest_records, read_record, record_name
from labeler.shards import read_samples
from labeler.storage import Storage
from labeler.unit import ClipDone, Job, UnitDone, do_unit
from labeler.verify import verify
from pipelines.engine_local import DecodeLimits, LocalTrackers, TeacherSpec, UnitOpen
from pipelines.label import label
from teachers import ConfigError, SurroundingsError
from tests.jobs import (
    FAR,
    NEAR,
    SLOW,
    STILL,
    children_of,
    config,
    differences,
    start_driver,
    still_running,
    tars,
    wait_for,
    write_moving,
)
from tests.video_files import cut, write_audio, write_video

FEW = "tests.stub_teachers:NeedsLongClips"


def findings(out: Path) -> list[str]:
    return [f"{finding.file}: {finding.problem}" for finding in verify(Storage(str(out)))]


# --- what comes out


def test_every_clip_is_labelled_by_every_teacher(dataset):
    accounts = dataset.result.accounts
    assert (accounts.videos, accounts.done, accounts.open) == (5, 5, 0)
    assert (accounts.clips, accounts.labelled) == (7, 7)
    assert findings(dataset.folder) == []
    for sample in open_dataset(str(dataset.folder)):
        assert list(sample.tracks) == ["near", "still"]
        assert sample.queries.shape == (24, 3)
        assert decode_clip(sample.mp4).shape == (16, 48, 64, 3)
        np.testing.assert_array_equal(sample.tracks["still"].xy[:, 0], sample.queries[:, 1:])
        assert sample.labels.keep.all()  # the two never part by more than a quarter of a pixel, one of the 256 raster
        assert sample.labels.settings["teachers"] == {"near": "v > 0.5", "still": "v > 0.5"}


def test_a_finished_job_run_again_does_nothing(dataset):
    before = {file: file.stat().st_mtime_ns for file in (dataset.folder / "shards").iterdir()}
    result = label(config(Path(dataset.result.records[0].videos[0].uri).parent, dataset.folder))
    assert result.accounts == dataset.result.accounts
    assert {file: file.stat().st_mtime_ns for file in (dataset.folder / "shards").iterdir()} == before


def test_another_run_gives_the_same_bytes(dataset, videos, tmp_path):
    label(config(videos, tmp_path))
    assert tars(tmp_path) == tars(dataset.folder)


def test_a_job_on_another_file_system_gives_the_same_bytes(dataset, videos):
    url = f"memory://labels-{os.getpid()}"
    label(config(videos, url))
    assert tars(url) == tars(dataset.folder)
    assert len(open_dataset(url).clips) == 7


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder of good, odd, and bad files, labelled."""
    folder, out = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("mixed-labels")
    good = write_moving(folder / "a-good.mp4", seed=7, frames=20)
    shutil.copy(good, folder / "b-copy.mp4")
    (folder / "c-empty.mp4").write_bytes(b"")
    (folder / "d-text.mp4").write_text("no video at all\n" * 99)
    write_audio(folder / "e-sound.mp4")
    write_moving(folder / "f-short.mp4", seed=8, frames=3)
    write_video(folder / "g-tiny.mp4", size=(8, 16), frames=20)
    cut(good, folder / "h-cut.mp4", 0.3)
    write_video(folder / "i-odd.mkv", codec="libvpx-vp9", size=(46, 62), frames=20, rotation=90)
    return folder, out, label(config(folder, out, videos_per_unit=4))


def test_every_planned_file_is_labelled_or_a_row(mixed):
    folder, out, result = mixed
    done = {video.uri for record in result.records for video in record.videos}
    rows = {row.uri: row.reason for record in result.records for row in record.rows if row.what == "video"}
    assert done | rows.keys() == {str(file) for file in folder.iterdir()}
    assert not done & rows.keys()
    assert {Path(uri).name: reason for uri, reason in rows.items()}.items() >= {
        "b-copy.mp4": "duplicate", "c-empty.mp4": "empty", "d-text.mp4": "not-a-video", "e-sound.mp4": "no-video-stream",
        "f-short.mp4": "too-short", "g-tiny.mp4": "too-small",
    }.items()  # fmt: skip
    assert result.accounts.open == 0
    assert result.accounts.videos == 9
    assert findings(out) == []


def test_the_row_of_a_duplicate_names_the_first_copy(mixed):
    folder, out, _ = mixed
    table = pd.read_parquet(out / "failures.parquet").set_index("reason")
    assert table.loc["duplicate", "detail"] == f"same bytes as {folder / 'a-good.mp4'}"


def test_a_teacher_that_cannot_is_nan_and_a_row(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    result = label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL, NEAR, FEW)))
    sample = open_dataset(str(tmp_path / "out"))[0]
    assert np.isnan(sample.tracks["needslongclips"].xy).all()
    assert sample.labels.keep.all()
    (row,) = result.records[0].rows
    assert (row.what, row.stage, row.reason, row.key) == ("teacher", "teacher:needslongclips", "teacher-error", sample.key)
    assert row.detail == "TeacherError: 9 frames are too few for me."
    assert (result.accounts.labelled, result.accounts.clips_failed) == (1, 0)


def test_a_clip_that_too_few_teachers_could_track_is_a_row(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    result = label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL, FEW)))
    assert (result.accounts.clips, result.accounts.labelled, result.accounts.clips_failed) == (1, 0, 1)
    assert [row.reason for row in result.records[0].rows] == ["teacher-error", "teachers"]
    assert result.records[0].tar is None
    assert findings(tmp_path / "out") == []


def test_one_teacher_alone_may_label(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1)
    assert label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL,))).accounts.labelled == 1


def test_the_seed_of_a_clip_is_its_own(tmp_path):
    """What a teacher draws depends on the clip alone, not on the unit or the order of the videos."""
    for i in range(2):
        write_moving(tmp_path / f"v{i}.mp4", seed=i)
    drawn = "tests.stub_teachers:Drawn"
    label(config(tmp_path / "v*.mp4", tmp_path / "both", (STILL, drawn)))
    label(config(tmp_path / "v1.mp4", tmp_path / "one", (STILL, drawn)))
    one, both = open_dataset(str(tmp_path / "one")), open_dataset(str(tmp_path / "both"))
    np.testing.assert_array_equal(one[0].tracks["drawn"].xy, both[one[0].key].tracks["drawn"].xy)
    assert (
        both[0].tracks["drawn"].xy - both[0].tracks["still"].xy != both[1].tracks["drawn"].xy - both[1].tracks["still"].xy
    ).any()


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clips": ClipConfig(frames=12, strides=(1,), clips_per_video=2)}, r"clips\.frames: 16 there, 12 here"),
        ({"videos_per_unit": 3}, "videos_per_unit: 2 there, 3 here"),
        ({"decoder": "pyav"}, "decoder: 'auto' there, 'pyav' here"),
    ],
)
def test_other_frozen_settings_are_refused_and_named(dataset, videos, changes, says):
    with pytest.raises(ConfigError, match=f"was made with other settings: {says}"):
        label(config(videos, dataset.folder, **changes))


def test_other_videos_are_refused(dataset, tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1)
    with pytest.raises(ConfigError, match="sources: "):
        label(config(tmp_path, dataset.folder))


def test_a_teacher_of_the_same_name_with_another_checkpoint_is_refused(videos, tmp_path):
    label(config(videos, tmp_path, (STILL,)))
    with pytest.raises(
        ConfigError, match=r"teacher 'still' labelled unit 0 as another .*checkpoint_sha256: None there, 'w\.pth' here"
    ):
        label(config(videos, tmp_path, (STILL, NEAR), checkpoint=(f"{STILL}=w.pth",)))


def test_an_untrained_teacher_never_labels(videos, tmp_path):
    with pytest.raises(ConfigError, match="has random weights"):
        label(config(videos, tmp_path, ("tests.stub_teachers:Untrained",)))


def test_a_data_set_of_another_schema_is_refused(videos, dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path, dirs_exist_ok=True)
    manifest = tmp_path / "dataset.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    with pytest.raises(Exception, match="has schema 99; this version of tapdistill reads schema 1"):
        label(config(videos, tmp_path))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": ()}, "at least one teacher"),
        ({"teachers": (STILL, STILL)}, "each once"),
        ({"workers": 0, "engine": "ray"}, "--workers 0"),
        ({"workers": 2}, "one process without Ray"),
        ({"videos_per_unit": 0}, "--videos-per-unit 0"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        config(Path("v"), Path("o"), **changes)


# --- adding a teacher


def test_adding_a_teacher_keeps_every_other_members_bytes(videos, dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path, dirs_exist_ok=True)
    result = label(config(videos, tmp_path, (STILL, NEAR, FAR)))
    assert {record.revision for record in result.records} == {1}
    for record in result.records:
        storage = Storage(str(tmp_path))
        before = read_record(storage, record.unit, 0)
        with storage.open(before.tar) as old, storage.open(record.tar) as new:
            for (key, there), (same_key, here) in zip(read_samples(old, ""), read_samples(new, ""), strict=True):
                assert key == same_key
                assert here.keys() - there.keys() == {"far.npz"}
                assert {suffix for suffix in there if there[suffix] != here[suffix]} == {"labels.npz", "json"}
    assert findings(tmp_path) == []
    assert (pd.read_parquet(tmp_path / "clips.parquet")["teachers"] == "far,near,still").all()


def test_teachers_added_one_by_one_give_the_bytes_of_all_at_once(videos, tmp_path):
    label(config(videos, tmp_path / "once", (STILL, NEAR, FAR)))
    for teachers in ((STILL,), (NEAR,), (STILL, FAR)):
        label(config(videos, tmp_path / "one-by-one", teachers))
    assert differences(tmp_path / "once", tmp_path / "one-by-one") == []


def test_an_added_teacher_that_cannot_is_nan_and_a_row(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL, NEAR)))
    result = label(config(tmp_path / "v.mp4", tmp_path / "out", (FEW,)))
    assert [row.stage for row in result.records[0].rows] == ["teacher:needslongclips"]
    assert np.isnan(open_dataset(str(tmp_path / "out"))[0].tracks["needslongclips"].xy).all()


@pytest.mark.slow
def test_two_jobs_at_once_with_other_teachers_end_with_all(videos, tmp_path):
    label(config(videos, tmp_path / "once", (STILL, NEAR, FAR, SLOW)))
    errors: list[BaseException] = []

    def job(*teachers: str) -> None:
        try:
            label(config(videos, tmp_path / "race", teachers))
        except BaseException as error:
            errors.append(error)

    jobs = [threading.Thread(target=job, args=teachers) for teachers in ((STILL, NEAR), (FAR, SLOW))]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert errors == []
    assert differences(tmp_path / "once", tmp_path / "race") == []
    assert findings(tmp_path / "race") == []
    assert (
        tables.accounts(read_plans(Storage(str(tmp_path / "race"))), latest_records(Storage(str(tmp_path / "race")))).labelled == 7
    )


# --- a unit, step by step


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
    from labeler.manifest import freeze
    from labeler.plan import create_plan, cut_into_units
    from labeler.sources import list_sources

    settings = config(videos, out)
    storage = Storage(str(out))
    freeze(storage, settings.frozen(), "test")
    create_plan(storage, 0, cut_into_units(list_sources([str(videos)]), 99))
    return Job(url=str(out), frozen=settings.frozen(), agreement=settings.agreement), units(read_plans(storage))


def trackers(*names: str) -> LocalTrackers:
    return LocalTrackers([TeacherSpec(name=name) for name in names])


def label_twice(job: Job, unit: Unit, decoding: DecodingProcess) -> None:
    """By two teachers, then by a third."""
    for names in ((STILL, NEAR), (STILL, NEAR, FAR)):
        list(do_unit(job, unit, decoding, trackers(*names)))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("writes", range(4))
def test_a_unit_killed_at_any_write_ends_with_the_same_bytes(videos, tmp_path, decoding, monkeypatch, writes, after):
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


class Overtaken(Storage):
    """Just before the first record is created, another job commits the unit with a teacher of its own."""

    rival = None

    def create(self, name, data):
        if name.startswith("shards/") and Overtaken.rival:
            rival, Overtaken.rival = Overtaken.rival, None
            rival()
        return super().create(name, data)


def test_who_loses_the_race_adds_its_teachers_without_running_them_again_and_keeps_its_rows(tmp_path, decoding, monkeypatch):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    job, (unit,) = only_unit(tmp_path / "v.mp4", tmp_path / "out")
    job = replace(job, frozen=config(tmp_path, "unused").frozen())
    ours, runs = trackers(STILL, NEAR, FEW), []
    track = ours.track
    monkeypatch.setattr(ours, "track", lambda names, *rest: runs.append(names) or track(names, *rest))
    Overtaken.rival = lambda: list(do_unit(job, unit, second, trackers(FAR)))
    with DecodingProcess(job.frozen, deadline_s=60, memory_gib=8) as second, monkeypatch.context() as patch:
        patch.setattr("labeler.unit.Storage", Overtaken)
        list(do_unit(job, unit, decoding, ours))
    record = latest_records(Storage(str(tmp_path / "out")))[0]
    assert (record.revision, sorted(record.teachers)) == (1, ["far", "near", "needslongclips", "still"])
    assert [row.stage for row in record.rows] == ["teacher:needslongclips"]
    assert runs == [["near", "needslongclips", "still"]]
    assert findings(tmp_path / "out") == []


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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_temporary_disk_leaves_the_unit_open(videos, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(full)], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(full))
        result = label(config(videos, tmp_path / "out"))
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert {event.unit for event in result.troubles} == {0, 1, 2}
    assert "No space left" in result.troubles[0].why
    assert result.accounts.open == 5
    assert tars(tmp_path / "out") == {}


def test_an_unforeseen_error_in_the_decoder_costs_its_video_only(videos, tmp_path, decoding, monkeypatch):
    call = decoding._process.call
    monkeypatch.setattr(
        decoding._process,
        "call",
        lambda method, video, *rest, **more: call(
            "no_such_method" if video.uri.endswith("1.mp4") else method, video, *rest, **more
        ),
    )
    job, (unit,) = only_unit(videos, tmp_path)
    list(do_unit(job, unit, decoding, trackers(STILL, NEAR)))
    (row,) = latest_records(Storage(str(tmp_path)))[0].rows
    assert (Path(row.uri).name, row.reason) == ("1.mp4", "decode-error")
    assert "AttributeError" in row.detail


# --- kill -9


MOMENTS = {
    "as soon as the plan is there": lambda out: (out / "plan.0000.parquet").exists(),
    "in the first unit": lambda out: (
        (out / "shards").exists() or ((out / "plan.0000.parquet").exists() and time.sleep(1.5) is None)
    ),
    "after the first commit": lambda out: (out / record_name(0, 0)).exists(),
    "after the second commit": lambda out: (out / record_name(1, 0)).exists(),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_killed_and_started_again_ends_with_the_same_bytes(videos, tmp_path, moment):
    teachers = (STILL, NEAR, SLOW)
    label(config(videos, tmp_path / "calm", teachers))
    out = tmp_path / "killed"
    driver = start_driver(videos, out, teachers)
    wait_for(lambda: MOMENTS[moment](out), driver)
    below = children_of(driver.pid)
    driver.send_signal(signal.SIGKILL)
    said, _ = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, f"it had ended before: {said}"
    assert still_running(below, within_s=15) == []
    label(config(videos, out, teachers))
    assert tars(out) == tars(tmp_path / "calm")
    assert findings(out) == []
    assert [name for name in os.listdir(out / "shards") if name.startswith(".")] == []


@pytest.mark.slow
def test_an_interrupted_driver_says_so_and_goes_on(videos, tmp_path):
    driver = start_driver(videos, tmp_path, (STILL, SLOW))
    wait_for(lambda: (tmp_path / record_name(0, 0)).exists(), driver)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "goes on from here with the same command" in said
    assert "Traceback" not in said
    assert label(config(videos, tmp_path, (STILL, SLOW))).accounts.labelled == 7


def test_agreement_settings_are_in_the_labels_and_in_the_record(videos, tmp_path):
    settings = AgreementConfig(tau_px=0.5)
    result = label(config(videos / "0.mp4", tmp_path, (STILL, NEAR), agreement=settings))
    assert result.records[0].agreement == asdict(settings)
    sample = open_dataset(str(tmp_path))[0]
    assert sample.labels.settings["tau_px"] == 0.5
    assert not sample.labels.keep.any()  # a quarter of a pixel of 64 is one of 256


def test_the_local_engine_leaves_a_unit_open_when_the_surroundings_fail(videos, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise SurroundingsError("the disk is gone.")

    monkeypatch.setattr("labeler.unit.commit", fail)
    seen: list = []
    result = label(config(videos, tmp_path, decoding=DecodeLimits(deadline_s=60)), seen.append)
    assert result.troubles == [UnitOpen(unit, "the disk is gone.") for unit in range(3)]
    assert (result.accounts.open, result.accounts.done) == (5, 0)
    assert sum(isinstance(event, UnitOpen) for event in seen) == 3


def test_a_tar_holds_plain_files_with_fixed_times_in_one_order(dataset):
    for tar in tars(dataset.folder):
        with tarfile.open(dataset.folder / tar) as archive:
            members = archive.getmembers()
        assert {(member.mtime, member.mode, member.uid, member.gid, member.isfile()) for member in members} == {
            (0, 0o444, 0, 0, True)
        }
        keys = [member.name.split(".")[0] for member in members]
        assert keys == sorted(keys, key=keys.index)  # the members of a sample stand together
