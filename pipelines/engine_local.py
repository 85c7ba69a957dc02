"""The local engine: one process, one unit after another; the decoder in a process that can be killed. For notebooks and tests."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import teachers
from labeler.decoding_process import DecodingProcess
from labeler.plan import Unit
from labeler.threads import one_thread
from labeler.unit import Event, Job, TeachersReady, do_unit
from teachers import ConfigError, SurroundingsError, Teacher, TeacherInfo, Tracks

ATTEMPTS = 3
"""Times that a unit is tried when the surroundings fail, before it is left open."""
PAUSE_S = 1.0
"""Before the second try of a unit; before the third, twice that."""


OF_THE_DEVICE = ("OutOfMemoryError", "AcceleratorError")
"""torch's errors that say nothing about the clip; by name, because teachers without weights do not load torch."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """How a job makes one of its teachers."""

    name: str
    checkpoint: str | None = None
    device: str = "auto"

    def load(self) -> Teacher:
        """The teacher, in the mode that covers every frame. ConfigError for one with random weights: noise is never a label."""
        teacher = teachers.load(self.name, checkpoint=self.checkpoint, device=self.device, mode="label")
        if teacher.info.checkpoint_sha256 == "random":
            raise ConfigError(f"teacher {self.name!r} has random weights: noise is never a label. Give it a checkpoint.")
        return teacher


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What decoding may cost before it is ended."""

    deadline_s: float = 300.0
    """Longest time to open and scan a video, or to decode one clip of it; then the decoder is killed."""
    memory_gib: float = 8.0
    """Most address space of the decoding process."""


@dataclass(frozen=True)
class UnitOpen:
    """A unit could not be done now; the same command does it later."""

    unit: int
    why: str


class LocalTrackers:
    """The job's teachers, in this process."""

    def __init__(self, specs: Sequence[TeacherSpec]) -> None:
        loaded = [spec.load() for spec in specs]
        self._teachers = {teacher.info.name: teacher for teacher in sorted(loaded, key=lambda teacher: teacher.info.name)}

    @property
    def infos(self) -> Mapping[str, TeacherInfo]:
        return {name: teacher.info for name, teacher in self._teachers.items()}

    def track(self, names: list[str], frames: np.ndarray, queries: np.ndarray, seed: int) -> dict[str, Tracks | str]:
        return {name: track_or_say_why(self._teachers[name], frames, queries, seed) for name in names}


def track_or_say_why(teacher: Teacher, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks | str:
    """The teacher's tracks, or why it cannot track this clip. One bad clip must not stop a job."""
    try:
        return teacher.track(frames, queries, seed)
    except MemoryError as error:
        raise SurroundingsError(f"teacher {teacher.info.name!r}: the machine is out of memory.") from error
    except Exception as error:
        if type(error).__name__ in OF_THE_DEVICE:
            raise SurroundingsError(f"teacher {teacher.info.name!r}: {type(error).__name__}: {error}") from error
        return f"{type(error).__name__}: {error}"


def run(job: Job, specs: Sequence[TeacherSpec], limits: DecodeLimits, units: Sequence[Unit]) -> Iterator[Event | UnitOpen]:
    """Do the units one after another; yields what happens."""
    trackers = LocalTrackers(specs)  # before `one_thread`, which pins the libraries that are loaded
    with one_thread(), DecodingProcess(job.frozen, deadline_s=limits.deadline_s, memory_gib=limits.memory_gib) as decoding:
        yield TeachersReady(trackers.infos)
        for unit, then in itertools.zip_longest(units, units[1:]):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    yield from do_unit(job, unit, decoding, trackers, then=then)
                    break
                except SurroundingsError as error:
                    if attempt == ATTEMPTS:
                        yield UnitOpen(unit.number, str(error))
                    else:
                        time.sleep(attempt * PAUSE_S)
