"""`tapdistill eval`: several trackers side by side, on procedural clips and on npz files."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import teachers
from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import POLICIES
from pipelines.cli import run as tapdistill
from pipelines.commands.eval import EvalCommand, clips_of
from pipelines.tracking.trackers import load_tracker
from student.evaluation.evaluate import compare, with_interval
from student.evaluation.labels import (
    LABEL_FIGURES,
    OCCLUDED_FIGURES,
    VISIBLE_FIGURES,
    score_policy,
)
from student.evaluation.metrics import score
from student.evaluation.testsets import on_tapvid_raster, procedural_clips, read_npz
from student.synth.scene import SynthConfig, generate, save
from student.training.checkpoint import Checkpoints
from teachers import CheckpointError, ConfigError, ShardError, Teacher, TeacherInfo, Tracks
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config

SCENE = SynthConfig(frames=6, height=64, width=96, points=12, split="test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two clips of `tapdistill synth`."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in (0, 1):
        save(generate(seed, SCENE), folder / f"test-{seed:05d}")
    return folder


@pytest.fixture
def student(tmp_path) -> str:
    """An exported student that was never trained."""
    config = replace(CoTracker3Config.mini(), resolution=(64, 96), window=6)
    return str(
        Checkpoints(tmp_path, keep=1).export(
            "student", CoTracker3(config), "cotracker3-offline", {}
        )
    )


def test_every_tracker_has_a_row_for_every_clip(folder, student, tmp_path, capsys):
    table = tmp_path / "scores.parquet"
    assert (
        tapdistill(
            [
                "eval",
                "--model",
                "lk",
                student,
                "--dataset",
                "npz",
                "--root",
                str(folder),
                "--out",
                str(table),
            ]
        )
        == 0
    )
    rows = pd.read_parquet(table)
    called = "cotracker3-offline-student"
    assert list(zip(rows["model"], rows["clip"], strict=True)) == [
        ("lk", "test-00000"),
        (called, "test-00000"),
        ("lk", "test-00001"),
        (called, "test-00001"),
    ]
    said = capsys.readouterr().out
    for word in (
        "lk",
        "AJ",
        "delta_avg",
        "OA",
        "<1 px",
        "<16 px",
        "survival",
        "AJ_RD",
        "median",
        "npz: 2 clips, 24 queries",
    ):
        assert word in said
    for column in (
        "dataset",
        "query_mode",
        "jaccard_4",
        "pts_within_8",
        "median_error_px",
        "survival",
        "AJ_RD",
        "points",
        "seconds",
    ):
        assert column in rows
    mean, low, high = with_interval(100 * rows[rows["model"] == "lk"]["AJ"])
    assert f"{mean:.1f} ({low:.1f}-{high:.1f})" in said
    assert [
        line.split()[0] for line in said.splitlines() if line.startswith(("lk ", f"{called} "))
    ] == ["lk", called] * 2


def test_labels_are_scored_by_policy_beside_each_teacher_alone(folder, tmp_path, capsys):
    table = tmp_path / "labels.parquet"
    called = ["eval", "--model", "lk", "flow", "--policy", "random,medoid", "--dataset", "npz"]
    assert tapdistill([*called, "--root", str(folder), "--out", str(table)]) == 0
    rows, said = pd.read_parquet(table), capsys.readouterr().out
    assert rows["labels"].tolist() == ["lk", "flow", "random", "medoid"] * 2
    assert rows["points"].tolist() == [12] * 8
    assert set(LABEL_FIGURES) < set(rows.columns)
    assert "mode label" in said
    lines = [line.split() for line in said.splitlines()]
    for figures in (VISIBLE_FIGURES, OCCLUDED_FIGURES):
        at = lines.index(list(figures))
        assert [line[0] for line in lines[at + 1 : at + 5]] == ["lk", "flow", "random", "medoid"]

    clips = [read_npz(path) for path in sorted(folder.glob("*.npz"))]
    loaded = {name: teachers.load(name, mode="label") for name in ("lk", "flow")}
    shown = [on_tapvid_raster(clip) for clip in clips]
    tracks = {
        name: [teacher.track(clip.frames, clip.queries) for clip in shown]
        for name, teacher in loaded.items()
    }
    rules = {name: teacher.info.rule for name, teacher in loaded.items()}
    figures = score_policy("medoid", tracks, rules, shown, AgreementConfig())
    at = lines.index(list(VISIBLE_FIGURES))
    assert lines[at + 4][1] == f"{100 * figures['used']:.1f}"


@pytest.mark.slow
def test_thresholds_of_a_policy_can_be_tried(folder, capsys):
    called = ["eval", "--model", "lk", "flow", "match", "--policy", "medoid", "--dataset", "npz"]
    called += ["--root", str(folder), "--agreement.min-visible-frames", "1"]
    used = []
    for tau in ("0.01", "8"):
        assert tapdistill([*called, "--agreement.tau-px", tau]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        used.append(float(next(line[1] for line in lines if line[:1] == ["medoid"])))
    assert used[0] < used[1]


def test_every_policy_can_be_asked_for_and_one_that_is_not_there_is_refused():
    assert EvalCommand(model=("lk",), policy=("all",)).policies == tuple(POLICIES)
    assert EvalCommand(model=("lk",), policy=("mean,random", "mean")).policies == ("mean", "random")
    with pytest.raises(ConfigError, match="--policy best: there are random, "):
        EvalCommand(model=("lk",), policy=("best",))


def test_trackers_are_called_as_for_labels_where_labels_are_scored():
    assert EvalCommand(model=("lk",)).called_in == "benchmark"
    assert EvalCommand(model=("lk",), policy=("random",)).called_in == "label"
    asked = EvalCommand(model=("lk",), policy=("random",), mode="predictor")
    assert asked.called_in == "predictor"
    with pytest.raises(ConfigError, match="not to label"):
        EvalCommand(model=("lk",), policy=("random",), points="single")


def test_the_figures_are_those_of_the_metrics(folder):
    (path, *_) = sorted(folder.glob("*.npz"))
    clip, tracker = read_npz(path), teachers.load("lk")
    (row,) = compare({"lk": tracker}, [clip]).to_dict("records")
    found = tracker.track(clip.frames, clip.queries)
    expected = score(
        clip.queries,
        clip.xy,
        clip.visible,
        found.xy,
        tracker.info.rule(found),
        clip.frames.shape[1:3],
    )
    assert {name: row[name] for name in expected} == expected
    assert (row["clip"], row["points"], row["frames"]) == (path.stem, 12, 6)


def test_procedural_clips_are_those_of_synth():
    (clip,) = procedural_clips(1, seed=5)
    np.testing.assert_array_equal(clip.frames, generate(5, SynthConfig(split="test")).frames)


def test_a_file_of_three_arrays_has_its_queries_where_points_are_first_seen(tmp_path):
    clip = generate(3, SCENE)
    visible = clip.visible.copy()
    visible[0] = False
    np.savez(tmp_path / "plain.npz", video=clip.frames, points=clip.xy, occluded=~visible)
    read = read_npz(tmp_path / "plain.npz")
    assert len(read.queries) == int(visible.any(1).sum()) < len(clip.queries)
    for (t, x, y), track, seen in zip(read.queries, read.xy, read.visible, strict=True):
        assert seen[int(t)]
        assert not seen[: int(t)].any()
        np.testing.assert_array_equal((x, y), track[int(t)])


# --- what a --model can be


def test_a_model_is_a_name_a_file_or_both(student, tmp_path):
    assert load_tracker("lk").info.name == "lk"
    swept = tmp_path / "lr=1e-4.safetensors"
    swept.symlink_to(student)
    for text in (student, f"cotracker3-offline={student}", swept, f"cotracker3-offline={swept}"):
        assert load_tracker(str(text), device="cpu").info.architecture.startswith(
            "CoTracker3 offline, "
        )


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "nobody",
            ConfigError,
            "--model nobody: there are .*lk.*; or give a file, or NAME=CHECKPOINT",
        ),
        ("nowhere.safetensors", CheckpointError, r"nowhere\.safetensors: no such checkpoint file"),
        (
            "cotracker3-offline=nowhere.pth",
            CheckpointError,
            r"nowhere\.pth: no such checkpoint file",
        ),
        ("cotracker3-offline", CheckpointError, "has no weights: get its file from"),
    ],
)
def test_a_model_that_is_not_there_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        load_tracker(text, device="cpu")


def test_a_checkpoint_of_another_architecture_is_a_clear_error(student, capsys):
    assert tapdistill(["eval", "--model", f"tapir={student}"]) == 1
    assert "its metadata does not describe a Tapir network" in capsys.readouterr().err


# --- the protocol


def test_the_protocol_is_stated_for_a_cotracker(student, folder, capsys):
    npz = ["--dataset", "npz", "--root", str(folder), "--clips", "1"]
    assert (
        tapdistill(
            [
                "eval",
                "--model",
                student,
                *npz,
                "--points",
                "single",
                "--global-grid",
                "2",
                "--local-grid",
                "3",
            ]
        )
        == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "query mode first, frames at 256 x 256 px" in said
    assert (
        "mode benchmark, points each alone with a local 3 x 3 grid, global grid 2 x 2, 6 "
        "iterations; visible: v*c > 0.6" in said
    )
    assert (
        tapdistill(
            ["eval", "--model", student, "lk", *npz, "--query-mode", "strided", "--raster", "own"]
        )
        == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "query mode strided, frames at their own size" in said
    assert "points all together, global grid 5 x 5, 6 iterations" in said


class Recorder(Teacher):
    """Keeps what it was shown, and answers with every query's own place."""

    info = TeacherInfo(
        name="recorder", architecture="", mode="benchmark", visible_rule="none", licence=""
    )

    def __init__(self) -> None:
        self.shown: list[tuple[np.ndarray, np.ndarray]] = []

    def _track(self, frames, queries, seed):
        self.shown.append((frames, queries))
        still = np.repeat(queries[:, None, 1:], len(frames), axis=1)
        unknown = np.full(still.shape[:2], np.nan, np.float32)
        return Tracks(still, unknown, unknown)


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_trackers_see_the_raster_and_the_queries_of_the_protocol(folder, mode):
    command = EvalCommand(model=("lk",), dataset="npz", root=str(folder), query_mode=mode)
    clips, _ = clips_of(command)
    recorder = Recorder()
    rows = compare({"recorder": recorder}, clips, mode)
    for (frames, queries), row, path in zip(
        recorder.shown, rows.itertuples(), sorted(folder.glob("*.npz")), strict=True
    ):
        with np.load(path) as npz:
            visible = ~npz["occluded"]
        assert frames.shape == (6, 256, 256, 3)
        asked = visible[:, ::5].sum() if mode == "strided" else visible.any(1).sum()
        assert len(queries) == row.points == asked


def test_own_size_leaves_clips_as_they_are(folder):
    clips, _ = clips_of(EvalCommand(model=("lk",), dataset="npz", root=str(folder), raster="own"))
    assert {clip.frames.shape for clip in clips} == {(6, 64, 96, 3)}


def test_every_published_data_set_can_be_named(tmp_path):
    clip = generate(1, SCENE)
    size = clip.frames.shape[2:0:-1]
    video = {"video": clip.frames, "points": (clip.xy + 0.5) / size, "occluded": ~clip.visible}
    for dataset, file, content in (
        ("tapvid-davis", "tapvid_davis.pkl", {"goat": video}),
        ("tapvid-rgb-stacking", "tapvid_rgb_stacking.pkl", [video]),
        ("tapvid-kinetics", "0000_of_0010.pkl", [video]),
        ("robotap", "robotap_split0.pkl", {"arm": video}),
    ):
        (tmp_path / dataset).mkdir()
        (tmp_path / dataset / file).write_bytes(pickle.dumps(content))
        clips, _ = clips_of(
            EvalCommand(model=("lk",), dataset=dataset, root=str(tmp_path / dataset), raster="own")
        )
        np.testing.assert_allclose(next(clips).xy, clip.xy, atol=1e-3)
    (tmp_path / "kubric" / "0" / "frames").mkdir(parents=True)
    for number, frame in enumerate(clip.frames):
        cv2.imwrite(str(tmp_path / "kubric" / "0" / "frames" / f"{number}.png"), frame[..., ::-1])
    np.save(
        tmp_path / "kubric" / "0" / "0.npy",
        {"coords": clip.xy, "visibility": ~clip.visible},
        allow_pickle=True,
    )
    clips, _ = clips_of(
        EvalCommand(model=("lk",), dataset="kubric", root=str(tmp_path / "kubric"), raster="own")
    )
    np.testing.assert_array_equal(next(clips).xy, clip.xy)


def test_videos_without_a_query_are_no_figure_and_leave_the_mean_alone(tmp_path, capsys):
    clip = generate(1, SCENE)
    size = clip.frames.shape[2:0:-1]
    video = {"video": clip.frames, "points": (clip.xy + 0.5) / size, "occluded": ~clip.visible}
    unseen = video | {"occluded": np.ones_like(clip.visible)}
    for name, content in (("some", {"a": video, "b": unseen}), ("none", {"b": unseen})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tapvid_davis.pkl").write_bytes(pickle.dumps(content))
    assert (
        tapdistill(
            ["eval", "--model", "lk", "--dataset", "tapvid-davis", "--root", str(tmp_path / "some")]
        )
        == 0
    )
    assert "tapvid-davis: 2 clips, 12 queries" in capsys.readouterr().out
    assert (
        tapdistill(
            ["eval", "--model", "lk", "--dataset", "tapvid-davis", "--root", str(tmp_path / "none")]
        )
        == 0
    )
    (row,) = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("lk ")
    ][:1]
    assert row == ["lk", "-", "-", "-"]


def test_a_flag_of_several_values_may_be_repeated(folder, capsys):
    npz = ["--dataset", "npz", "--root", str(folder), "--clips", "1"]
    assert tapdistill(["eval", "--model", "lk", *npz, "--model=flow"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("lk ", "flow "))] == [
        "lk",
        "flow",
    ] * 2


# --- what cannot be right


def test_an_empty_data_set_is_an_error(tmp_path, capsys):
    assert tapdistill(["eval", "--model", "lk", "--dataset", "npz", "--root", str(tmp_path)]) == 1
    assert "holds no file *.npz" in capsys.readouterr().err
    assert (
        tapdistill(
            ["eval", "--model", "lk", "--dataset", "npz", "--root", str(tmp_path / "nowhere")]
        )
        == 1
    )
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    (tmp_path / "tapvid_davis.pkl").write_bytes(pickle.dumps({}))
    assert (
        tapdistill(["eval", "--model", "lk", "--dataset", "tapvid-davis", "--root", str(tmp_path)])
        == 1
    )
    assert f"--root {tmp_path}: the data set holds no video" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arrays",
    [
        {"video": np.zeros((4, 8, 8, 3), np.uint8)},
        {
            "video": np.zeros((4, 8, 8, 3), np.uint8),
            "points": np.zeros((2, 5, 2)),
            "occluded": np.zeros((2, 5), bool),
        },
        {
            "video": np.zeros((4, 8, 8, 3)),
            "points": np.zeros((2, 4, 2)),
            "occluded": np.zeros((2, 4), bool),
        },
        {
            "video": np.array([{}], object),
            "points": np.zeros((2, 4, 2)),
            "occluded": np.zeros((2, 4), bool),
        },
    ],
)
def test_a_file_without_the_right_arrays_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ShardError, match=r"bad\.npz: not a test clip"):
        read_npz(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lk", "lk"], "name at least one tracker, each once"),
        (["--model", "lk", "--clips", "0"], "--clips 0: must be at least 1"),
        (["--model", "lk", "--seed", "-1"], "--seed -1: must be 0 or more"),
        (
            ["--model", "lk", "--dataset", "npz"],
            "--dataset npz: every data set but procedural is read from --root",
        ),
        (
            ["--model", "lk", "--root", "clips"],
            "--dataset procedural: every data set but procedural is read from --root",
        ),
        (
            ["--model", "lk", "--points", "single", "--mode", "predictor"],
            "--points single belongs to --mode benchmark",
        ),
        (
            ["--model", "lk", "--out", "nowhere/table.parquet"],
            "--out nowhere/table.parquet: there is no folder nowhere",
        ),
        (["--model", "lk", "--out", "c.npz"], "--out c.npz: name a file that ends in .parquet"),
        (["--model", "lk", "--local-grid", "4"], "--local-grid belongs to --points single"),
    ],
)
def test_flags_that_cannot_be_right_are_refused(arguments, message, capsys):
    assert tapdistill(["eval", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("query", [(0.5, 3, 3), (0, 64, 3), (-1, 3, 3), (0, np.nan, 3)])
def test_a_query_outside_its_clip_is_named_with_its_file(tmp_path, query):
    np.savez(
        tmp_path / "bad.npz",
        video=np.zeros((4, 48, 64, 3), np.uint8),
        points=np.ones((1, 4, 2)),
        occluded=np.zeros((1, 4), bool),
        queries=np.array([query], float),
    )
    said = r"bad\.npz: not a test clip: query 0 is .*x in -0\.5\.\.63\.5"
    with pytest.raises(ShardError, match=said):
        read_npz(tmp_path / "bad.npz")


def test_a_flag_is_true_or_false(tmp_path):
    np.savez(
        tmp_path / "bad.npz",
        video=np.zeros((4, 48, 64, 3), np.uint8),
        points=np.ones((1, 4, 2)),
        occluded=np.full((1, 4), 0.5),
    )
    with pytest.raises(ShardError, match="occluded is not True or False everywhere"):
        read_npz(tmp_path / "bad.npz")
