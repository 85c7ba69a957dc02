"""Small trainings: flags of a mini run, losses by hand, and weights that must be the same."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from student.data.batch import Batch
from student.data.config import DataConfig
from student.training.events import Measuring
from student.training.losses import TapirLossConfig

CLIPS = (
    *("--procedural", "1", "--frames", "4", "--height", "64", "--width", "64"),
    *("--queries", "6", "--device", "cpu", "--checkpoint-every", "1"),
    *("--calibration-clips", "1"),
)
"""Procedural clips, so small that a step takes a moment."""
SCRATCH = ("--init", "scratch", "--preset", "mini", "--iterations", "2")
"""A mini CoTracker3 from random weights."""


def small_data(folder: Path, **changes: Any) -> DataConfig:
    """Parts of the clips in a small data set, one a batch."""
    small: dict[str, Any] = {"data": (str(folder),), "frames": 8, "height": 32, "width": 48}
    return DataConfig(**(small | {"queries": 4, "batch": 1} | changes))


def environment() -> dict[str, str]:
    """Of a process that shares the cores with others."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def two_processes(*arguments: str) -> list[str]:
    """A program as two processes under torchrun."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    return [sys.executable, *launcher, *arguments]


def train_as_two(out: Path, *flags: str) -> subprocess.Popen:
    """`tapdistill train` as two processes; what they say is in stdout."""
    command = two_processes("-m", "pipelines.cli", "train", "--out", str(out), *flags)
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit."""
    weights, others = load_file(one), load_file(other)
    assert weights.keys() == others.keys()
    assert [key for key, value in weights.items() if not torch.equal(value, others[key])] == []


def assert_close_weights(one: Path, other: Path) -> None:
    """Rounding in the gradient is divided by its own size in AdamW's first steps, so a few weights
    may differ by a part of a step."""
    weights, others = load_file(one), load_file(other)
    assert weights.keys() == others.keys()
    differences = torch.cat(
        [(value - others[key]).abs().flatten() for key, value in weights.items()]
    )
    assert differences.quantile(0.99) < 1e-6
    assert differences.max() < 1e-3


def tapir_losses_by_hand(steps: Tensor, batch: Batch, loss: TapirLossConfig) -> dict[str, float]:
    """Section 3.4 of TAPIR's paper, number by number; px are those of the crop."""
    sums = dict.fromkeys(("position", "occlusion", "distance"), 0.0)
    points, frames = batch.visible.shape[1:]

    def cross_entropy(logit: float, target: bool) -> float:
        return math.log1p(math.exp(-logit if target else logit))

    for step in steps[:, 0].tolist():
        for n in range(points):
            for t in range(frames):
                x, y, occlusion, distance = step[n][t]
                visible = bool(batch.visible[0, n, t])
                error = math.dist((x - 0.5, y - 0.5), batch.xy[0, n, t].tolist())
                sums["occlusion"] += cross_entropy(occlusion, not visible)
                if visible:
                    knee = loss.huber_px
                    huber = error**2 / 2 if error < knee else knee * (error - knee / 2)
                    sums["position"] += loss.position * huber
                    sums["distance"] += cross_entropy(distance, error > 6)
    return {name: value / (points * frames) for name, value in sums.items()}


def kinds_of(events: Sequence[object]) -> list[type]:
    """Of the events of a training, without those that say how far a measurement is."""
    return [type(event) for event in events if not isinstance(event, Measuring)]
