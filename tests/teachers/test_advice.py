"""Advice: a set fits the budget and the licences, and is the best of all that do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import teachers
from benchmarks.flops import Clip, counted, flops
from benchmarks.networks import flop_counter
from teachers import advice
from teachers.advice import (
    CPU_S,
    MOST,
    PUBLISHED_ACCURACY,
    SAME_COST,
    TFLOP,
    Budget,
    Published,
    suggest,
    tflop,
)
from teachers.layers import branch
from teachers.layers.memory import Memory
from teachers.registry import TABLE, declared
from teachers.spdx import allows_commercial_use
from tests.support.jobs import ROOT

LEARNT = {entry.name: entry for entry in TABLE if entry.file and entry.name != "xfeat"}
BUDGETS = [
    Budget(clips=15_000),
    Budget(clips=15_000, commercial=True),
    Budget(clips=15_000, commercial=True, gpu_hours=100),
    Budget(clips=15_000, synthetic_only=True, gpu_hours=30),
    Budget(clips=500, gpu_hours=1),
]


def test_every_learnt_tracker_has_a_row_with_a_source():
    assert PUBLISHED_ACCURACY.keys() == LEARNT.keys()
    assert all(known.source for known in PUBLISHED_ACCURACY.values())


def test_what_an_accuracy_is_published_of_has_a_cost_unless_the_video_decides_it():
    without = {
        name
        for name, known in PUBLISHED_ACCURACY.items()
        if known.davis is not None and tflop(name) is None
    }
    assert without == {"pips"}


def test_the_same_cost_is_that_of_the_same_network():
    for name, other in SAME_COST.items():
        one, two = declared(name), declared(other)
        assert (one, one.variant) == (two, two.variant)
        assert other in TFLOP
        assert name not in TFLOP


def test_the_page_says_what_the_tables_say():
    page = (ROOT / "docs/teachers.md").read_text()
    for name, known in PUBLISHED_ACCURACY.items():
        figures = known.davis, known.davis_delta, known.davis_oa, known.kinetics, known.robotap
        davis, delta, oa, kinetics, robotap = (
            "–" if figure is None else f"{figure:.1f}" for figure in figures
        )
        row = f"| `{name}` | {davis} / {delta} / {oa} | {kinetics} | {robotap} | "
        assert f"{row}{known.real_video or 'none'} | {known.source} |" in page
    for name, cost in TFLOP.items():
        same = [other for other, of in SAME_COST.items() if of == name]
        cells = ", ".join(f"`{each}`" for each in (name, *same))
        hours = cost * 15_000 / 25 / 3600
        assert f"| {cells} | {cost:.1f} | {hours:.1f} |" in page


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_set_keeps_to_its_budget_and_has_each_kind_once(budget):
    found = suggest(budget)
    networks = [name for name in found.names if name in PUBLISHED_ACCURACY]
    kinds = [declared(name).evidence for name in networks]
    assert len(set(kinds)) == len(kinds) <= MOST
    assert len(found.names) >= 3
    if budget.gpu_hours is not None:
        assert found.gpu_hours <= budget.gpu_hours
    if budget.commercial:
        assert all(allows_commercial_use(LEARNT[name].licence) for name in networks)
    if budget.synthetic_only:
        assert not any(PUBLISHED_ACCURACY[name].real_video for name in networks)
    assert not set(found.names) & found.left_out.keys()


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_other_set_of_as_many_kinds_is_more_accurate(budget):
    """All sets, one by one."""
    found = [name for name in suggest(budget).names if name in PUBLISHED_ACCURACY]
    possible = [name for name in LEARNT if not budget.why_not(LEARNT[name])]
    limit = float("inf") if budget.gpu_hours is None else budget.gpu_hours

    def mean(names: tuple[str, ...] | list[str]) -> float:
        return float(np.mean([PUBLISHED_ACCURACY[name].davis for name in names]))

    for count in range(1, MOST + 1):
        for names in itertools.combinations(possible, count):
            one_a_kind = len({declared(name).evidence for name in names}) == count
            if one_a_kind and sum(budget.hours(name) for name in names) <= limit:
                assert len(found) >= count
                if len(found) == count:
                    assert mean(found) >= mean(names) - 1e-9


def test_hours_are_flops_by_rate():
    budget = Budget(clips=3600, tflops=10.0)
    assert budget.hours("bootstapnext") == pytest.approx(TFLOP["tapnext"] / 10)
    assert budget.hours("flow") == 0
    assert budget.hours("pips") is None


def test_without_gpu_hours_the_classical_teachers_are_left():
    found = suggest(Budget(clips=7200, gpu_hours=0))
    assert found.names == ("flow", "match", "lk")
    assert found.gpu_hours == 0
    assert found.cpu_hours == pytest.approx(2 * sum(CPU_S.values()))
    assert "GPU hours" in found.left_out["tapir"]


def test_more_kinds_beat_higher_accuracy_and_a_tie_goes_to_the_cheaper(monkeypatch):
    """By hand: tapir and bootstapir are of one kind; 10 clips take `TFLOP` / 360 hours at 1."""
    accuracy = {"tapir": 60.0, "bootstapir": 60.0, "cotracker2": 50.0, "locotrack-base": 70.0}
    monkeypatch.setattr(
        advice,
        "PUBLISHED_ACCURACY",
        {name: Published(source="by hand", davis=aj) for name, aj in accuracy.items()},
    )
    costs = {"tapir": 100.0, "bootstapir": 36.0, "cotracker2": 36.0, "locotrack-base": 360.0}
    monkeypatch.setattr(advice, "TFLOP", costs)
    for hours, expected in (
        (1.25, ("locotrack-base", "bootstapir", "cotracker2")),
        (1.15, ("locotrack-base", "bootstapir")),
        (0.99, ("bootstapir", "cotracker2")),
        (0.1, ("bootstapir",)),
        (0.05, ()),
    ):
        names = suggest(Budget(clips=10, gpu_hours=hours, tflops=1.0)).names
        assert tuple(name for name in names if name in accuracy) == expected, hours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 0}, "clips = 0: must be at least 1"),
        ({"gpu_hours": -1.0}, "gpu_hours = -1.0"),
        ({"tflops": 0.0}, "tflops = 0"),
    ],
)
def test_a_budget_that_cannot_be_right_is_refused(changes, message):
    with pytest.raises(teachers.ConfigError, match=message):
        Budget(**{"clips": 1, **changes})


# --- what a clip costs


SMALL = Clip(frames=9, height=40, width=48, queries=6)
COUNTED = [
    "tapir",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "cotracker3-offline", "cotracker3-online", "cotracker2", "bootstapir",
            "bootstapir-causal", "locotrack-base", "locotrack-small", "tapnext", "tapnextpp-512",
        )
    ),
]  # fmt: skip


def mini(name: str, memory: Memory | None = None) -> teachers.Teacher:
    settings = {} if memory is None else {"memory": memory}
    return teachers.load(
        name, checkpoint="random", preset="mini", device="cpu", mode="label", **settings
    )


def really(name: str, clip: Clip) -> int:
    """With numbers, in the blocks that a CPU takes."""
    with flop_counter() as counter, branch.going(gpu=True):
        mini(name).track(clip.pixels, clip.points)
    return counter.get_total_flops()


WINOGRAD = {"bootstapir", "bootstapir-causal"}
"""On a CPU their convolutions of 3 x 3 take 16 multiplications for 4 outputs instead of 36; a GPU
does without."""


@pytest.mark.parametrize("name", COUNTED)
def test_flops_counted_without_numbers_are_those_that_run(name):
    without, runs = counted(mini(name), SMALL), really(name, SMALL)
    assert without == runs if name not in WINOGRAD else runs < without < 36 / 16 * runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alltracker", "alltracker-tiny"])
def test_the_passes_of_alltracker_cost_what_three_of_them_say(name):
    """Two windows, queries in several frames, both directions."""
    clip = Clip(frames=19, height=40, width=48, queries=3)
    assert flops(mini(name), clip) == counted(mini(name), clip)


@pytest.mark.slow
def test_the_table_is_what_the_command_prints():
    """Its cheapest row, at full size."""
    name = min(TFLOP, key=lambda name: TFLOP[name])
    whole = Memory(frames_per_block=64, points_per_block=1 << 20)
    teacher = teachers.load(name, checkpoint="random", device="cpu", mode="label", memory=whole)
    count = flops(teacher, Clip(frames=80, height=384, width=680, queries=1024))
    assert count / 1e12 == pytest.approx(TFLOP[name], abs=0.006)
