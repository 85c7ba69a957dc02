"""What is tried: worlds, students, policies, and how much of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from labeler.labels.policies import Policy, find
from labeler.labels.trust import TrustConfig
from student.synth.scene import SynthConfig
from teachers import ConfigError

World = Literal["drawn", "restless"]
WORLDS: Mapping[World, SynthConfig] = {
    "drawn": SynthConfig.unseen(points=96, split="test"),
    "restless": SynthConfig.unseen(
        points=96,
        split="test",
        cutouts=(4, 8),
        motion=1.4,
        bend=0.2,
        camera=1.0,
        blur=0.2,
        light=1.0,
        noise=8.0,
    ),
}
"""Drawn patterns in polygons, of which no mini saw any. "restless" has more and faster layers, a
camera that never rests, less blur, other light, and more noise."""

TEST_SEED = 10_000
"""Of the first clip to score on; those to learn from begin at 0."""

StudentName = Literal["tapir-mini", "cotracker3-offline-mini"]

SELF = "self"
"""Not a label policy, but what each is held against: a student learns from its own tracks alone,
which CoTracker3's paper calls self-training."""
TRUTH = "truth"
"""Not one either, but what labels could teach at best: the exact tracks of the same clips."""
CONTROLS = (SELF, TRUTH)
WITH_TRUTH = ("oracle", TRUTH)
"""Each has a data set of its own, of one teacher that knows the exact tracks."""


@dataclass(frozen=True)
class Learner:
    """How a student learns."""

    recipe: str
    steps: float = 1.0
    """Share of the experiment's."""
    batch: float = 1.0
    """Share of the experiment's."""


LEARNERS: Mapping[StudentName, Learner] = {
    "tapir-mini": Learner("tapir_mini"),
    "cotracker3-offline-mini": Learner("cotracker3_mini", steps=0.3, batch=0.5),
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Label unseen worlds with several teachers, teach students by each policy, and score all of
    them on other clips of those worlds."""

    out: Path
    """Folder for everything. The same command goes on there; other settings need another folder."""
    worlds: tuple[World, ...] = get_args(World)
    students: tuple[StudentName, ...] = get_args(StudentName)
    policies: tuple[Policy, ...] = (
        SELF,
        "random",
        "random-agreeing",
        "verified",
        "random-verified",
        "oracle",
        TRUTH,
    )
    """Label policies; also medoid, mean, median. self: the student's own tracks, by `random`.
    truth: exact tracks, which no real video has."""
    trust: TrustConfig = field(default_factory=lambda: TrustConfig(min_right=0.5, min_hidden=0.7))
    """When the verifier is believed."""
    seeds: int = 3
    """Trainings of each student by each policy."""
    steps: int = 1000
    """Of a training of tapir-mini, a quarter of an hour of a core: in a few hundred steps it loses
    at first what it regains later. cotracker3-offline-mini, which is slower, takes 0.3 of them."""
    batch: int = 2
    """Clips of a step; of cotracker3-offline-mini half of that."""
    crop: int = 128
    """Side of what a student sees in training, px."""
    frames: int = 16
    """Of what a student sees in training."""
    queries: int = 192
    """Points that are labelled in a clip; a third of them enters a step."""
    clips: int = 48
    """Videos of each world to learn from."""
    test_clips: int = 24
    """Videos of each world to score on; an interval needs two."""
    workers: int = 2
    """Processes, one thread each."""
    quick: bool = False
    """So small that it takes a minute: every part works, none measures."""

    def __post_init__(self) -> None:
        for policy in self.policies:
            if policy not in CONTROLS:
                find(policy)
        for name in ("worlds", "students", "policies"):
            named = getattr(self, name)
            if not named or len(set(named)) < len(named):
                raise ConfigError(f"--{name}: name at least one, and each once.")
        least = {"seeds": 1, "steps": 1, "batch": 1, "clips": 1, "test_clips": 2, "workers": 1}
        for name, count in least.items():
            if getattr(self, name) < count:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {count}."
                )
        if self.clips > TEST_SEED:
            raise ConfigError(
                f"--clips {self.clips}: at most {TEST_SEED}; those after them are scored on."
            )

    def sized(self) -> Experiment:
        """The experiment that is really done."""
        if not self.quick:
            return self
        lessons = {"seeds": 1, "steps": 2, "batch": 1, "crop": 64, "frames": 8, "queries": 24}
        videos = {"clips": 2, "test_clips": 2, "workers": 1}
        return replace(self, worlds=self.worlds[:1], quick=False, **lessons, **videos)

    def folder(self, world: World) -> Path:
        return self.out / world
