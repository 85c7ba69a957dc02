"""Evaluation during training: the figures of `tapdistill eval`, and the same weights as without."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import teachers
from student.data.config import DataConfig
from student.evaluation.evaluate import FIGURES, compare
from student.evaluation.tapvid import tapvid_clips
from student.evaluation.testsets import on_tapvid_raster
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.evaluation import sets_of
from student.training.events import Evaluated, Measuring, Saved
from student.training.train import train
from teachers.errors import ConfigError, ShardError, TransientError
from tests.support.training import assert_same_weights

DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


def config(**settings: Any) -> TrainConfig:
    given = {"iterations": 1, "device": "cpu", "calibration_clips": 0} | settings
    return TrainConfig.from_scratch(DATA, 2, **given)


@pytest.fixture
def davis(tmp_path):
    """Two videos of noise, in the layout of TAP-Vid's file."""
    draw = np.random.default_rng(0)
    videos = {
        name: {
            "video": draw.integers(0, 256, (5, 32, 48, 3), np.uint8),
            "points": draw.random((3, 5, 2)),
            "occluded": draw.random((3, 5)) < 0.3,
        }
        for name in ("goat", "bmx")
    }
    path = tmp_path / "tapvid_davis.pkl"
    path.write_bytes(pickle.dumps(videos))
    return path


def test_a_student_is_scored_on_a_published_set_and_learns_the_same(tmp_path, davis):
    told: list[object] = []
    given = config(eval_every=1, eval_data=(f"tapvid-davis={davis}",))
    result = train(given, tmp_path / "scored", watch=told.append)
    plain = train(config(), tmp_path / "plain")
    assert_same_weights(plain.weights, result.weights)

    student = teachers.load(
        "cotracker3-offline", checkpoint=str(result.weights), device="cpu", mode="benchmark"
    )
    clips = map(on_tapvid_raster, tapvid_clips("tapvid-davis", str(davis)))
    figures = compare({"student": student}, clips)[list(FIGURES)].mean().to_dict()
    every = figures | {f"tapvid-davis/{name}": value for name, value in figures.items()}
    assert result.figures == pytest.approx(every)
    assert [event.step for event in told if isinstance(event, Evaluated)] == [1, 2]
    measured = [event for event in told if isinstance(event, Measuring) and event.step == 2]
    assert [event.done for event in measured] == [0, 1, 2]
    assert {event.what for event in measured} == {"scoring on tapvid-davis"}
    curves = EventAccumulator(str(tmp_path / "scored" / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("eval/tapvid-davis/AJ")] == [1, 2]

    # a run may go on with other test sets, or with none
    train(config(), tmp_path / "scored")


def test_a_set_without_a_file_is_refused_before_the_first_step(tmp_path):
    told: list[object] = []
    given = config(eval_every=1, eval_data=(f"robotap={tmp_path / 'none'}",))
    with pytest.raises(ShardError, match="none"):
        train(given, tmp_path / "out", watch=told.append)
    assert not told


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("davis=x.pkl",), r"eval_data = 'davis=x.pkl': give DATASET=FILE"),
        (("tapvid-davis",), "give DATASET=FILE"),
        (("robotap=a", "robotap=b"), "robotap is there twice"),
    ],
)
def test_sets_are_named_with_their_files(texts, message):
    with pytest.raises(ConfigError, match=message):
        sets_of(texts)


def test_a_file_may_have_an_equals_sign_and_needs_an_interval():
    assert sets_of(["robotap=s3://bucket/a=b"]) == {"robotap": "s3://bucket/a=b"}
    with pytest.raises(ConfigError, match="eval_every"):
        config(eval_data=("robotap=x",))
    with pytest.raises(ConfigError, match="eval_most"):
        config(eval_every=1, eval_data=("robotap=x",), eval_most=0)


def test_an_evaluation_that_fails_costs_no_step(tmp_path, monkeypatch):
    def gone(*_):
        raise TransientError("the test clips are gone")

    with monkeypatch.context() as patched:
        patched.setattr("student.training.train.procedural_clips", gone)
        with pytest.raises(TransientError, match="are gone"):
            train(config(eval_every=2, eval_clips=1), tmp_path)
    assert Checkpoints(tmp_path, keep=1).latest().step == 2
    # and it is made up for, once
    for evaluations in (1, 0):
        told: list[object] = []
        result = train(config(eval_every=2, eval_clips=1), tmp_path, watch=told.append)
        assert sum(isinstance(event, Evaluated) for event in told) == evaluations
        assert set(result.figures) == set(FIGURES)


@pytest.mark.parametrize(("clips", "best"), [(1, [True, False]), (2, [True, True, False])])
def test_figures_of_other_clips_are_not_compared(clips, best, tmp_path, monkeypatch):
    """The evaluations after the first are worse, and of as many clips; or of others, on which the
    weights of the first step are scored again."""
    figures = iter([0.9, 0.2, 0.1])

    def scored(tracks, rule, clips):
        return pd.DataFrame([dict.fromkeys(("AJ", "delta_avg", "OA"), next(figures))])

    def stop(event: object) -> None:
        events.append(event)
        if isinstance(event, Saved) and len([e for e in events if isinstance(e, Saved)]) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("student.training.evaluation.score_tracks", scored)
    monkeypatch.setattr("student.training.train.procedural_clips", lambda count: [])
    events: list[object] = []
    given = {"checkpoint_every": 1, "eval_every": 1}
    with pytest.raises(KeyboardInterrupt):
        train(config(**given, eval_clips=1), tmp_path, watch=stop)
    train(config(**given, eval_clips=clips), tmp_path, watch=events.append)
    assert [event.best for event in events if isinstance(event, Evaluated)] == best
