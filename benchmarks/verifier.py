"""What judging costs, beside the teachers whose tracks are judged.

    python -m benchmarks.verifier
    python -m benchmarks.verifier --frames 80 --height 384 --width 680 --queries 1024

A procedural clip is tracked by every teacher named, one after another, then judged; CPU seconds of
one thread, for the judging the least of three. Below, the same by arithmetic for official networks:
their own CPU seconds for 24 x 384 x 512 px (`benchmarks.networks` has them) beside those of judging
as many teachers there. The goals are 5 % and 1 %.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tyro

import teachers
from benchmarks.networks import QUERIES, ROWS
from labeler.clips.queries import QueryConfig, sample_queries
from labeler.fingerprint import one_thread
from labeler.labels.verifier import Verifier
from student.synth.scene import SynthConfig, generate
from teachers import Tracks, VisibleRule

OFFICIAL = ("cotracker3-offline", "cotracker3-online", "cotracker2")
"""Measured at the size of the default clip."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What judging costs."""

    teachers: tuple[str, ...] = (
        "lk", "flow", "match", "xfeat", "tapir-mini", "cotracker3-offline-mini",
    )  # fmt: skip
    frames: int = 24
    height: int = 384
    width: int = 512
    queries: int = QUERIES


def main(cost: Cost) -> None:
    print(f"{platform.machine()}, 1 thread, Python {platform.python_version()}")
    with one_thread():
        world = SynthConfig(frames=cost.frames, height=cost.height, width=cost.width, points=1)
        frames = generate(0, world).frames
        queries = sample_queries(frames, QueryConfig(count=cost.queries), 0).points
        print(f"{cost.frames} x {cost.height} x {cost.width} px, {len(queries)} queries, CPU s:")
        tracks, rules, took = {}, {}, {}
        for name in cost.teachers:
            teacher = teachers.load(name, mode="label", device="cpu")
            began = time.process_time()
            tracks[name] = teacher.track(frames, queries)
            took[name] = time.process_time() - began
            rules[name] = VisibleRule.parse(teacher.info.visible_rule)
            print(f"  {name:24s} {took[name]:6.2f}", flush=True)
        judging = judged(frames, queries, tracks, rules)
        total = sum(took.values())
        print(f"  {'judging them all':24s} {judging:6.2f}: {100 * judging / total:.1f} %")
        minis = [name for name in cost.teachers if name.endswith("-mini")]
        if minis:
            judging = judged(frames, queries, {name: tracks[name] for name in minis}, rules)
            total = sum(took[name] for name in minis)
            print(
                f"  {'judging the minis alone':24s} {judging:6.2f}: {100 * judging / total:.1f} %"
            )
        if (cost.frames, cost.height, cost.width, cost.queries) == (24, 384, 512, QUERIES):
            some = dict(list(tracks.items())[: len(OFFICIAL)])
            judging = judged(frames, queries, some, rules)
            total = sum(row.official_cpu_s for row in ROWS if row.teacher in OFFICIAL)
            print(f"  judging {len(some)} teachers: {judging:.2f}")
            names = ", ".join(OFFICIAL)
            print(f"  {names}, official: {total:.0f}: {100 * judging / total:.2f} %")


def judged(
    frames: np.ndarray,
    queries: np.ndarray,
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
) -> float:
    """CPU s, the least of three."""
    verifier, took = Verifier.load(), []
    for _ in range(3):
        began = time.process_time()
        verifier.judge(frames, queries, tracks, rules)
        took.append(time.process_time() - began)
    return min(took)


if __name__ == "__main__":
    main(tyro.cli(Cost, description=__doc__))
