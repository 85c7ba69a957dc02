"""Rounds: a trained student joins the teachers, labels again, and another student learns from all
of them."""

from __future__ import annotations

import shutil

import pytest

import teachers
from benchmarks.harness.processes import FLAGS
from labeler.io.storage import Storage
from labeler.shards.records import latest_records
from pipelines.cli import run as tapdistill
from student.data.reader import open_clips
from teachers.errors import ConfigError

SIZES = (
    *("--frames", "8", "--height", "64", "--width", "64", "--queries", "6"),
    *("--batch", "1", "--iterations", "2", "--device", "cpu", "--calibration-clips", "1"),
)
SCRATCH = ("--init", "scratch", "--preset", "mini", "--procedural", "0.5", "--recompute", "False")


@pytest.mark.slow
def test_a_student_labels_under_its_own_name_and_the_next_one_learns_from_it(
    dataset, videos, tmp_path
):
    labels = str(shutil.copytree(dataset.folder, tmp_path / "labels"))
    before = {record.unit: record.tar for record in latest_records(Storage(labels))}

    first = tmp_path / "round1"
    assert (
        tapdistill(
            [
                *("train", "--data", labels, "--policy", "random", *SIZES, *SCRATCH),
                *("--steps", "2", "--out", str(first)),
            ]
        )
        == 0
    )
    student = first / "student.safetensors"
    again = ["label", str(videos), "--out", labels, *FLAGS, "--device", "cpu"]
    assert tapdistill([*again, "--teachers", "round-1", "--checkpoint", f"round-1={student}"]) == 0

    records = latest_records(Storage(labels))
    assert {name for record in records for name in record.teachers} == {"still", "near", "round-1"}
    assert all(
        record.teachers["round-1"]["architecture"].startswith("CoTracker3 offline")
        for record in records
    )
    assert all(record.tar != before[record.unit] for record in records)
    clips, _ = open_clips((labels,), (48, 64))
    assert {clip.teachers for clip in clips} == {("near", "round-1", "still")}

    second = tmp_path / "round2"
    begin = ["--init", str(student), "--steps", "2", "--out", str(second)]
    assert (
        tapdistill(
            [
                "train",
                "--data",
                labels,
                *SIZES,
                *begin,
                "--policy",
                "random-agreeing",
                "--agreement.tau-px",
                "20",
            ]
        )
        == 0
    )
    assert (second / "student.safetensors").is_file()


def test_a_name_that_no_file_explains_is_no_teacher(tmp_path):
    with pytest.raises(ConfigError, match="no teacher 'round-1'"):
        teachers.load("round-1", checkpoint=str(tmp_path / "gone.safetensors"))
