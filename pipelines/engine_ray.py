"""The Ray engine: unit workers that decode and commit, teacher actors that track; as many as the cluster has room for.

    driver          hands out units, gathers events, hands a unit out again when its worker is lost
    UnitWorker      runs `labeler.unit.do_unit`; its decoder is a process of its own that can be killed
    TeacherActor    one teacher; every teacher of a clip reads the same frames from the object store

Ray core only. A lost worker costs the clips in flight: whatever was not committed is done again, by the records.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from labeler import s3
from labeler.decoding_process import DecodingProcess
from labeler.plan import Unit
from labeler.threads import one_thread
from labeler.unit import Event, Job, TeachersReady, do_unit
from pipelines.engine_local import ATTEMPTS, DecodeLimits, TeacherSpec, UnitOpen, track_or_say_why
from teachers import SurroundingsError, Teacher, TeacherInfo, Tracks

KNOCK_S = 10.0
"""How long a cluster may take to answer at its address."""
ROOM_S = 300.0
"""How long the cluster may take to start the actors of a kind."""
STORE_BYTES_PER_WORKER = 400 << 20
"""Room in a local object store for the clips that one worker has in flight: 80 frames of 384 x 683 are 63 MB."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many actors of each kind, and what each takes."""

    unit_workers: int
    actors_per_teacher: int
    teachers: int
    cpus: float
    """Of each actor."""
    gpus: float
    """Of each teacher actor."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return (
            f"Ray: {self.unit_workers} unit workers of {self.cpus:g} CPU; {self.teachers} teachers x {self.actors_per_teacher} actors of "
            f"{self.cpus:g} CPU{gpus} each"
        )


def lay_out(cpus: float, gpus: float, teachers: int, workers: int | None) -> Layout:
    """Share a cluster out: with GPUs every teacher has an actor on each of them, without one beside each unit worker."""
    unit_workers = workers or max(1, int(cpus))
    actors = int(gpus) if gpus >= 1 else unit_workers
    share = min(1.0, cpus / (unit_workers + teachers * actors))
    return Layout(
        unit_workers=unit_workers,
        actors_per_teacher=actors,
        teachers=teachers,
        cpus=_floor(share),
        gpus=_floor(1 / teachers) if gpus >= 1 else 0.0,
    )


class TeacherActor:
    """One teacher; made at the first call, so that what goes wrong in it is the error of that call."""

    def __init__(self, spec: TeacherSpec) -> None:
        self._spec = spec

    @functools.cached_property
    def _teacher(self) -> Teacher:
        teacher = self._spec.load()  # before `one_thread`, which pins the libraries that are loaded
        self._one_thread = one_thread()
        self._one_thread.__enter__()  # for as long as the actor lives
        return teacher

    def info(self) -> TeacherInfo:
        return self._teacher.info

    def track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks | str:
        return track_or_say_why(self._teacher, frames, queries, seed)


class RayTrackers:
    """The job's teachers, as actors; calls that a lost actor took with it are made again."""

    def __init__(self, actors: Mapping[str, Any], infos: Mapping[str, TeacherInfo]) -> None:
        self._actors = actors
        self._infos = infos

    @property
    def infos(self) -> Mapping[str, TeacherInfo]:
        return self._infos

    def track(self, names: list[str], frames: np.ndarray, queries: np.ndarray, seed: int) -> dict[str, Tracks | str]:
        shared = ray.put(frames)
        found: dict[str, Tracks | str] = {}
        for _ in range(ATTEMPTS):
            calls = {name: self._actors[name].track.remote(shared, queries, seed) for name in names if name not in found}
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
        raise SurroundingsError(f"a teacher's worker was lost {ATTEMPTS} times on one clip: {lost}")


class UnitWorker:
    """Does one unit at a time."""

    def __init__(self, job: Job, limits: DecodeLimits, actors: Mapping[str, Any], infos: Mapping[str, TeacherInfo]) -> None:
        self._one_thread = one_thread()
        self._one_thread.__enter__()  # for as long as the actor lives
        self._job = job
        self._decoding = DecodingProcess(job.frozen, deadline_s=limits.deadline_s, memory_gib=limits.memory_gib)
        self._trackers = RayTrackers(actors, infos)

    def ready(self) -> None:
        """Returns as soon as the worker runs."""

    def do(self, unit: Unit) -> Iterator[Event]:
        yield from do_unit(self._job, unit, self._decoding, self._trackers)


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """Connected to the cluster at `address`, or to one that is started on this machine and ends afterwards.

    A process that is connected already stays connected to what it is.

    Raises:
        SurroundingsError: there is no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do by default; it warns until then
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            _knock(address)
            ray.init(address=address, runtime_env={"env_vars": s3.variables()}, **quiet)
        else:
            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            store = STORE_BYTES_PER_WORKER * (workers or cpus)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=store, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise SurroundingsError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def layout_of_cluster(teachers: int, workers: int | None) -> Layout:
    """The layout for the cluster that this process is connected to."""
    resources = ray.cluster_resources()
    return lay_out(resources.get("CPU", 1), resources.get("GPU", 0), teachers, workers)


def run(
    job: Job, specs: Sequence[TeacherSpec], limits: DecodeLimits, units: Sequence[Unit], layout: Layout
) -> Iterator[Event | UnitOpen]:
    """Do the units on the cluster; yields what happens, as it happens.

    Raises:
        SurroundingsError: the cluster has no room for the actors.
        ConfigError: a teacher that cannot be made.
    """
    sized: Any = ray.remote(max_restarts=-1, num_cpus=layout.cpus, num_gpus=layout.gpus)(TeacherActor)
    worker: Any = ray.remote(num_cpus=layout.cpus)(UnitWorker)
    actors = [[sized.remote(spec) for spec in specs] for _ in range(layout.actors_per_teacher)]
    made = _when_ready([actor.info.remote() for row in actors for actor in row], layout)[: len(specs)]
    infos = {info.name: info for info in sorted(made, key=lambda info: info.name)}

    def new_worker(lane: int) -> Any:
        """A worker beside the teachers of its lane."""
        mine = {info.name: actor for info, actor in zip(made, actors[lane % len(actors)], strict=True)}
        return worker.remote(job, limits, mine, infos)

    yield TeachersReady(infos)
    workers = {lane: new_worker(lane) for lane in range(min(layout.unit_workers, len(units)))}
    try:
        _when_ready([worker.ready.remote() for worker in workers.values()], layout)
        yield from _hand_out(units, workers, new_worker)
    finally:
        for actor in [*workers.values(), *(actor for row in actors for actor in row)]:
            ray.kill(actor)


def _hand_out(units: Sequence[Unit], workers: dict[int, Any], new_worker: Callable[[int], Any]) -> Iterator[Event | UnitOpen]:
    """Give each idle lane the next unit; a unit whose worker is lost, or whose surroundings fail, goes to the end of the queue."""
    queue = deque(units)
    attempts: dict[int, int] = {}
    idle, busy = list(workers), dict[Any, tuple[Unit, int]]()
    while queue or busy:
        while queue and idle:
            lane, unit = idle.pop(), queue.popleft()
            attempts[unit.number] = attempts.get(unit.number, 0) + 1
            busy[workers[lane].do.options(num_returns="streaming").remote(unit)] = (unit, lane)
        ready: list[Any] = ray.wait(list(busy), num_returns=1)[0]
        for stream in ready:
            unit, lane = busy[stream]
            try:
                event: Any = ray.get(next(stream))
                yield event
                continue
            except StopIteration:
                pass
            except RayError as error:
                if not isinstance(error, RayTaskError):
                    ray.kill(workers[lane])
                    workers[lane] = new_worker(lane)
                why = _as_raised(error)
                if attempts[unit.number] < ATTEMPTS:
                    queue.append(unit)
                else:
                    yield UnitOpen(unit.number, str(why))
            del busy[stream]
            idle.append(lane)


def _knock(address: str) -> None:
    """ConnectionError if nobody listens at "[ray://]host:port": Ray itself would wait for minutes. Other forms are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _when_ready(calls: list[Any], layout: Layout) -> list[Any]:
    """The first answers of new actors; SurroundingsError if the cluster has no room for them."""
    try:
        return ray.get(calls, timeout=ROOM_S)
    except GetTimeoutError as error:
        raise SurroundingsError(
            f"the cluster had no room within {ROOM_S:.0f} s for this layout: {layout}. Wait for other jobs, or give fewer --workers."
        ) from error
    except RayError as error:
        raise _as_raised(error) from error


def _as_raised(error: RayError) -> SurroundingsError:
    """The SurroundingsError that a task raised or a lost actor is; any other error of a task is raised, as the task did."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError):  # a task that waits for another wraps its error once more
        cause = cause.cause
    if isinstance(cause, RayError):
        return SurroundingsError(f"the cluster failed: {type(cause).__name__}: {' '.join(str(cause).split())}")
    if not isinstance(cause, SurroundingsError):
        raise cause from error
    return cause


def _floor(share: float) -> float:
    """Ray counts resources in units of 1/10,000."""
    return math.floor(share * 10_000) / 10_000
