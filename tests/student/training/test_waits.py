"""Waits: a training step asks the GPU once, for its losses, the norm of the gradient, and whether
all answers were finite.

Counted on a pretended GPU, as in `tests.teachers.test_waits`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.jobs import ROOT

pytestmark = pytest.mark.slow

COUNT = """
import json, sys, tempfile
from pathlib import Path
from tests.support.one_cuda_device import load
why = load()
if why:
    print(json.dumps(why))
    raise SystemExit
import torch
from student.data.config import DataConfig
from student.training.config import TrainConfig
from student.training.processes import ALONE
from student.training.train import _Run
from tests.support.pretended_gpu import pretended_gpu

def run(device):
    data = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=2, at_once=1)
    given = {"iterations": 2, "precision": "float32", "recompute": False}
    config = TrainConfig.from_scratch(data, 4, device=device, **given)
    return _Run(config, Path(tempfile.mkdtemp()), False, ALONE)

found = {}
with pretended_gpu(gradients=True) as seen:
    there = run("cuda:0")
    stream = there._stream()
    for step in (1, 2):
        seen.waits.clear()
        done, *_ = there._one_step(stream)
        found[f"waits {step}"] = dict(seen.waits)
    found["there"] = done.losses | {"norm": done.gradient_norm}
    with torch.no_grad():  # from now on no answer is a number
        next(there.model.parameters()).mul_(float("nan"))
    skipped, batch, _ = there._one_step(stream)
    found["skipped"] = len(skipped.keys), there.step
here = run("cpu")
stream = here._stream()
for step in (1, 2):
    done, *_ = here._one_step(stream)
found["here"] = done.losses | {"norm": done.gradient_norm}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counted():
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    done = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_a_step_waits_for_the_gpu_once(counted):
    for step in (1, 2):
        waits = counted[f"waits {step}"]
        assert list(waits.values()) == [1], waits
        assert "student/training/train.py" in next(iter(waits))


def test_its_losses_are_those_of_a_cpu(counted):
    assert counted["there"] == pytest.approx(counted["here"], rel=1e-4)


def test_answers_that_are_no_numbers_are_found_all_the_same(counted):
    assert counted["skipped"] == [2, 2]  # both clips are named, and no step was taken
