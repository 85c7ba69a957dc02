"""What is chosen of a trained student: the way to refine positions that fits the calibration clips
best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import teachers
from student.clip import TestClip
from student.data.config import DataConfig
from student.training.config import TrainConfig
from student.training.events import Calibrated
from student.training.fitting import fit
from student.training.schedule import ScheduleConfig
from student.training.students import STUDENTS
from student.training.train import first_network, train
from teachers import Tracks, VisibleRule
from teachers.errors import ConfigError
from teachers.tapir.config import TapirConfig
from teachers.tapir.network import Tapir

FRAMES = 81
WAYS = [{}, {"scales": (1.0, 2.0)}, {"scales": (1.0, 2.0), "answer": "finest"}]
DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


@dataclass
class Info:
    rule: VisibleRule


class Off:
    """A teacher of still points that is `off_px` px off in each frame."""

    def __init__(self, off_px: np.ndarray) -> None:
        self.off_px = off_px
        self.info = Info(VisibleRule("v", 0.5))

    def track(self, frames: np.ndarray, queries: np.ndarray, seed: int = 0) -> Tracks:
        xy = np.broadcast_to(queries[:, None, 1:], (len(queries), len(frames), 2)).copy()
        xy[..., 0] += self.off_px
        return Tracks(xy, np.ones(xy.shape[:2], np.float32), np.full(xy.shape[:2], np.nan))


def chosen(*offs: np.ndarray) -> Any:
    """What fits of students that are so much off, in the order of `WAYS`; the queries stand still
    and are always visible."""
    queries = np.float32([[0, 100, 100], [0, 120, 90]])
    xy = np.broadcast_to(queries[:, None, 1:], (2, FRAMES, 2)).copy()
    shown = np.ones((2, FRAMES), bool)
    clips = [TestClip("still", np.zeros((FRAMES, 256, 256, 3), np.uint8), queries, xy, shown)]
    students = [Off(each) for each in offs]
    events = fit(
        lambda way: students[WAYS.index(way)], WAYS[: len(offs)], lambda whole: (clips, [shown]), 7
    )
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


def off(*parts: tuple[float, int]) -> np.ndarray:
    """The query's own frame, then so many px in so many frames each."""
    return np.concatenate([[0.0], *(np.full(count, px) for px, count in parts)])


def test_the_way_with_the_highest_jaccard_is_chosen():
    found = chosen(off((1.5, 80)), off((0.5, 60), (1.5, 20)), off((0.5, 40), (1.5, 40)))
    assert found.refinement == WAYS[1]
    within_1_px = [0, 60 / 100, 40 / 120]
    expected = [(share + 4) / 5 for share in within_1_px]
    assert [jaccard for _, jaccard in found.tried] == pytest.approx(expected)
    assert found.calibration.jaccard == pytest.approx(expected[1])
    assert "refined with scales 1.0 2.0: AJ 92.0, was 80.0; visible where v > 0.5" in str(found)


def test_the_way_of_the_training_stays_if_none_is_better_by_a_fifth_of_a_point():
    """One frame of 80 within 1 px more is 0.13 points of AJ; two are 0.25."""
    far = off((1.5, FRAMES - 1))
    assert chosen(far, off((0.5, 1), (1.5, FRAMES - 2))).refinement == {}
    assert chosen(far, off((0.5, 2), (1.5, FRAMES - 3))).refinement == WAYS[1]


def test_tapir_may_refine_on_twice_the_raster_and_answer_with_the_finest():
    student = STUDENTS["tapir"]
    mini = first_network(TrainConfig(init="tapir-mini", student="tapir", data=DATA))
    own = (1.0, 1.5)
    assert mini.config.scales == own
    assert student.refinements(mini) == [
        {},
        {"answer": "finest"},
        {"scales": (*own, 2.0)},
        {"scales": (*own, 2.0), "answer": "finest"},
    ]
    mini.config = replace(mini.config, scales=(*own, 2.0), answer="finest")
    assert student.refinements(mini) == [{}, {"answer": "mean"}]
    published = Tapir(TapirConfig.mini())
    assert student.refinements(published) == [
        {},
        {"scales": (1.0, 2.0)},
        {"scales": (1.0, 2.0), "answer": "finest"},
    ]
    for kind, other in STUDENTS.items():
        if not other.several_refinements:
            assert other.refinements(None) == [{}]
            with pytest.raises(ConfigError, match=f"a {kind} student has one way"):
                TrainConfig(
                    init="scratch",
                    student=kind,
                    data=DATA,
                    visibility="consensus",
                    choose_refinement=True,
                )


def test_the_student_is_exported_with_the_way_that_was_chosen(tmp_path, monkeypatch):
    """No weight depends on it, and its file is a teacher that refines so."""
    monkeypatch.setattr("student.training.fitting.LEAST_GAIN", -1.0)
    settings = TrainConfig(
        student="tapir",
        data=DATA,
        init="tapir-mini",
        schedule=ScheduleConfig(steps=1, learning_rate=1e-6),
        device="cpu",
        calibration_clips=1,
        choose_refinement=True,
    )
    events: list[object] = []
    result = train(settings, tmp_path, watch=events.append)
    (fitted,) = (event.fitted for event in events if isinstance(event, Calibrated))
    assert len(fitted.tried) == 4
    best = max(jaccard for _, jaccard in fitted.tried)
    assert dict(fitted.refinement) in [way for way, jaccard in fitted.tried if jaccard == best]
    teacher = teachers.load("tapir", checkpoint=str(result.weights), device="cpu")
    assert teacher.model.config == replace(
        TapirConfig.mini(scales=(1.0, 1.5), path=True), **fitted.refinement
    )


def test_without_calibration_clips_there_is_nothing_to_choose_on():
    with pytest.raises(ConfigError, match="calibration_clips"):
        TrainConfig(init="scratch", data=DATA, calibration_clips=0, choose_refinement=True)
