"""The demo's second half: a mini student learns from the labelled shards and procedural clips for a minute, and is scored.

A minute on two cores is far too short for a good tracker; the point is that every part of the way is the real one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from labeler.threads import one_thread
from pipelines.train import run_training
from student.data_config import DataConfig
from student.train_config import TrainConfig
from teachers import Teacher
from teachers.cotracker3 import CoTracker3OfflineTeacher

SIDE_PX, FRAMES, POINTS = 64, 8, 64
"""Of the clips that the student learns from: as small as still teaches it something in a minute."""
STEPS, LEARNING_RATE = 140, 3e-3
UNTRAINED, TRAINED = "student, untrained", "student, trained"


def training(labels: str) -> TrainConfig:
    """A mini CoTracker3 from random weights: a quarter of its clips from the shards at `labels`, the rest procedural."""
    data = DataConfig(
        data=(labels,), policy="random-agreeing", procedural=0.75, frames=FRAMES, height=SIDE_PX, width=SIDE_PX, queries=POINTS,
        batch=1, readers=1,
    )  # fmt: skip
    config = TrainConfig.from_scratch(data, STEPS, LEARNING_RATE, iterations=3, recompute=False, checkpoint_every=60)
    return replace(config, schedule=replace(config.schedule, warm_up=0.02))


def students(labels: str, out: Path) -> dict[str, Teacher]:
    """Train in the folder `out`, or go on there; the student before and after, as trackers."""
    with one_thread():  # a network this small is no faster on two; the other core draws the next clips
        result = run_training(training(labels), out)
    return {UNTRAINED: _tracker("random"), TRAINED: _tracker(str(result.weights))}


def _tracker(checkpoint: str) -> Teacher:
    """The student as a tracker that sees clips at the size that it was trained for."""
    return CoTracker3OfflineTeacher(
        name="student", checkpoint=checkpoint, device="cpu", mode="label", preset="mini", resolution=(SIDE_PX, SIDE_PX)
    )
