"""The demo's second half: a mini student learns from the labelled shards for half a minute, and is scored.

It starts from the mini CoTracker3 that is one of the teachers, as in the paper; that teacher's score is the student's before. Half a minute
on five clips is far too short for a better tracker; the point is that every part of the way is the real one.
"""

from __future__ import annotations

from pathlib import Path

from labeler.threads import one_thread
from pipelines.train import run_training
from student.data_config import DataConfig
from student.schedule import ScheduleConfig
from student.train_config import TrainConfig
from teachers import Teacher
from teachers.cotracker3 import CoTracker3OfflineTeacher
from teachers.registry import entry_of

START = "cotracker3-offline-mini"
STUDENT = "student"
HEIGHT, WIDTH, FRAMES, POINTS = 128, 160, 16, 64
STEPS, LEARNING_RATE = 12, 5e-5


def training(labels: str) -> TrainConfig:
    """The published recipe in small: the shards at `labels` alone, the visibility head frozen, a cosine without warm-up."""
    data = DataConfig(
        data=(labels,),
        policy="random-agreeing",
        frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        queries=POINTS,
        batch=2,
        at_once=2,
        readers=1,
    )
    schedule = ScheduleConfig(steps=STEPS, learning_rate=LEARNING_RATE)
    return TrainConfig(
        data=data,
        init=str(entry_of(START).shipped_checkpoint),
        schedule=schedule,
        preset="mini",
        recompute=False,
        checkpoint_every=STEPS,
    )


def student(labels: str, out: Path) -> Teacher:
    """Train in the folder `out`, or go on there; the student as a tracker."""
    with one_thread():  # a network this small is no faster on two; the other core draws the next clips
        result = run_training(training(labels), out)
    return CoTracker3OfflineTeacher(name=STUDENT, checkpoint=str(result.weights), device="cpu", mode="label")
