"""The actors of the Ray engine: teachers, and workers that do units with them."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from labeler.clips import DecodingProcess
from labeler.fingerprint import one_thread
from labeler.io import transient_errors
from labeler.io.scratch import remove_abandoned
from labeler.shards.plan import Unit
from labeler.unit import Event, Job, differences_of, do_unit
from pipelines.engines.common import ATTEMPTS, DecodeLimits, TeacherSpec, track_or_say_why
from teachers import ConfigError, Teacher, TeacherInfo, Tracks, TransientError
from teachers.errors import DeviceError

RESTART_S, RETRY_EVERY_S = 120.0, 0.5
"""How long to wait for a teacher that Ray starts again, and how often to ask."""


class TeacherActor:
    """One teacher. It is made at the first call, so that an error in making it is raised by that
    call.

    Where Ray gave it a GPU, it computes there or not at all: "auto" would be a CPU on a node whose
    driver is broken. After an error of the GPU, its process ends at the next call, and Ray starts
    another.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        self._spec = spec
        self._gpu_failed = False

    @functools.cached_property
    def _teacher(self) -> Teacher:
        teacher = self._load()  # before `one_thread`, which pins the libraries that are loaded
        self._one_thread = one_thread()
        self._one_thread.__enter__()  # for as long as the actor lives
        return teacher

    def _load(self) -> Teacher:
        if self._spec.device != "auto" or not self._spec.on_gpu or not ray.get_gpu_ids():
            return self._spec.load()
        try:
            return replace(self._spec, device="cuda").load()
        except ConfigError as error:
            raise ConfigError(f"node {socket.gethostname()}: {error}") from error

    def info(self) -> TeacherInfo:
        return self._teacher.info

    def track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks | str:
        if self._gpu_failed:
            os._exit(1)
        try:
            return track_or_say_why(self._teacher, frames, queries, seed)
        except DeviceError:
            self._gpu_failed = True
            raise


class RayTrackers:
    """The job's teachers, as actors; calls that were lost with an actor are repeated."""

    def __init__(self, actors: Mapping[str, Any], infos: Mapping[str, TeacherInfo]) -> None:
        self._actors = actors
        self._infos = infos

    @property
    def infos(self) -> Mapping[str, TeacherInfo]:
        return self._infos

    def ask(self) -> None:
        """Take over what these actors say of themselves: in a cluster of several kinds of GPUs, the
        job knows only what the first ones said.

        Raises:
            ConfigError: one of them is another teacher than the job knows, as where its file is
                another one on this node.
        """
        own: dict[str, TeacherInfo] = {}
        for name, info in self._infos.items():
            own[name] = ray.get(self._actors[name].info.remote())
            if differences := differences_of(info.to_json(), own[name].to_json()):
                raise ConfigError(
                    f"node {socket.gethostname()}: teacher {name!r} is another than on the node "
                    f"where the job began ({differences})."
                )
        self._infos = own

    def track(
        self, names: list[str], frames: np.ndarray, queries: np.ndarray, seed: int
    ) -> dict[str, Tracks | str]:
        shared = ray.put(frames)
        found: dict[str, Tracks | str] = {}
        lost: RayError | None = None
        for _ in range(ATTEMPTS):
            if lost is not None:
                self._wait_for_restart([name for name in names if name not in found])
            calls = {
                name: self._actors[name].track.remote(shared, queries, seed)
                for name in names
                if name not in found
            }
            lost = None
            for name, call in calls.items():
                try:
                    found[name] = ray.get(call)
                except RayTaskError:
                    raise
                except RayError as error:
                    lost = error
            if lost is None:
                return {name: found[name] for name in names}
        raise TransientError(f"a teacher's worker was lost {ATTEMPTS} times on one clip: {lost}")

    def _wait_for_restart(self, names: Sequence[str]) -> None:
        """Wait until the teachers that Ray starts again answer, so that the next attempt meets
        them; on a busy node, that takes longer than all attempts would."""
        deadline = time.monotonic() + RESTART_S
        for name in names:
            while time.monotonic() < deadline and self._is_starting(name):
                time.sleep(RETRY_EVERY_S)

    def _is_starting(self, name: str) -> bool:
        try:
            ray.get(self._actors[name].info.remote(), timeout=RESTART_S)
        except ActorUnavailableError:
            return True
        except RayError:
            pass  # the next attempt meets it, too
        return False


class UnitWorker:
    """Does one unit at a time."""

    def __init__(
        self,
        job: Job,
        limits: DecodeLimits,
        actors: Mapping[str, Any],
        infos: Mapping[str, TeacherInfo],
    ) -> None:
        self._one_thread = one_thread()
        self._one_thread.__enter__()  # for as long as the actor lives
        self._job = job
        self._decoding = DecodingProcess(
            job.frozen.recipe(), deadline_s=limits.deadline_s, memory_gib=limits.memory_gib
        )
        self._trackers = RayTrackers(actors, infos)

    def ready(self) -> None:
        """Returns as soon as the worker and its teachers run, and its decoder has read the clip
        that comes with the installation. What killed workers left on this node is removed first:
        Ray ends workers without a word, at the end of a job too."""
        with transient_errors("start a worker", scratch=True):
            remove_abandoned()
            self._decoding.check()
        self._trackers.ask()

    def do(self, unit: Unit, then: Unit | None) -> Iterator[Event]:
        yield from do_unit(self._job, unit, self._decoding, self._trackers, then=then)
