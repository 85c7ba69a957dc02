"""Small trainings: flags of a mini run, and weights that must be the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

CLIPS = (
    *("--procedural", "1", "--frames", "4", "--height", "64", "--width", "64"),
    *("--queries", "6", "--device", "cpu", "--checkpoint-every", "1"),
)
"""Procedural clips, so small that a step takes a moment."""
SCRATCH = ("--init", "scratch", "--preset", "mini", "--iterations", "2")
"""A mini CoTracker3 from random weights."""


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
