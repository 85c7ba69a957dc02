"""Whole jobs on the local engine: what goes in comes out, what is refused, and teachers that are
added later."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, tars, write_moving
from labeler.clips.choice import ClipConfig
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.labels.agreement import AgreementConfig
from labeler.shards import tables
from labeler.shards.plan import read_plans
from labeler.shards.records import latest_records, read_record
from labeler.shards.revisions import relabel
from labeler.shards.tar import read_samples
from labeler.video.encode import decode_clip
from pipelines.jobs.labelling import label
from teachers import ConfigError
from tests.support.jobs import FAR, SLOW, differences, findings
from tests.support.video_files import cut, write_audio, write_video

FEW = "tests.support.stub_teachers:NeedsLongClips"


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
        # the two never part by more than a quarter of a pixel, one of the 256 raster
        assert sample.labels.keep.all()
        assert sample.labels.settings["teachers"] == {"near": "v > 0.5", "still": "v > 0.5"}


def test_a_finished_job_run_again_does_nothing(dataset):
    before = {file: file.stat().st_mtime_ns for file in (dataset.folder / "shards").iterdir()}
    result = label(config(Path(dataset.result.records[0].videos[0].uri).parent, dataset.folder))
    assert result.accounts == dataset.result.accounts
    assert {
        file: file.stat().st_mtime_ns for file in (dataset.folder / "shards").iterdir()
    } == before


def test_another_run_gives_the_same_bytes(dataset, videos, tmp_path):
    label(config(videos, tmp_path))
    assert tars(tmp_path) == tars(dataset.folder)


def test_what_no_verifier_judged_can_be_judged_later(dataset, videos, tmp_path):
    label(config(videos, tmp_path, teachers=(STILL,), judge=False))
    label(config(videos, tmp_path, judge=False))  # a teacher is added
    storage = Storage(str(tmp_path))
    assert [record.verifier for record in latest_records(storage)] == [None] * 3
    assert all(sample.verdict is None for sample in open_dataset(str(tmp_path)))
    for record in latest_records(storage):
        assert relabel(storage, record, AgreementConfig())
    assert findings(tmp_path) == []
    at_once = {sample.key: sample for sample in open_dataset(str(dataset.folder))}
    for sample in open_dataset(str(tmp_path)):
        for name in ("right", "hidden"):
            np.testing.assert_array_equal(
                getattr(sample.verdict, name), getattr(at_once[sample.key].verdict, name)
            )


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
    rows = {
        row.uri: row.reason
        for record in result.records
        for row in record.rows
        if row.what == "video"
    }
    assert done | rows.keys() == {str(file) for file in folder.iterdir()}
    assert not done & rows.keys()
    assert {Path(uri).name: reason for uri, reason in rows.items()}.items() >= {
        "b-copy.mp4": "duplicate",
        "c-empty.mp4": "empty",
        "d-text.mp4": "not-a-video",
        "e-sound.mp4": "no-video-stream",
        "f-short.mp4": "too-short",
        "g-tiny.mp4": "too-small",
    }.items()
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
    assert (row.what, row.stage, row.reason, row.key) == (
        "teacher",
        "teacher:needslongclips",
        "teacher-error",
        sample.key,
    )
    assert row.detail == "TeacherError: 9 frames are too few for me."
    assert (result.accounts.labelled, result.accounts.clips_failed) == (1, 0)


def test_a_clip_that_too_few_teachers_could_track_is_a_row(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1, frames=9)
    result = label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL, FEW)))
    assert (result.accounts.clips, result.accounts.labelled, result.accounts.clips_failed) == (
        1,
        0,
        1,
    )
    assert [row.reason for row in result.records[0].rows] == ["teacher-error", "teachers"]
    assert result.records[0].tar is None
    assert findings(tmp_path / "out") == []


def test_one_teacher_alone_may_label(tmp_path):
    write_moving(tmp_path / "v.mp4", seed=1)
    assert label(config(tmp_path / "v.mp4", tmp_path / "out", (STILL,))).accounts.labelled == 1


def test_the_seed_of_a_clip_is_its_own(tmp_path):
    """What a teacher draws depends on the clip alone, not on the unit or the order of the
    videos."""
    for i in range(2):
        write_moving(tmp_path / f"v{i}.mp4", seed=i)
    drawn = "tests.support.stub_teachers:Drawn"
    label(config(tmp_path / "v*.mp4", tmp_path / "both", (STILL, drawn)))
    label(config(tmp_path / "v1.mp4", tmp_path / "one", (STILL, drawn)))
    one, both = open_dataset(str(tmp_path / "one")), open_dataset(str(tmp_path / "both"))
    np.testing.assert_array_equal(one[0].tracks["drawn"].xy, both[one[0].key].tracks["drawn"].xy)
    assert (
        both[0].tracks["drawn"].xy - both[0].tracks["still"].xy
        != both[1].tracks["drawn"].xy - both[1].tracks["still"].xy
    ).any()


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"clips": ClipConfig(frames=12, strides=(1,), clips_per_video=2)},
            r"clips\.frames: 16 there, 12 here",
        ),
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
        ConfigError,
        match=(
            r"teacher 'still' labelled unit 0 as another .*checkpoint_sha256: None there, 'w\.pth' "
            r"here"
        ),
    ):
        label(config(videos, tmp_path, (STILL, NEAR), checkpoint=(f"{STILL}=w.pth",)))


def test_an_untrained_teacher_never_labels(videos, tmp_path):
    with pytest.raises(ConfigError, match="has random weights"):
        label(config(videos, tmp_path, ("tests.support.stub_teachers:Untrained",)))


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


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_shard_that_is_gone_keeps_no_teacher_from_the_others(videos, dataset, tmp_path, engine):
    shutil.copytree(dataset.folder, tmp_path, dirs_exist_ok=True)
    (gone,) = tmp_path.glob("shards/*000001*.tar")
    gone.unlink()
    result = label(config(videos, tmp_path, (STILL, NEAR, FAR), engine=engine))
    (trouble,) = result.troubles
    assert (trouble.unit, trouble.own_fault) == (1, False)
    assert f"{gone.name} is missing" in trouble.why
    assert [unit.number for unit in result.open_units] == [1]
    assert ["far" in record.teachers for record in result.records] == [True, False, True]


def test_adding_a_teacher_keeps_every_other_members_bytes(videos, dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path, dirs_exist_ok=True)
    result = label(config(videos, tmp_path, (STILL, NEAR, FAR)))
    assert {record.revision for record in result.records} == {1}
    for record in result.records:
        storage = Storage(str(tmp_path))
        before = read_record(storage, record.unit, 0)
        with storage.open(before.tar) as old, storage.open(record.tar) as new:
            for (key, there), (same_key, here) in zip(
                read_samples(old, ""), read_samples(new, ""), strict=True
            ):
                assert key == same_key
                assert here.keys() - there.keys() == {"far.npz"}
                assert {suffix for suffix in there if there[suffix] != here[suffix]} == {
                    "labels.npz",
                    "verdict.npz",
                    "json",
                }
    assert findings(tmp_path) == []
    assert (pd.read_parquet(tmp_path / "clips.parquet")["teachers"] == "far,near,still").all()


@pytest.mark.slow
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

    jobs = [
        threading.Thread(target=job, args=teachers) for teachers in ((STILL, NEAR), (FAR, SLOW))
    ]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert errors == []
    assert differences(tmp_path / "once", tmp_path / "race") == []
    assert findings(tmp_path / "race") == []
    assert (
        tables.accounts(
            read_plans(Storage(str(tmp_path / "race"))),
            latest_records(Storage(str(tmp_path / "race"))),
        ).labelled
        == 7
    )


def test_agreement_settings_are_in_the_labels_and_in_the_record(videos, tmp_path):
    settings = AgreementConfig(tau_px=0.5)
    result = label(config(videos / "0.mp4", tmp_path, (STILL, NEAR), agreement=settings))
    assert result.records[0].agreement == asdict(settings)
    sample = open_dataset(str(tmp_path))[0]
    assert sample.labels.settings["tau_px"] == 0.5
    assert not sample.labels.keep.any()  # a quarter of a pixel of 64 is one of 256


def test_a_tar_holds_plain_files_with_fixed_times_in_one_order(dataset):
    for tar in tars(dataset.folder):
        with tarfile.open(dataset.folder / tar) as archive:
            members = archive.getmembers()
        assert {
            (member.mtime, member.mode, member.uid, member.gid, member.isfile())
            for member in members
        } == {(0, 0o444, 0, 0, True)}
        keys = [member.name.split(".")[0] for member in members]
        assert keys == sorted(keys, key=keys.index)  # the members of a sample stand together
