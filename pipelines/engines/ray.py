"""The Ray engine: groups of actors, as many as the cluster has room for, now and later.

    driver          hands out units, gathers events, hands a unit out again when its worker is lost
    group           a placement group on one node: one actor of each teacher, and the unit workers
                    that share them
    UnitWorker      runs `labeler.unit.do_unit`; its decoder is a process of its own that can be
                    killed
    TeacherActor    one teacher; every teacher of a clip reads the same frames from the object store

A unit is given to a worker that is running, and a worker is on the same node as its teachers. So a
node that leaves costs only the clips in flight on it, and nothing waits for what is not there. One
more group than is running is always asked for, so that a node that joins late is used. A group
whose node has left is closed, because Ray (2.60, its issue 65007) would search for another node for
it without a pause, which takes a whole core. Only Ray Core is used. What was not committed is done
again: the records show it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from labeler.clips import ClipConfig
from labeler.io import s3
from labeler.io.scratch import FullScratchError
from labeler.shards.plan import Unit
from labeler.unit import Event, Job, TeachersReady
from pipelines.engines.common import ATTEMPTS, DecodeLimits, Note, TeacherSpec, UnitOpen
from pipelines.engines.cpus import usable_cpus
from pipelines.engines.layout import Layout, lay_out
from pipelines.engines.ray_actors import TeacherActor, UnitWorker
from pipelines.engines.ray_environment import give_folders, own_packages_first
from pipelines.wording import counted
from teachers import (
    FullStorageError,
    InstallationError,
    ShardError,
    TapdistillError,
    TeacherInfo,
    TransientError,
)

CONNECT_S = 10.0
"""How long a cluster may take to answer at its address."""
PLACEMENT_TIMEOUT_S = 300.0
"""How long the cluster may take to start the actors of a kind."""
LOOK_EVERY_S = 5.0
"""How often to look for groups whose node has left."""
UNFIT_PAUSE_S = 600.0
"""How long no other group is asked for after a worker was ended because its node is unfit: it may
come to the same node. After the second worker twice as long, and so on."""
STORE_BYTES_PER_WORKER = 400 << 20
"""Room in a local object store for the clips that one worker has in flight: 80 frames of 384 x 683
are 63 MB."""
CLIPS_PER_WORKER = 2
"""Clips of a worker that can be in the object store at once: one with the teachers, one that is
being released."""


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or to one that is started on this machine and ends with
    the context.

    A process that is connected already keeps its connection.

    Raises:
        TransientError: there is no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what Ray will do by default; until then, it warns
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:
        give_folders()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _check_reachable(address)
            hook = {} if address.startswith("ray://") else own_packages_first()
            ray.init(address=address, runtime_env={"env_vars": s3.variables(), **hook}, **quiet)
        else:
            cpus = usable_cpus()
            store = STORE_BYTES_PER_WORKER * (workers or cpus)
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=store,
                runtime_env=own_packages_first() or None,
                **quiet,
            )
    except Exception as error:
        # Ray raises a plain Exception for a node that does not start in time
        if not (isinstance(error, OSError | ValueError | RuntimeError) or type(error) is Exception):
            raise
        raise TransientError(
            f"no Ray cluster at {address}: {error}"
            if address
            else f"Ray did not start on this machine: {error} On a busy machine, try again; or do "
            "without Ray, in one process: `tapdistill label` with --engine local."
        ) from error
    if on_term is not None and threading.current_thread() is threading.main_thread():
        # Ray's own handler prints where the process was, and ends it
        signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[tuple[float, float]]:
    """(CPUs, GPUs) of each node of the cluster that is alive."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in resources]


def layout_of_cluster(specs: Sequence[TeacherSpec], workers: int | None) -> Layout:
    """The layout for the cluster that this process is connected to. TransientError if it has no
    CPUs yet."""
    if not (alive := [(cpus, gpus) for cpus, gpus in nodes() if cpus]):
        raise TransientError(
            "the Ray cluster has no node with CPUs yet: start one, then run the same command again."
        )
    return lay_out(alive, len(specs), workers, sum(spec.on_gpu for spec in specs))


def note_on_store(layout: Layout, clips: ClipConfig) -> str:
    """A sentence if a node's object store is too small for the clips of its workers, which Ray
    would then write to its disk; otherwise, ""."""
    clip_bytes = clips.frames * clips.short_side * round(clips.short_side * 16 / 9) * 3
    for node in ray.nodes():
        resources = node["Resources"]
        workers = (
            layout.workers_on(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
            if node["Alive"]
            else 0
        )
        has, needs = (
            resources.get("object_store_memory", 0.0),
            CLIPS_PER_WORKER * workers * clip_bytes,
        )
        if has < needs:
            return (
                f"note: the object store of {node['NodeManagerHostname']} has {has / 1e9:.1f} GB, "
                f"but {counted(workers, 'unit worker')} with wide clips need {needs / 1e9:.1f} GB. "
                "Start Ray there with a larger --object-store-memory, or give fewer --workers; "
                "otherwise, clips go through its disk."
            )
    return ""


class WorkerGroup:
    """One actor of each teacher on one node, and room for the unit workers that share them; removed
    with `close`."""

    def __init__(self, specs: Sequence[TeacherSpec], layout: Layout) -> None:
        self._placement = placement_group([layout.bundle], strategy="STRICT_PACK")
        self._cpus = layout.cpus
        teacher: Any = ray.remote(max_restarts=-1, num_cpus=layout.cpus)(TeacherActor)
        here, gpus = self._here(), layout.gpus
        options = [{"scheduling_strategy": here, "num_gpus": gpus * one.on_gpu} for one in specs]
        self._teachers = [
            teacher.options(**o).remote(s) for o, s in zip(options, specs, strict=True)
        ]

    def infos(self) -> list[Any]:
        """A call to each teacher, in the order of the specs."""
        return [teacher.info.remote() for teacher in self._teachers]

    def worker(self, job: Job, limits: DecodeLimits, infos: Sequence[TeacherInfo]) -> Any:
        """A new unit worker beside the teachers; `infos` in the order of the specs."""
        mine = {info.name: actor for info, actor in zip(infos, self._teachers, strict=True)}
        by_name = {info.name: info for info in sorted(infos, key=lambda info: info.name)}
        made: Any = ray.remote(num_cpus=self._cpus)(UnitWorker)
        return made.options(scheduling_strategy=self._here()).remote(job, limits, mine, by_name)

    def has_lost_its_node(self) -> bool:
        return placement_group_table(self._placement)["state"] == "RESCHEDULING"

    def has_room(self) -> bool:
        """Whether a node has room for it, and so its actors start."""
        return placement_group_table(self._placement)["state"] == "CREATED"

    def close(self) -> None:
        remove_placement_group(self._placement)  # its actors end with it

    def _here(self) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(placement_group=self._placement)


def run(
    job: Job,
    specs: Sequence[TeacherSpec],
    limits: DecodeLimits,
    units: Sequence[Unit],
    layout: Layout,
) -> Iterator[Event | UnitOpen | Note]:
    """Do the units on the cluster; yields what happens, as it happens.

    Raises:
        TransientError: the cluster has no room for one group, or a worker does not start.
        FullStorageError: the disk of the data set is full, or that of every worker's temporary
            files.
        ConfigError: a teacher that cannot be made.
    """
    first = WorkerGroup(specs, layout)
    groups = [first]
    try:
        infos = _when_ready(first.infos(), layout)
        yield TeachersReady({info.name: info for info in sorted(infos, key=lambda info: info.name)})
        yield from _UnitQueue(
            units,
            layout,
            groups,
            lambda: WorkerGroup(specs, layout),
            lambda group: group.worker(job, limits, infos),
        ).run()
    finally:
        for group in groups:
            group.close()


@dataclass(eq=False)
class _Worker:
    """A unit worker, its group, and the unit whose first clip it decodes ahead."""

    actor: Any
    group: WorkerGroup
    prefetches: int | None = None
    """The index of that unit."""
    starts: int = 1
    """How often it was started, counting those in its place that did not come up."""
    full: int = 0
    """How many units in a row have met a full disk of temporary files."""


class _UnitQueue:
    """Gives each running worker the next unit. A unit whose worker is lost, or that fails with a
    transient error, goes to the end of the queue."""

    def __init__(
        self,
        units: Sequence[Unit],
        layout: Layout,
        groups: list[WorkerGroup],
        new_group: Callable[[], WorkerGroup],
        new_worker: Callable[[WorkerGroup], Any],
    ) -> None:
        self._units = units
        self._queue = deque(range(len(units)))
        """Indices of the units that wait; a `Unit`, with its videos, is made when it is given to a
        worker."""
        self._attempts: dict[int, int] = {}
        self._layout, self._groups = layout, groups
        self._new_group, self._new_worker = new_group, new_worker
        self._starting: dict[Any, _Worker] = {}
        """Call that returns when a worker is running -> the worker."""
        self._idle: list[_Worker] = []
        self._busy: dict[Any, tuple[int, _Worker]] = {}
        """Stream of events -> the index of its unit, its worker."""
        self._most = min(len(units), layout.limit or len(units))
        """The most workers that there is work for."""
        self._looked = time.monotonic()
        self._unfit = 0
        """How many workers were ended because their node is unfit."""
        self._no_group_before = self._looked
        """When another group may be asked for; without a busy worker, at once."""

    def run(self) -> Iterator[Event | UnitOpen | Note]:
        for group in self._groups:
            self._start_workers(group)
        while len(self._groups) < self._layout.groups and self._workers() < self._most:
            self._start_group()
        while self._queue or self._busy:
            while self._queue and self._idle:
                self._give(self._idle.pop())
            may_ask = not self._busy or time.monotonic() >= self._no_group_before
            if may_ask and not self._starting and self._queue and self._workers() < self._most:
                self._start_group()  # for a node that joins late; it waits until there is room
            ready: list[Any] = ray.wait(
                [*self._busy, *self._starting], num_returns=1, timeout=LOOK_EVERY_S
            )[0]
            self._close_lost_groups()
            for call in ready:
                if call in self._starting:
                    yield from self._is_up(call)
                else:
                    yield from self._next_event(call)

    def _workers(self) -> int:
        return len(self._idle) + len(self._busy) + len(self._starting)

    def _start_group(self) -> None:
        group = self._new_group()
        self._groups.append(group)
        self._start_workers(group)

    def _start_workers(self, group: WorkerGroup) -> None:
        for _ in range(min(self._layout.workers, self._most - self._workers())):
            self._start_worker(group)

    def _start_worker(self, group: WorkerGroup, starts: int = 1) -> None:
        actor = self._new_worker(group)
        self._starting[actor.ready.remote()] = _Worker(actor, group, starts=starts)

    def _replace(self, worker: _Worker, starts: int = 1) -> None:
        """Start another worker for a lost one, unless its group was closed."""
        if worker.group in self._groups:
            self._start_worker(worker.group, starts)

    def _do_without(self, worker: _Worker, why: TapdistillError) -> Iterator[Note]:
        """End a worker whose node is unfit; its group ends with its last worker.

        Raises:
            TapdistillError: `why`, if units wait and no worker is left.
        """
        ray.kill(worker.actor)
        left = [*self._idle, *self._starting.values(), *(busy for _, busy in self._busy.values())]
        if worker.group in self._groups and all(one.group is not worker.group for one in left):
            self._groups.remove(worker.group)
            worker.group.close()
        starting = (one.group.has_room() for one in self._starting.values())
        if self._queue and not (self._idle or self._busy or any(starting)):
            raise why
        self._unfit += 1
        self._no_group_before = time.monotonic() + self._unfit * UNFIT_PAUSE_S
        yield Note(f"note: the job goes on without a worker: {why}")

    def _close_lost_groups(self) -> None:
        """Close the groups whose node has left; what is busy or starting in them ends with an
        error."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        for group in [group for group in self._groups if group.has_lost_its_node()]:
            self._groups.remove(group)
            self._idle = [worker for worker in self._idle if worker.group is not group]
            group.close()

    def _give(self, worker: _Worker) -> None:
        prefetched = worker.prefetches
        index = prefetched if prefetched is not None and prefetched in self._queue else None
        if index is None:
            index = self._not_prefetched()
        if index is None:  # all are prefetched by other workers
            index = self._queue[0]
        self._queue.remove(index)
        self._attempts[index] = self._attempts.get(index, 0) + 1
        worker.prefetches = self._not_prefetched()
        then = None if worker.prefetches is None else self._units[worker.prefetches]
        call = worker.actor.do.options(num_returns="streaming").remote(self._units[index], then)
        self._busy[call] = (index, worker)

    def _not_prefetched(self) -> int | None:
        """The index of the next unit that no busy worker prefetches; None if there is none."""
        taken = {worker.prefetches for _, worker in self._busy.values()}
        return next((index for index in self._queue if index not in taken), None)

    def _is_up(self, call: Any) -> Iterator[Note]:
        worker = self._starting.pop(call)
        try:
            ray.get(call)
            self._idle.append(worker)
        except RayError as error:
            try:
                why = _as_raised(error)  # raises what is not the cluster's fault
            except InstallationError as fault:  # nothing can be decoded there
                yield from self._do_without(worker, fault)
                return
            others = (one for one in self._starting.values() if one.group.has_room())
            failing = all(one.starts >= ATTEMPTS for one in (worker, *others))
            if failing and worker.group in self._groups and not (self._idle or self._busy):
                raise TransientError(
                    f"a worker was started {worker.starts} times and never came up: {why} Nothing "
                    "committed is lost; fix this and run the same command again."
                ) from error
            given_up = worker.starts >= ATTEMPTS and worker.group in self._groups
            if given_up and (self._idle or self._busy):
                yield from self._do_without(worker, why)
            else:
                self._replace(worker, worker.starts + 1)

    def _next_event(self, stream: Any) -> Iterator[Event | UnitOpen | Note]:
        index, worker = self._busy[stream]
        lost = False
        try:
            yield ray.get(next(stream))
            return
        except StopIteration:
            worker.full = 0
        except RayError as error:
            lost = not isinstance(error, RayTaskError)
            try:
                why = _as_raised(error)
            except (InstallationError, ShardError) as fault:
                own = isinstance(fault, InstallationError)
                yield UnitOpen(self._units[index].number, str(fault), own_fault=own)
            else:
                worker.full = worker.full + 1 if isinstance(why, FullScratchError) else 0
                if self._attempts[index] < ATTEMPTS:
                    self._queue.append(index)
                else:
                    yield UnitOpen(self._units[index].number, str(why))
        del self._busy[stream]
        if worker.full >= ATTEMPTS:
            yield from self._do_without(worker, why)
        elif lost:
            ray.kill(worker.actor)
            self._replace(worker)
        else:
            self._idle.append(worker)


def _check_reachable(address: str) -> None:
    """ConnectionError if nobody listens at "[ray://]host:port": Ray itself would wait for minutes.
    Other forms are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _when_ready(calls: list[Any], layout: Layout) -> list[Any]:
    """The first answers of new actors; TransientError if the cluster has no room for them."""
    try:
        return ray.get(calls, timeout=PLACEMENT_TIMEOUT_S)
    except GetTimeoutError as error:
        raise TransientError(
            f"the cluster had no room within {PLACEMENT_TIMEOUT_S:.0f} s for this layout: "
            f"{layout}. Wait for other jobs, or give fewer --workers."
        ) from error
    except RayError as error:
        raise _as_raised(error) from error


def _as_raised(error: RayError) -> TransientError:
    """The TransientError that a task raised, or one for a lost actor; any other error of a task,
    and a data set without room, is raised as it is."""
    cause: BaseException = error
    # a task that waits for another wraps its error once more
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, RayError):
        return TransientError(
            f"the cluster failed: {type(cause).__name__}: {' '.join(str(cause).split())}"
        )
    of_all = isinstance(cause, FullStorageError) and not isinstance(cause, FullScratchError)
    if not isinstance(cause, TransientError) or of_all:
        raise cause from error
    return cause
