"""Exports: each is read back by a reader of its target, and says what the labels say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, write_moving
from labeler import open_dataset
from labeler.labels.labelled import labelled
from pipelines import cli
from pipelines.commands import export
from pipelines.exports.tapvid import labels_as_truth
from pipelines.jobs.labelling import label
from student.evaluation.metrics import score
from student.evaluation.tapvid import tapvid_clips
from student.evaluation.testsets import npz_clips
from teachers import Tracks
from tests.support.jobs import contents

T = 16


OLD = Path(__file__).parents[2] / "data" / "dataset_schema1"


def run(dataset, *flags):
    """The exit code of `tapdistill export`."""
    return cli.run(["export", str(dataset.folder), *map(str, flags)])


@pytest.fixture(scope="module")
def clips(dataset):
    return {clip.key: clip for clip in open_dataset(str(dataset.folder))}


# --- TAP-Vid


def test_the_pickle_is_read_as_tapvid_davis(dataset, clips, tmp_path, capsys):
    assert run(dataset, "--to", "tapvid-pkl", "--out", tmp_path / "labels.pkl") == 0
    said = capsys.readouterr().out
    assert "7 clips, 168 of 168 queries, 168 with a visible label by medoid in a frame" in said
    assert "licences: none (near and still)" in said
    read = {clip.name: clip for clip in tapvid_clips("tapvid-davis", str(tmp_path / "labels.pkl"))}
    assert read.keys() == clips.keys()
    for key, clip in clips.items():
        np.testing.assert_array_equal(read[key].frames, clip.frames)
        assert read[key].visible.all()
        nearest = np.minimum(
            *(np.abs(tracks.xy - read[key].xy).max(-1) for tracks in clip.tracks.values())
        )
        # the medoid is one of the teachers; places went through shares of the frame and back
        assert nearest.max() < 1e-4


def test_an_npz_clip_is_what_eval_reads_and_its_own_teacher_is_perfect_on_it(
    dataset, clips, tmp_path
):
    assert run(dataset, "--to", "tapvid-npz", "--out", tmp_path / "npz", "--policy", "near") == 0
    read = list(npz_clips(str(tmp_path / "npz")))
    assert {clip.name for clip in read} == clips.keys()
    for truth in read:
        clip = clips[truth.name]
        np.testing.assert_array_equal(truth.frames, clip.frames)
        np.testing.assert_array_equal(truth.queries, clip.queries)
        figures = score(
            truth.queries,
            truth.xy,
            truth.visible,
            clip.tracks["near"].xy,
            clip.visible("near"),
            clip.size_hw,
        )
        assert figures["AJ"] == figures["OA"] == 1


@pytest.mark.parametrize("policy", ["random-agreeing", "random", "median"])
def test_other_policies_are_read_too_and_a_draw_is_repeated_by_its_seed(dataset, tmp_path, policy):
    for folder, seed in (("one", 1), ("two", 1)):
        flags = ("--policy", policy, "--seed", seed, "--clips", 2)
        assert run(dataset, "--to", "tapvid-npz", "--out", tmp_path / folder, *flags) == 0
    one, two = (list(npz_clips(str(tmp_path / folder))) for folder in ("one", "two"))
    assert [clip.name for clip in one] == [clip.name for clip in two]
    assert len(one) == 2
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.xy, b.xy)


def test_what_is_exported_is_what_inspect_shows(clips):
    clip = next(iter(clips.values()))
    truth, shown = labels_as_truth(clip, "random"), labelled(clip, "random")
    rows = shown.visible.any(1)
    assert len(truth.xy) == rows.sum() > 0
    np.testing.assert_array_equal(truth.xy[truth.visible], shown.xy[rows][truth.visible])


def test_a_frame_without_a_label_is_occluded_and_has_the_place_of_the_nearest_frame_that_has_one(
    clips,
):
    clip = next(iter(clips.values()))
    xy = clip.tracks["near"].xy.copy()
    xy[0, :4] = np.nan  # not tracked at first
    xy[0, 10:12] = np.nan  # nor in a gap
    xy[1, :, 0] = 1e4  # outside, and never seen inside
    xy[2, 5, 0] = -3  # outside once
    lost = replace(
        clip,
        tracks={
            **clip.tracks,
            "near": Tracks(xy, clip.tracks["near"].visibility, clip.tracks["near"].confidence),
        },
    )
    truth = labels_as_truth(lost, "near")
    assert len(truth.xy) == len(clip.queries) - 1
    np.testing.assert_array_equal(truth.queries, np.delete(clip.queries, 1, axis=0))
    np.testing.assert_array_equal(np.flatnonzero(~truth.visible[0]), [0, 1, 2, 3, 10, 11])
    np.testing.assert_array_equal(truth.xy[0, [0, 3, 10, 11]], xy[0, [4, 4, 9, 12]])
    assert np.isfinite(truth.xy).all()
    np.testing.assert_array_equal(np.flatnonzero(~truth.visible[1]), [5])


def test_a_point_with_a_label_in_its_own_frame_alone_is_written_and_not_counted_as_tracked(clips):
    clip = next(iter(clips.values()))
    near = clip.tracks["near"]
    xy = near.xy.copy()
    xy[0, np.arange(xy.shape[1]) != int(clip.queries[0, 0])] = np.nan
    lost = replace(
        clip, tracks={**clip.tracks, "near": Tracks(xy, near.visibility, near.confidence)}
    )
    count = export._Count(
        export.ExportConfig(data="labels", to="tapvid-npz", out="o", policy="near")
    )
    (written,) = count.with_labels([lost])
    assert len(written.xy) == 24
    assert "1 clips, 24 of 24 queries, 23 with a visible label by near" in count.said()


# --- parquet


def test_the_table_has_a_row_for_each_teacher_point_and_frame(dataset, clips, tmp_path):
    assert run(dataset, "--to", "parquet", "--out", tmp_path / "tracks.parquet") == 0
    table = pd.read_parquet(tmp_path / "tracks.parquet")
    assert list(table.columns) == [
        "clip",
        "query",
        "teacher",
        "t",
        "x",
        "y",
        "visible",
        "visibility",
        "confidence",
        "support",
        "valid",
        "keep",
        "right",
        "hidden",
    ]
    assert len(table) == 7 * 2 * 24 * T
    for key, clip in clips.items():
        for name, tracks in clip.tracks.items():
            rows = table[(table["clip"] == key) & (table["teacher"] == name)].sort_values(
                ["query", "t"]
            )
            np.testing.assert_array_equal(rows[["x", "y"]].to_numpy().reshape(24, T, 2), tracks.xy)
            np.testing.assert_array_equal(
                rows["support"].to_numpy().reshape(24, T), clip.labels.support
            )
            np.testing.assert_array_equal(
                rows["valid"].to_numpy().reshape(24, T), clip.labels.valid
            )
            np.testing.assert_array_equal(
                rows["keep"].to_numpy().reshape(24, T)[:, 0], clip.labels.keep
            )
            np.testing.assert_array_equal(
                rows["visible"].to_numpy().reshape(24, T), clip.visible(name)
            )
            np.testing.assert_array_equal(
                rows["right"].to_numpy().reshape(24, T), clip.verdict.of([name])[0]
            )
            np.testing.assert_array_equal(
                rows["hidden"].to_numpy().reshape(24, T), clip.verdict.hidden
            )
    assert table["confidence"].isna().all()  # these teachers have none


def test_labels_that_no_verifier_judged_are_exported_without_it(tmp_path, capsys):
    table, folder = tmp_path / "tracks.parquet", tmp_path / "truth"
    assert cli.run(["export", str(OLD), "--to", "parquet", "--out", str(table)]) == 0
    assert pd.read_parquet(table)[["right", "hidden"]].isna().all(axis=None)
    flags = ("--to", "tapvid-npz", "--out", str(folder))
    capsys.readouterr()
    assert cli.run(["export", str(OLD), *flags, "--policy", "verified"]) == 1
    assert "--policy verified: no verifier has judged" in capsys.readouterr().err
    assert cli.run(["export", str(OLD), *flags]) == 0
    assert any(folder.iterdir())


def test_trusted_labels_are_exported_from_the_threshold_on(dataset, clips, tmp_path):
    flags = ("--to", "tapvid-npz", "--policy", "verified", "--trust.min-right", "0.5")
    assert run(dataset, "--out", tmp_path, *flags) == 0
    files = list(tmp_path.glob("*.npz"))
    assert files
    for file in files:
        clip = clips[file.stem]
        with np.load(file) as found:
            rows = [np.flatnonzero((clip.queries == query).all(1))[0] for query in found["queries"]]
            visible = ~found["occluded"]
        trusted = clip.verdict.best >= np.maximum(0.5, clip.verdict.hidden)
        assert (visible <= trusted[rows]).all()  # a place outside the frame is marked occluded
        assert visible.any()


# --- Rerun, datasets: where they are installed


def test_the_recording_is_verified_by_rerun(dataset, clips, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk (490 MB) is not part of [dev]")
    file = tmp_path / "labels.rrd"
    assert run(dataset, "--to", "rerun", "--out", file, "--clips", "1") == 0
    rerun = [sys.executable, "-m", "rerun", "rrd"]
    subprocess.run([*rerun, "verify", file], check=True, capture_output=True)
    printed = subprocess.run(
        [*rerun, "print", file], check=True, capture_output=True, text=True
    ).stdout
    assert any(f"/{key}/frame/near/seen" in printed for key in clips)


def test_without_rerun_the_way_to_get_it_is_named(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert run(dataset, "--to", "rerun", "--out", tmp_path / "labels.rrd") == 1
    assert "pip install 'tapdistill[rerun]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_hugging_face_datasets_reads_the_current_tars(dataset, clips, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not part of [dev]")
    tars = open_dataset(str(dataset.folder)).tars
    read = datasets.load_dataset(
        "webdataset", data_files={"train": tars}, split="train", cache_dir=str(tmp_path)
    )
    for row in read.cast_column("mp4", datasets.Video(decode=False)):
        clip = clips[row["__key__"]]
        assert row["mp4"]["bytes"] == clip.mp4
        np.testing.assert_array_equal(
            np.array(row["near.npz"]["xy"], np.float32), clip.tracks["near"].xy
        )


# --- equal files in different units


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """The labels of three videos, a unit each, of which two are equal."""
    root = tmp_path_factory.mktemp("repeated")
    (root / "videos").mkdir()
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        write_moving(root / "videos" / f"{name}.mp4", seed)
    label(config(root / "videos", root / "labels", videos_per_unit=1))
    return root / "labels"


@pytest.mark.parametrize("to", ["tapvid-pkl", "tapvid-npz", "parquet", "hf"])
def test_a_clip_of_two_equal_files_is_exported_once(repeated, tmp_path, capsys, to):
    out = tmp_path / "out"
    assert cli.run(["export", str(repeated), "--to", to, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 clips" in said
    assert "; 1 clip of equal files left out; " in said
    if to == "tapvid-npz":
        assert len(list(out.iterdir())) == 2
    if to == "parquet":
        assert not pd.read_parquet(out).duplicated(["clip", "query", "teacher", "t"]).any()


# --- what is refused


def test_an_export_that_is_there_is_replaced_only_when_asked(dataset, tmp_path, capsys):
    file, folder = tmp_path / "tracks.parquet", tmp_path / "npz"
    assert run(dataset, "--to", "parquet", "--out", file) == 0
    before = file.read_bytes()
    assert run(dataset, "--to", "parquet", "--out", file, "--clips", 1) == 1
    assert (
        "exists already. Choose another name, or replace it with --overwrite"
        in capsys.readouterr().err
    )
    assert file.read_bytes() == before
    assert run(dataset, "--to", "parquet", "--out", file, "--clips", 1, "--overwrite") == 0
    assert len(pd.read_parquet(file)) == 2 * 24 * T

    assert run(dataset, "--to", "tapvid-npz", "--out", folder) == 0
    (folder / "notes.npz").write_text("mine")
    assert run(dataset, "--to", "tapvid-npz", "--out", folder, "--clips", 1) == 1
    assert run(dataset, "--to", "tapvid-npz", "--out", folder, "--clips", 1, "--overwrite") == 0
    assert len(list(folder.glob("*-s*.npz"))) == 1
    assert (folder / "notes.npz").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--to", "parquet", "--policy", "medoid"), "--policy medoid: belongs to tapvid"),
        (
            ("--to", "tapvid-npz", "--policy", "oracle"),
            "--policy oracle: there are the policies random, .* and the teachers near, still",
        ),
        (("--to", "tapvid-npz", "--policy", "lk"), "--policy lk: there are the policies"),
        (("--to", "parquet", "--clips", "0"), "--clips 0: must be at least 1"),
        (("--to", "parquet", "--seed", "-1"), "--seed -1: must be 0 or more"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(dataset, tmp_path, capsys, flags, says):
    assert run(dataset, "--out", tmp_path / "out", *flags) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(says, err)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_a_clip_says_what_became_of_its_videos(tmp_path, capsys):
    video = tmp_path / "no-video.mp4"
    video.write_text("not a video")
    label(config(video, tmp_path / "labels", (STILL, NEAR)))
    assert (
        cli.run(
            ["export", str(tmp_path / "labels"), "--to", "parquet", "--out", str(tmp_path / "out")]
        )
        == 1
    )
    assert (
        "no labelled clip: of 1 videos 0 are open and 1 failed. `tapdistill status"
        in capsys.readouterr().err
    )


def test_a_file_is_not_taken_for_a_folder_nor_a_folder_for_a_file(dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(dataset, "--to", "tapvid-npz", "--out", tmp_path / "file", "--overwrite") == 1
    assert run(dataset, "--to", "parquet", "--out", tmp_path, "--overwrite") == 1
    assert "is a folder; parquet is a file" in capsys.readouterr().err


def test_a_pickle_that_would_not_fit_in_memory_is_refused(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "MEMORY_SHARE", 1e-9)
    assert run(dataset, "--to", "tapvid-pkl", "--out", tmp_path / "labels.pkl") == 1
    assert "take fewer with --clips, or --to tapvid-npz" in capsys.readouterr().err


def test_an_export_that_fails_leaves_nothing(dataset, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "write_npz", fail)
    assert run(dataset, "--to", "tapvid-npz", "--out", tmp_path / "npz") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("parquet", "dataset.json"),
        ("parquet", "shards/tracks.parquet"),
        ("hf", ""),
        ("tapvid-npz", "shards"),
    ],
)
def test_an_export_never_lands_in_a_data_set(dataset, tmp_path, capsys, to, name):
    copy, other = tmp_path / "copy", tmp_path / "other"
    for place in (copy, other):
        shutil.copytree(dataset.folder, place)
    before = contents(copy)
    (tmp_path / "link").symlink_to(copy)
    for out in (copy / name, tmp_path / "link" / name):
        flags = ("--to", to, "--out", str(out), "--overwrite")
        assert cli.run(["export", str(copy), *flags]) == 1
        assert "lies in the data set" in capsys.readouterr().err
    if name == "":
        assert cli.run(["export", str(copy), "--to", to, "--out", str(other), "--overwrite"]) == 1
        assert "is a data set of labels" in capsys.readouterr().err
    assert contents(copy) == contents(other) == before
