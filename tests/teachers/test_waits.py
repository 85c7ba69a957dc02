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

TEACHERS: dict[str, dict[str, object]] = {
    "cotracker3-offline": {},
    "cotracker3-online": {},
    "cotracker2": {},
    "tapir": {},
    "bootstapir": {},
    "locotrack-base": {},
    "tapnext": {},
    "alltracker": {},
    "xfeat": {},
    "pips": {},
    "pips2": {},
    "cotracker3-offline, a long clip": {"max_frames": 6, "overlap": 3},
    "cotracker3-offline, each point alone": {"mode": "benchmark", "single": True},
    "tapir, a long clip": {"max_frames": 6},
    "locotrack-base, a long clip": {"max_frames": 6},
    "pips, a long clip": {"max_frames": 8},
    "pips2, a long clip": {"window": 6},
} | {
    f"{name}, {mode}": {"mode": mode}
    for name in (
        *("cotracker3-offline", "cotracker3-online", "cotracker2", "tapir", "locotrack-base"),
        *("tapnext", "alltracker", "pips", "pips2"),
    )
    for mode in ("predictor", "benchmark")
}
"""Settings beside those of `COUNT`, by the teacher's name."""
FAST = ("cotracker3-offline", "tapir", "pips")
COPIES = {"locotrack-base": 12, "tapnext": 6, "pips": 6, "pips2": 6}
"""The most copies to the GPU in a call, where they are more than the frames, the queries, and the
support points: LocoTrack has a table for each block, TAPNext sends both ways for each pass, and
PIPs which points a window has. In windows, they are sent for each."""
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
for case, settings in json.loads(sys.argv[1]).items():
    name = case.partition(",")[0]
    given = {"checkpoint": "random", "mode": "label", "preset": "mini"} | settings
    with pretended_gpu() as seen:
        teacher = teachers.load(name, device="cuda:0", **given)
        loading = sum(seen.copies.values())
        seen.waits.clear(), seen.copies.clear()
        there = teacher.track(frames, queries, seed=1)
    here = teachers.load(name, device="cpu", **given).track(frames, queries, seed=1)
    apart = float(np.nanmax(np.abs(there.xy - here.xy)))
    waits, copies = dict(seen.waits), sum(seen.copies.values())
    found[case] = {"waits": waits, "copies": copies, "apart_px": apart, "kernels": seen.kernels,
                   "precision": teacher.info.precision}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counted(request):
    """What a process counted of those teachers whose tests are run."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    tests = (test for test in request.session.items if test.module is request.module)
    cases = {name: TEACHERS[name] for name in (test.callspec.params["name"] for test in tests)}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, json.dumps(cases)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("name", fast_where(FAST.__contains__, TEACHERS))
def test_a_call_waits_for_the_gpu_once(counted, name):
    """For its tracks. Both devices compute the same, and no operation mixes them."""
    found = counted[name]
    assert list(found["waits"].values()) == [1], found["waits"]
    assert "copy to the CPU" in next(iter(found["waits"]))
    # nothing is sent again for each refinement
    assert found["copies"] <= (40 if "," in name else COPIES.get(name, 4))
    assert found["kernels"] > 100
    assert found["apart_px"] < 2e-3
    assert found["precision"] == "tf32"
