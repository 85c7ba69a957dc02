"""Two GPUs: what two processes on a GPU each learn is what one learns. Skips without them."""

from __future__ import annotations

import subprocess

import pytest
import torch

from pipelines.cli import run as tapdistill
from tests.support.training import CLIPS, SCRATCH, assert_close_weights, environment, two_processes

FLAGS = (*CLIPS, *SCRATCH, "--batch", "2", "--steps", "4")
ON_GPUS = ("--device", "cuda", "--precision", "float32")
"""The later --device counts."""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_learn_what_one_does(tmp_path):
    one, two, ray = (tmp_path / name for name in ("one", "two", "ray"))
    flags = ["train", *FLAGS, *ON_GPUS]
    assert tapdistill([*flags, "--out", str(one)]) == 0
    command = two_processes("-m", "pipelines.cli", *flags, "--out", str(two))
    subprocess.run(command, env=environment(), check=True)
    assert_close_weights(one / "student.safetensors", two / "student.safetensors")
    assert tapdistill([*flags, "--workers", "2", "--out", str(ray)]) == 0
    assert_close_weights(one / "student.safetensors", ray / "student.safetensors")
