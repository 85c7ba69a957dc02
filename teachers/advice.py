"""Advice: which teachers to take within a budget, from what is published of each and what it costs.

Agreement is worth more the less its teachers' mistakes have in common, so a set holds at most one
teacher of each kind of evidence: as many kinds as the budget allows, up to four, and among such
sets the one whose published accuracy is highest. This says nothing about your own videos:
`tapdistill eval` does, where the truth is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from teachers.errors import ConfigError
from teachers.registry import TABLE, TeacherEntry, declared
from teachers.spdx import allows_commercial_use

MOST = 4
"""Most teachers in a set; the published recipes have four to six."""
FEWEST = 3
"""From three on, two can outvote one. Sets with fewer networks are filled up with classical
teachers."""
CLASSICAL = ("flow", "match", "lk")
"""The classical teachers, in the order in which they fill up a set."""
CLIP = "80 frames of 384 x 680 px with 1,024 queries"
"""The clip that `TFLOP` is about: what `tapdistill label` makes of a 16:9 video by default."""
H100_FLOAT32 = 25.0
"""TFLOP/s: some 40 % of the 67 that an H100 has in float32. This is assumed, not measured."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is published about a teacher: figures on TAP-Vid in query mode "first", in percent; None
    where nothing is published, or we have not seen it."""

    source: str
    davis: float | None = None
    """AJ."""
    davis_delta: float | None = None
    davis_oa: float | None = None
    kinetics: float | None = None
    """AJ."""
    robotap: float | None = None
    """AJ."""
    real_video: str = ""
    """The real video that it has learnt from; empty if it has seen only synthetic video."""


_TAPNET = "README of google-deepmind/tapnet"
_TAPTRV3 = "TAPTRv3, arXiv 2411.18671, table 1"
_BOOTS = "15 million clips without labels"
_COTRACKER3 = "15,000 videos, labelled by other trackers"
_FLOW = "driving videos with measured flow (KITTI, HD1K)"

PUBLISHED_ACCURACY: Mapping[str, Published] = MappingProxyType(
    {
        "cotracker3-offline": Published(
            source="CoTracker3, arXiv 2410.11831, table 1", davis=64.4, davis_delta=76.9,
            davis_oa=91.2, kinetics=54.7, robotap=64.7, real_video=_COTRACKER3,
        ),
        "cotracker3-offline-baseline": Published(
            source="CoTracker3, arXiv 2410.11831, table 1", davis=63.3, davis_delta=76.2,
            davis_oa=88.0, kinetics=53.5, robotap=59.9,
        ),
        "cotracker3-online": Published(
            source=_TAPTRV3, davis=63.8, davis_delta=76.3, davis_oa=90.2, kinetics=55.8,
            robotap=66.4, real_video=_COTRACKER3,
        ),
        "cotracker3-online-baseline": Published(
            source=_TAPTRV3, davis=64.5, davis_delta=76.7, davis_oa=89.7, kinetics=54.1,
            robotap=60.8,
        ),
        "cotracker2": Published(
            source=f"{_TAPTRV3} (CoTracker 2)", davis=61.8, davis_delta=76.1, davis_oa=88.3,
            kinetics=49.6, robotap=58.6,
        ),
        "tapir": Published(source=_TAPNET, davis=58.5, kinetics=50.0, robotap=59.6),
        "bootstapir": Published(
            source=_TAPNET, davis=62.4, kinetics=55.8, robotap=69.2, real_video=_BOOTS
        ),
        "bootstapir-causal": Published(
            source=_TAPNET, davis=59.7, kinetics=55.1, robotap=69.1, real_video=_BOOTS
        ),
        "tapnext": Published(source="TAPNext, arXiv 2504.05579, read in notes on it", davis=62.4),
        "bootstapnext": Published(
            source="TAPNext, arXiv 2504.05579, table 1, read in notes on it; " + _TAPNET,
            davis=65.2, davis_delta=78.5, davis_oa=91.2, kinetics=57.3, robotap=64.1,
            real_video=_BOOTS,
        ),
        "tapnextpp": Published(
            source="README of TAPNext++ in google-deepmind/tapnet", davis=65.6, davis_delta=79.0,
            davis_oa=92.0, kinetics=53.9, robotap=61.1, real_video=f"{_BOOTS}, as BootsTAPNext",
        ),
        "tapnextpp-512": Published(
            source=_TAPNET, davis=67.0, real_video=f"{_BOOTS}, as BootsTAPNext"
        ),
        "locotrack-base": Published(
            source=_TAPTRV3, davis=63.0, davis_delta=75.3, davis_oa=87.2, kinetics=52.9,
            robotap=62.3,
        ),
        "locotrack-small": Published(source="LocoTrack, arXiv 2407.15420: strided queries alone"),
        "alltracker": Published(
            source="README of aharley/alltracker, 384 x 512 px", davis=63.3, davis_delta=76.3,
            davis_oa=90.0, real_video=_FLOW,
        ),
        "alltracker-tiny": Published(
            source="AllTracker, arXiv 2506.07310, table 2, read in notes on it: delta alone",
            davis_delta=79.1, real_video=_FLOW,
        ),
        "pips": Published(
            source=_TAPTRV3, davis=42.2, davis_delta=64.8, davis_oa=77.7, kinetics=31.7
        ),
        "pips2": Published(source=_TAPTRV3, davis_delta=69.1),
    }
)  # fmt: skip
"""What is published about each teacher. The minis of this package have no published accuracy: see
docs/log.md."""

TFLOP: Mapping[str, float] = MappingProxyType(
    {
        "cotracker3-offline": 18.28,
        "cotracker3-online": 48.21,
        "cotracker2": 58.75,
        "tapir": 18.85,
        "bootstapir": 22.77,
        "bootstapir-causal": 40.18,
        "locotrack-base": 9.62,
        "locotrack-small": 5.74,
        "alltracker": 1381.09,
        "alltracker-tiny": 1336.27,
        "tapnext": 148.05,
        "tapnextpp-512": 452.02,
    }
)
"""What each teacher computes for one `CLIP` in mode `label`; `python -m benchmarks.flops` prints
it. Left out are the teachers in `SAME_COST`, those whose cost depends on the video (PIPs, PIPs++),
and those that do not compute with torch."""

SAME_COST: Mapping[str, str] = MappingProxyType(
    {
        "cotracker3-offline-baseline": "cotracker3-offline",
        "cotracker3-online-baseline": "cotracker3-online",
        "bootstapnext": "tapnext",
        "tapnextpp": "tapnext",
    }
)
"""Teachers that are the same network as another one, with other weights."""

CPU_S: Mapping[str, float] = MappingProxyType({"lk": 4.8, "flow": 15.5, "match": 22.5})
"""CPU seconds that the classical teachers take for one `CLIP` (docs/log.md)."""


def tflop(name: str) -> float | None:
    """TFLOP for one `CLIP`; None if unknown."""
    return TFLOP.get(SAME_COST.get(name, name))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent, and on which teachers."""

    clips: int
    gpu_hours: float | None = None
    """None: no limit."""
    tflops: float = H100_FLOAT32
    """TFLOP per second that the GPU does."""
    commercial: bool = False
    """Only teachers whose licence is known to allow commercial use."""
    synthetic_only: bool = False
    """Only teachers that have not learnt from real video."""

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ConfigError(f"clips = {self.clips}: must be at least 1.")
        if self.tflops <= 0 or (self.gpu_hours is not None and self.gpu_hours < 0):
            raise ConfigError(
                f"gpu_hours = {self.gpu_hours}, tflops = {self.tflops:g}: hours must not be "
                "negative, TFLOP/s must be above 0."
            )

    def hours(self, name: str) -> float | None:
        """GPU hours of a teacher; None where its cost is not known."""
        of_a_clip = CPU_S.get(name) and 0.0
        if of_a_clip is None:
            of_a_clip = tflop(name)
        return None if of_a_clip is None else of_a_clip * self.clips / self.tflops / 3600

    def why_not(self, entry: TeacherEntry) -> str:
        """Why a teacher cannot be in any set; empty where it can."""
        known, hours = PUBLISHED_ACCURACY[entry.name], self.hours(entry.name)
        if self.commercial and not (allowed := allows_commercial_use(entry.licence)):
            return "its licence is not confirmed" if allowed is None else f"{entry.licence}"
        if self.synthetic_only and known.real_video:
            return f"has learnt from {known.real_video}"
        if known.davis is None:
            return "no published AJ to choose it by"
        if hours is None:
            return "its cost depends on the video"
        if self.gpu_hours is not None and hours > self.gpu_hours:
            return f"{hours:,.0f} GPU hours"
        return ""


@dataclass(frozen=True)
class Suggestion:
    """A set of teachers."""

    names: tuple[str, ...]
    """Names: networks, the most accurate first, then classical teachers."""
    gpu_hours: float
    cpu_hours: float
    """CPU hours of the classical teachers."""
    left_out: Mapping[str, str]
    """Learnt teachers that cannot be in a set, and why."""


def suggest(budget: Budget) -> Suggestion:
    """The best set for a budget; the module's docstring says what that means."""
    learnt = [entry for entry in TABLE if entry.name in PUBLISHED_ACCURACY]
    reasons = {entry.name: budget.why_not(entry) for entry in learnt}
    kinds: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if not reason:
            kinds.setdefault(declared(name).evidence, []).append(name)
    best = max(_sets(kinds.values(), budget), key=lambda names: _worth(names, budget))
    networks = sorted(best, key=_aj, reverse=True)
    filled = [*networks, *CLASSICAL[: max(0, FEWEST - len(networks))]]
    return Suggestion(
        tuple(filled),
        sum(budget.hours(name) or 0.0 for name in filled),
        sum(CPU_S.get(name, 0.0) for name in filled) * budget.clips / 3600,
        {name: reason for name, reason in reasons.items() if reason},
    )


def _sets(kinds: Iterable[Sequence[str]], budget: Budget) -> Iterable[tuple[str, ...]]:
    """Every set with at most one teacher of each kind that fits the budget, the empty set
    included."""
    for choice in itertools.product(*([None, *kind] for kind in kinds)):
        names = tuple(name for name in choice if name)
        if len(names) <= MOST and (
            budget.gpu_hours is None or _hours(names, budget) <= budget.gpu_hours
        ):
            yield names


def _worth(names: Sequence[str], budget: Budget) -> tuple[int, float, float]:
    """Sort key: more kinds first, then the higher mean AJ, then the lower cost."""
    mean = sum(map(_aj, names)) / max(1, len(names))
    return len(names), mean, -_hours(names, budget)


def _hours(names: Iterable[str], budget: Budget) -> float:
    return sum(budget.hours(name) or 0.0 for name in names)


def _aj(name: str) -> float:
    return PUBLISHED_ACCURACY[name].davis or 0.0
