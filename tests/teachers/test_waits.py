"""Waits: a teacher asks the GPU for its tracks, once, and otherwise never waits for it.

Counted on a pretended GPU (`tests.support.pretended_gpu`), in a process of its own: it needs a
compiler, and a torch that has not been imported yet.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.jobs import ROOT
from tests.support.slow import fast_where

TEACHERS = (
    "cotracker3-offline",
    "cotracker3-online",
    "cotracker2",
    "tapir",
    "bootstapir",
    "locotrack-base",
    "tapnext",
    "alltracker",
    "xfeat",
)
COUNT = """
import json, sys
from tests.support.one_cuda_device import load
why = load()
if why:
    print(json.dumps(why))
    raise SystemExit
import numpy as np
import teachers
from tests.support.pretended_gpu import pretended_gpu

draw = np.random.default_rng(0)
frames = draw.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
queries = np.float32([[0, 20, 30], [9, 40, 20], [4, 31.5, 17]])
found = {}
for name in sys.argv[1:]:
    given = {"checkpoint": "random", "mode": "label", "preset": "mini"}
    with pretended_gpu() as seen:
        teacher = teachers.load(name, device="cuda:0", **given)
        loading = sum(seen.copies.values())
        seen.waits.clear(), seen.copies.clear()
        there = teacher.track(frames, queries, seed=1)
    here = teachers.load(name, device="cpu", **given).track(frames, queries, seed=1)
    apart = float(np.nanmax(np.abs(there.xy - here.xy)))
    waits, copies = dict(seen.waits), sum(seen.copies.values())
    found[name] = {"waits": waits, "copies": copies, "apart_px": apart, "kernels": seen.kernels,
                   "precision": teacher.info.precision}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counted(request):
    """What a process counted of those teachers whose tests are run."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    tests = (test for test in request.session.items if test.module is request.module)
    names = [test.callspec.params["name"] for test in tests]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("name", fast_where(("cotracker3-offline", "tapir").__contains__, TEACHERS))
def test_a_call_waits_for_the_gpu_once(counted, name):
    """For its tracks. Both devices compute the same, and no operation mixes them."""
    found = counted[name]
    assert list(found["waits"].values()) == [1], found["waits"]
    assert "copy to the CPU" in next(iter(found["waits"]))
    # frames, queries, and the support points; nothing is sent again for each refinement
    most = {"locotrack-base": 12, "tapnext": 6}  # a table for each block; both ways for each pass
    assert found["copies"] <= most.get(name, 4)
    assert found["kernels"] > 100
    assert found["apart_px"] < 2e-3
    assert found["precision"] == "tf32"
