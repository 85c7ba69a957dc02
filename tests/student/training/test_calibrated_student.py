"""A student is exported with the visible rule that fits it."""

from __future__ import annotations

import teachers
from student.data.config import DataConfig
from student.evaluation.calibration import calibrated
from student.evaluation.evaluate import track_clips
from student.training.config import TrainConfig
from student.training.events import Calibrated
from student.training.train import calibration_clips, train
from teachers.checkpoints.files import stored_rule
from tests.support.training import assert_same_weights

DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


def config(clips: int) -> TrainConfig:
    return TrainConfig.from_scratch(
        DATA, 2, iterations=2, device="cpu", checkpoint_every=2, calibration_clips=clips
    )


def test_the_student_is_exported_with_the_visible_rule_that_fits_it(tmp_path):
    events: list[object] = []
    result = train(config(2), tmp_path / "a", watch=events.append)
    assert type(events[-1]) is Calibrated
    found = events[-1].calibration
    made = calibration_clips(config(2))
    assert [clip.frames.shape for clip in made] == [(4, 64, 64, 3)] * 2
    teacher = teachers.load(
        "cotracker3-offline", checkpoint=str(result.weights), device="cpu", mode="label"
    )
    assert teacher.info.rule == found.rule
    tracks, _ = track_clips(teacher, made)
    assert calibrated(tracks, made, teacher.published_rule) == found

    without = train(config(0), tmp_path / "b")
    assert_same_weights(result.weights, without.weights)
    assert stored_rule(without.weights) is None
