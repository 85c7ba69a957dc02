"""What is tried: worlds, students, policies, and how much of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from labeler.labels.agreement import AgreementConfig
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
        "random",
        "random-agreeing",
        "verified",
        "random-verified",
        "oracle",
    )
    """Label policies; also medoid, mean, median. self: the student's own tracks, by `random`.
    truth: exact tracks, which no real video has."""
    trust: TrustConfig = field(default_factory=lambda: TrustConfig(min_right=0.5, min_hidden=0.7))
    """When the verifier is believed."""
    seeds: int = 3
    """Trainings of each student by each policy."""
    steps: int = 80
    """Of a training of tapir-mini; cotracker3-offline-mini, which is slower, takes 0.3 of them."""
    batch: int = 1
    """Clips of a step; of cotracker3-offline-mini half of that, but at least one."""
    crop: int = 128
    """Side of what a student sees in training, px."""
    frames: int = 12
    """Of what a student sees in training."""
    video_frames: int = 12
    """Of a video. The shorter it is, the faster everything in it moves."""
    queries: int = 192
    """Points that are labelled in a clip; a third of them enters a step."""
    clips: int = 48
    """Videos of each world to learn from."""
    test_clips: int = 24
    """Videos of each world to score on; an interval needs two."""
    workers: int = 2
    """Processes, one thread each."""
    night: bool = False
    """Longer videos and trainings, and the controls. Settings that differ from their defaults
    stay."""
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
        if self.night and self.quick:
            raise ConfigError("--night and --quick: leave one of them out.")
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
        size = NIGHT if self.night else QUICK if self.quick else {}
        usual = {each.name: each.default for each in fields(self)}
        unnamed = {name: size[name] for name in size if getattr(self, name) == usual[name]}
        return replace(self, night=False, quick=False, **unnamed)

    def videos(self, world: World) -> SynthConfig:
        """What its videos are like."""
        return replace(WORLDS[world], frames=self.video_frames)

    def agreement(self) -> AgreementConfig:
        """When teachers agree: the package's thresholds, and seen in a third of the frames."""
        return AgreementConfig(min_visible_frames=max(1, self.video_frames // 3))

    def folder(self, world: World) -> Path:
        return self.out / world


NIGHT: Mapping[str, Any] = {
    "policies": (SELF, *Experiment.policies, TRUTH),
    "steps": 1000,
    "batch": 2,
    "frames": 16,
    "video_frames": 24,
}
QUICK: Mapping[str, Any] = {
    "worlds": get_args(World)[:1],
    "policies": NIGHT["policies"],
    "seeds": 1,
    "steps": 2,
    "crop": 64,
    "frames": 8,
    "queries": 24,
    "clips": 2,
    "test_clips": 2,
    "workers": 1,
}
