"""Layout: how a Ray cluster is divided into groups of actors, and what each of them takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.wording import counted
from teachers.errors import ConfigError

WORKERS_PER_GPU = 16
"""Unit workers for each GPU, unless the user wants more: each decodes and encodes about one clip in
two seconds on its CPU, and four official teachers take longer than that for one clip on any GPU of
today. On nodes with hundreds of cores, more workers would only hold more clips in memory."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The resource table of a job: what a group holds, and what each of its actors takes."""

    groups: int
    """How many groups fit into the cluster now."""
    workers: int
    """Unit workers in a group."""
    teachers: int
    """Teacher actors in a group, one for each teacher."""
    group_cpus: float
    group_gpus: float
    limit: int | None
    """The most unit workers that the user wants."""
    networks: int | None = None
    """How many of the teachers are networks, which share the GPU of the group; None: all."""
    idle: int = 0
    """Nodes without a GPU, which a job with networks does not use."""

    @property
    def cpus(self) -> float:
        """CPUs of each actor."""
        return _floor(min(1.0, self.group_cpus / (self.workers + self.teachers)))

    @property
    def gpus(self) -> float:
        """GPUs of each teacher actor that is a network."""
        networks = self.teachers if self.networks is None else self.networks
        return _floor(self.group_gpus / networks) if networks else 0.0

    @property
    def bundle(self) -> dict[str, float]:
        """The resources that a group asks for."""
        return {"CPU": self.group_cpus} | ({"GPU": self.group_gpus} if self.group_gpus else {})

    def workers_on(self, cpus: float, gpus: float) -> int:
        """The most unit workers on a node with that many CPUs and GPUs."""
        groups = int(cpus / self.group_cpus + 1e-9)
        if self.group_gpus:
            groups = min(groups, int(gpus / self.group_gpus))
        return min(groups * self.workers, self.limit or groups * self.workers)

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        if gpus and self.networks is not None and self.networks < self.teachers:
            gpus += f" for each of {counted(self.networks, 'network')}"
        idle = (
            f"; {counted(self.idle, 'node')} without a GPU not used: label there with the teachers "
            "that are not networks, or with --device cpu, into the same data set"
            if self.idle
            else ""
        )
        share = f"{round(self.cpus, 2):g} CPU"
        return (
            f"Ray: {counted(self.groups, 'group')} of {self.group_cpus:g} "
            f"CPU{f' and {self.group_gpus:g} GPU' if self.group_gpus else ''}; in each "
            f"{counted(self.workers, 'unit worker')} of {share} and "
            f"{counted(self.teachers, 'teacher')} of {share}{gpus}{idle}"
        )


def lay_out(
    nodes: Sequence[tuple[float, float]],
    teachers: int,
    workers: int | None,
    networks: int | None = None,
) -> Layout:
    """Divide a cluster into groups.

    With GPUs, a group has one GPU, its share of the node's CPUs, and a unit worker for each of
    those, `WORKERS_PER_GPU` at most; without, it has one CPU, or more where few `workers` are
    wanted, and one unit worker. A job without networks uses the CPUs of every node and reserves no
    GPU; one with networks uses the nodes that have GPUs.

    Args:
        nodes: (CPUs, GPUs) of each node.
        teachers: how many teachers the job has.
        workers: the most unit workers, over all groups; None is as many as fit.
        networks: how many of the teachers compute on a GPU if there is one; None: all.
    """
    with_gpu = [(cpus, gpus) for cpus, gpus in nodes if gpus >= 1 and networks != 0]
    if with_gpu:
        group_cpus = _floor(min(cpus / int(gpus) for cpus, gpus in with_gpu))
        groups = sum(int(gpus) for _, gpus in with_gpu)
        most = math.ceil(workers / groups) if workers else WORKERS_PER_GPU
        each = max(1, min(int(group_cpus), most))
        return Layout(
            groups=groups,
            workers=each,
            teachers=teachers,
            group_cpus=group_cpus,
            group_gpus=1.0,
            limit=workers,
            networks=networks,
            idle=len(nodes) - len(with_gpu),
        )
    sizes = [cpus for cpus, _ in nodes]
    wanted = workers or max(1, int(sum(sizes)))
    group_cpus = _floor(min(_largest_share(sizes, wanted), 1.0 + teachers))
    groups = min(wanted, _parts(sizes, group_cpus))
    return Layout(
        groups=groups,
        workers=1,
        teachers=teachers,
        group_cpus=group_cpus,
        group_gpus=0.0,
        limit=workers,
    )


def _largest_share(sizes: Sequence[float], wanted: int) -> float:
    """The largest number of CPUs that fits `wanted` times into the nodes, each time on one node."""
    candidates = {size / k for size in set(sizes) for k in range(1, wanted + 1)}
    return max(share for share in candidates if _parts(sizes, share) >= wanted)


def _parts(sizes: Sequence[float], share: float) -> int:
    return sum(int(size / share + 1e-9) for size in sizes)


def _floor(share: float) -> float:
    """Rounded down to 1/10,000, the unit in which Ray counts resources."""
    return math.floor(share * 10_000) / 10_000


@dataclass(frozen=True, kw_only=True)
class RankShare:
    """The resources that one process of a training takes."""

    cpus: float
    gpus: float


def share_of_rank(
    nodes: Sequence[tuple[float, float]],
    workers: int,
    readers: int,
    device: str,
    batch: int,
    at_once: int = 1,
) -> RankShare:
    """A GPU for each process where the cluster has them, and CPUs for itself and its readers, as
    far as the nodes have them.

    Args:
        nodes: (CPUs, GPUs) of each node.
        workers: processes of the training.
        readers: readers of each process.
        device: "auto", "cpu", or "cuda".
        batch, at_once: those of the training, which decide how many processes are possible.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    gpus = int(sum(int(gpus) for _, gpus in nodes))
    if device == "cpu" or (device == "auto" and not gpus):
        sizes = [cpus for cpus, _ in nodes]
        fitting = [n for n in range(1, 2 + readers) if _parts(sizes, float(n)) >= workers]
        return RankShare(cpus=float(max(fitting, default=1)), gpus=0.0)
    if workers > gpus:
        possible = [n for n in range(1, gpus + 1) if batch % (n * at_once) == 0]
        instead = f"give --workers {max(possible)}" if possible else "take a node with GPUs"
        raise ConfigError(
            f"--workers {workers}: the cluster has {counted(gpus, 'GPU')}, and two processes on "
            f"one GPU would only wait for each other: {instead} (gradients of the rest of the "
            "batch are added up), or --device cpu."
        )
    least = min(cpus / int(gpus) for cpus, gpus in nodes if gpus >= 1)
    return RankShare(cpus=float(max(1, min(1 + readers, int(least)))), gpus=1.0)
