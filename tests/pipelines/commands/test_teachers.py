"""tapdistill teachers suggest: a set, its cost, why others are not in it, and the command."""

from __future__ import annotations

import json
import re

from pipelines.cli import run as tapdistill
from teachers.advice import TFLOP, tflop
from teachers.registry import entry_of
from teachers.spdx import allows_commercial_use


def test_a_set_for_commercial_use_is_printed_with_its_cost_and_its_command(capsys):
    command = "teachers suggest --commercial --gpu-hours 100 --clips 15000"
    assert tapdistill(command.split()) == 0
    said = " ".join(capsys.readouterr().out.split())
    names = re.search(r"tapdistill label VIDEOS --out LABELS --teachers (.*)$", said)[1].split()
    assert len(names) >= 3
    assert all(allows_commercial_use(entry_of(name).licence) for name in names)
    hours = sum((tflop(name) or 0) * 15_000 / 25 / 3600 for name in names)
    assert hours <= 100
    assert f"Together {hours:,.1f} of 100 GPU hours" in said
    assert "for 15,000 clips of 80 frames of 384 x 680 px with 1,024 queries, at 25 TFLOP/s" in said
    assert re.search(r"Left out: cotracker3-offline, .*cotracker2: CC-BY-NC-4.0\.", said)
    assert "locotrack-base, locotrack-small: its licence is not confirmed" in said


def test_a_licence_that_nobody_states_is_said_in_words_and_stays_an_id_in_json(capsys):
    assert tapdistill(["teachers"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "LocoTrack-B not confirmed" in said
    assert "Not confirmed: we know of no statement" in said
    assert "NOASSERTION" not in said
    assert tapdistill(["teachers", "--json"]) == 0
    licences = {row["name"]: row["licence"] for row in json.loads(capsys.readouterr().out)}
    assert licences["locotrack-base"] == "NOASSERTION"


def test_a_faster_gpu_does_more_in_the_same_hours(capsys):
    costs = []
    for rate in ("1", "1000"):
        assert tapdistill(["teachers", "suggest", "--gpu-hours", "50", "--tflops", rate]) == 0
        said = " ".join(capsys.readouterr().out.split())
        costs.append(sum(TFLOP.get(name, 0) for name in said.split("--teachers ")[1].split()))
    assert costs[0] < costs[1]


def test_flags_of_suggest_are_refused_elsewhere(capsys):
    assert tapdistill(["teachers", "--commercial"]) == 1
    assert "belong to `tapdistill teachers suggest`" in capsys.readouterr().err
