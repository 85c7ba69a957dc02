"""How fast the loader alone reads mini shards, against the pace of a mini student that trains on
them.

    python -m benchmarks.loader

Two procedural videos of 80 frames, 640 x 272 px (the size of the demo's largest clip), are labelled
by two classical teachers. Then batches of two clips of 24 frames, 192 x 256 px, 64 queries are
read, from shards alone and half of them procedural. The trainer's pace is a forward and backward
pass on such a batch, in the same process, while nothing is read. The goal is a loader 10 times as
fast.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import torch

from benchmarks.harness.training import crops, labelled
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.synth.scene import SynthConfig
from student.training.config import TrainConfig
from student.training.step import add_gradient
from student.training.students import STUDENTS
from student.training.train import first_network

VIDEOS, BATCHES, STEPS = 2, 12, 2
GOAL = 10


def main() -> None:
    threads = torch.get_num_threads()
    print(f"{platform.machine()}, {threads} threads, Python {platform.python_version()}, ", end="")
    print(
        ", ".join(
            f"{name} {version(name)}"
            for name in ("torch", "webdataset", "av", "numpy", "opencv-python-headless")
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        world = SynthConfig(frames=80, height=272, width=640, points=0)
        shards = labelled(Path(folder), VIDEOS, world, teachers=("lk", "flow"))
        config = crops(shards, clips=2)
        train_pace = trainer_pace(config)
        print(f"trainer        {train_pace:7.2f} clips/s")
        for share in (0.0, 0.5):
            for readers in (0, 2):
                pace = loader_pace(replace(config, procedural=share, readers=readers))
                ratio = pace / train_pace
                print(
                    f"{share:4.0%} procedural, {readers} readers {pace:7.2f} clips/s, {ratio:6.1f} "
                    f"times the trainer (goal {GOAL})"
                )


def trainer_pace(config: DataConfig) -> float:
    """Clips a second through forward and backward pass of a mini student."""
    recipe = TrainConfig.from_scratch(replace(config, procedural=1.0), steps=STEPS)
    student, model, batch = (
        STUDENTS[recipe.student],
        first_network(recipe),
        next(batches(config, seed=0)),
    )

    def step() -> None:
        add_gradient(student, model, batch, recipe, parts=1, progress=0.0)

    step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS * config.batch / (time.perf_counter() - started)


def loader_pace(config: DataConfig) -> float:
    """Clips a second once the readers run and their queues, which were filled for nothing, are
    empty."""
    stream: Iterator[Batch] = batches(config, seed=0)
    for _ in islice(stream, 1 + 2 * config.readers):
        pass
    started = time.perf_counter()
    for _ in islice(stream, BATCHES):
        pass
    return BATCHES * config.batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
