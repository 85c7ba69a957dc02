"""`tapdistill eval`: several trackers side by side, on procedural clips and on npz files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import teachers
from pipelines.cli import run as tapdistill
from pipelines.evaluate import load_tracker
from student.checkpoint import Checkpoints
from student.evaluate import compare, with_interval
from student.metrics import score
from student.synth import SynthConfig, generate, save
from student.testsets import procedural_clips, read_npz
from teachers.cotracker3 import CoTracker3, CoTracker3Config
from teachers.errors import CheckpointError, ConfigError, ShardError

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
    return str(Checkpoints(tmp_path, keep=1).export("student", CoTracker3(config), {}))


def test_every_tracker_has_a_row_for_every_clip(folder, student, tmp_path, capsys):
    table = tmp_path / "scores.parquet"
    assert tapdistill(["eval", "--model", "lk", student, "--dataset", "npz", "--root", str(folder), "--table", str(table)]) == 0
    rows = pd.read_parquet(table)
    assert list(zip(rows["model"], rows["clip"], strict=True)) == [
        ("lk", "test-00000"), (student, "test-00000"), ("lk", "test-00001"), (student, "test-00001"),
    ]  # fmt: skip
    said = capsys.readouterr().out
    for word in ("lk", "AJ", "delta_avg", "OA", "within 1 px", "within 16 px", "survival", "median error", "query mode first"):
        assert word in said
    mean, low, high = with_interval(100 * rows[rows["model"] == "lk"]["AJ"])
    assert f"{mean:.1f} ({low:.1f}-{high:.1f})" in said


def test_the_figures_are_those_of_the_metrics(folder):
    (path, *_) = sorted(folder.glob("*.npz"))
    clip, tracker = read_npz(path), teachers.load("lk")
    (row,) = compare({"lk": tracker}, [clip]).to_dict("records")
    found = tracker.track(clip.frames, clip.queries)
    expected = score(clip.queries, clip.xy, clip.visible, found.xy, tracker.info.rule(found), clip.frames.shape[1:3])
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


def test_a_model_is_a_name_a_file_or_both(student):
    assert load_tracker("lk").info.name == "lk"
    for text in (student, f"cotracker3-offline={student}"):
        assert load_tracker(text, device="cpu").info.architecture == "CoTracker3 offline, 0.9 M parameters"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nobody", ConfigError, "--model nobody: there are .*lk.*; or give a file, or NAME=CHECKPOINT"),
        ("nowhere.safetensors", CheckpointError, r"nowhere\.safetensors: no such checkpoint file"),
        ("cotracker3-offline=nowhere.pth", CheckpointError, r"nowhere\.pth: no such checkpoint file"),
        ("cotracker3-offline", CheckpointError, "has no weights: get its file from"),
    ],
)
def test_a_model_that_is_not_there_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        load_tracker(text, device="cpu")


def test_a_file_that_does_not_say_what_it_is_needs_a_name(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"whatever")
    with pytest.raises(CheckpointError, match=r"does not say which network it is of: write NAME=.*weights\.pth"):
        load_tracker(str(path))


# --- what cannot be right


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert tapdistill(["eval", "--model", "lk", "--dataset", "npz", "--root", str(tmp_path)]) == 1
    assert "holds no npz file" in capsys.readouterr().err
    assert tapdistill(["eval", "--model", "lk", "--dataset", "npz", "--root", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arrays",
    [
        {"video": np.zeros((4, 8, 8, 3), np.uint8)},
        {"video": np.zeros((4, 8, 8, 3), np.uint8), "points": np.zeros((2, 5, 2)), "occluded": np.zeros((2, 5), bool)},
        {"video": np.zeros((4, 8, 8, 3)), "points": np.zeros((2, 4, 2)), "occluded": np.zeros((2, 4), bool)},
        {"video": np.array([{}], object), "points": np.zeros((2, 4, 2)), "occluded": np.zeros((2, 4), bool)},
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
        (["--model", "lk", "--dataset", "npz"], "--root FOLDER belongs to --dataset npz"),
        (["--model", "lk", "--root", "clips"], "--root FOLDER belongs to --dataset npz"),
    ],
)
def test_flags_that_cannot_be_right_are_refused(arguments, message, capsys):
    assert tapdistill(["eval", *arguments]) == 1
    assert message in capsys.readouterr().err
