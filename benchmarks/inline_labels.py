"""A training step with stored labels against the same step with a teacher inside it.

    python -m benchmarks.inline_labels

Procedural videos are labelled once by a mini CoTracker3 (random weights: its time is that of
trained ones; classical teachers would be quicker than any network). Then the same student takes the
same number of steps on the same clips, first with the teacher inside the step (`--labels inline`),
then from the stored tracks. Saved is what the step gets shorter by, as a share of the teacher's own
time inside it; reading the stored tracks is what is paid for it. Steps of the two ways alternate,
so that a busy machine slows both. The goal is 90 %.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.harness.training import crops, labelled
from labeler.fingerprint import one_thread
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.inline import InlineLabels
from student.data.mixture import batches
from student.synth.scene import SynthConfig
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.schedule import Optimiser
from student.training.step import add_gradient
from student.training.students import STUDENTS
from student.training.train import first_network

TEACHER = "cotracker3-offline"
VIDEOS, STEPS = 2, 8
GOAL = 0.9


def main() -> None:
    print(
        f"{platform.machine()}, 1 thread, Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder, one_thread():
        weights = teacher_file(Path(folder))
        teacher = {"teachers": (TEACHER,), "checkpoint": (f"{TEACHER}={weights}",)}
        world = SynthConfig(frames=40, height=192, width=256, points=0)
        shards = labelled(Path(folder), VIDEOS, world, device="cpu", **teacher)
        stored = crops(shards, clips=1)
        inline = replace(
            stored, labels="inline", teachers=(TEACHER,), checkpoint=(f"{TEACHER}={weights}",)
        )
        ways = {"inline": Way(inline, weights), "stored": Way(stored, weights)}
        for way in ways.values():
            way.step()  # the first one starts everything
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        teacher: list[float] = []
        for _ in range(STEPS):
            before = ways["inline"].teacher_s
            for name, way in ways.items():
                seconds[name].append(way.step())
            teacher.append(ways["inline"].teacher_s - before)
    step = {name: median(times) for name, times in seconds.items()}
    saved = median(
        one - other for one, other in zip(seconds["inline"], seconds["stored"], strict=True)
    )
    print(
        f"step with the teacher inside   {step['inline']:6.2f} s, of which the teacher "
        f"{median(teacher):6.2f} s (medians of {STEPS})"
    )
    print(f"step with stored labels        {step['stored']:6.2f} s")
    print(
        f"saved {saved:.2f} s: {saved / median(teacher):.0%} of the teacher's time (goal "
        f"{GOAL:.0%})"
    )


def teacher_file(folder: Path) -> Path:
    """A mini CoTracker3's file."""
    student = STUDENTS["offline"]
    torch.manual_seed(0)
    return Checkpoints(folder, keep=1).export(
        "teacher", student.network(student.presets["mini"]()), student.teacher, {}
    )


class Way:
    """Training with one kind of labels."""

    def __init__(self, data: DataConfig, weights: Path) -> None:
        self.config = TrainConfig(data=data, init=str(weights), device="cpu")
        self.student = STUDENTS["offline"]
        self.model = first_network(self.config)
        self.optimiser = Optimiser(self.model, self.config.schedule)
        self.inline = (
            InlineLabels.of(data, torch.device("cpu")) if data.labels == "inline" else None
        )
        self.stream: Iterator[Batch] = batches(data, seed=0)

    @property
    def teacher_s(self) -> float:
        return self.inline.seconds if self.inline else 0.0

    def step(self) -> float:
        """Read a batch, learn from it; the seconds that took."""
        began = time.perf_counter()
        batch = next(self.stream)
        batch = self.inline.label(batch) if self.inline else batch
        add_gradient(self.student, self.model, batch, self.config, parts=1, progress=0.0)
        self.optimiser.step()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
