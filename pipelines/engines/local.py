"""The local engine: one process does one unit after another, with the decoder in a process that can
be killed. For notebooks and tests."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from labeler.clips import DecodingProcess
from labeler.fingerprint import one_thread
from labeler.shards.plan import Unit
from labeler.unit import Event, Job, TeachersReady, do_unit
from pipelines.engines.common import ATTEMPTS, DecodeLimits, TeacherSpec, UnitOpen, track_or_say_why
from teachers import (
    FullStorageError,
    InstallationError,
    ShardError,
    TeacherInfo,
    Tracks,
    TransientError,
)
from teachers.errors import DeviceError

PAUSE_S = 1.0
"""The pause before the second try of a unit; before the third, it is twice as long."""


class LocalTrackers:
    """The job's teachers, in this process."""

    def __init__(self, specs: Sequence[TeacherSpec]) -> None:
        loaded = [spec.load() for spec in specs]
        self._teachers = {
            teacher.info.name: teacher
            for teacher in sorted(loaded, key=lambda teacher: teacher.info.name)
        }

    @property
    def infos(self) -> Mapping[str, TeacherInfo]:
        return {name: teacher.info for name, teacher in self._teachers.items()}

    def track(
        self, names: list[str], frames: np.ndarray, queries: np.ndarray, seed: int
    ) -> dict[str, Tracks | str]:
        return {
            name: track_or_say_why(self._teachers[name], frames, queries, seed) for name in names
        }


def run(
    job: Job, specs: Sequence[TeacherSpec], limits: DecodeLimits, units: Sequence[Unit]
) -> Iterator[Event | UnitOpen]:
    """Do the units one after another; yields what happens.

    Raises:
        FullStorageError, DeviceError: no other unit would fare better in this process.
    """
    trackers = LocalTrackers(specs)  # before `one_thread`, which pins the libraries that are loaded
    with (
        one_thread(),
        DecodingProcess(
            job.frozen.recipe(), deadline_s=limits.deadline_s, memory_gib=limits.memory_gib
        ) as decoding,
    ):
        decoding.check()
        yield TeachersReady(trackers.infos)
        for unit, then in itertools.zip_longest(units, units[1:]):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    yield from do_unit(job, unit, decoding, trackers, then=then)
                    break
                except FullStorageError:
                    raise
                except (InstallationError, ShardError) as error:
                    own = isinstance(error, InstallationError)
                    yield UnitOpen(unit.number, str(error), own_fault=own)
                    break
                except TransientError as error:
                    if attempt == ATTEMPTS:
                        if isinstance(error, DeviceError):
                            raise
                        yield UnitOpen(unit.number, str(error))
                    else:
                        time.sleep(attempt * PAUSE_S)
