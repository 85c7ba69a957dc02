"""How a Ray cluster is shared out: groups of actors, and what each of them takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.wording import counted


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The resource table of a job: what a group holds, and what each of its actors takes."""

    groups: int
    """That fit into the cluster now."""
    workers: int
    """Unit workers of a group."""
    teachers: int
    """Teacher actors of a group, one of each."""
    group_cpus: float
    group_gpus: float
    limit: int | None
    """Most unit workers that the user wants."""

    @property
    def cpus(self) -> float:
        """CPUs of each actor."""
        return _floor(min(1.0, self.group_cpus / (self.workers + self.teachers)))

    @property
    def gpus(self) -> float:
        """GPUs of each teacher actor."""
        return _floor(self.group_gpus / self.teachers)

    @property
    def bundle(self) -> dict[str, float]:
        """What a group asks for."""
        return {"CPU": self.group_cpus} | ({"GPU": self.group_gpus} if self.group_gpus else {})

    def workers_on(self, cpus: float, gpus: float) -> int:
        """Most unit workers on a node with so many CPUs and GPUs."""
        groups = int(cpus / self.group_cpus + 1e-9)
        if self.group_gpus:
            groups = min(groups, int(gpus / self.group_gpus))
        return min(groups * self.workers, self.limit or groups * self.workers)

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return (
            f"Ray: {counted(self.groups, 'group')} of {self.group_cpus:g} "
            f"CPU{f' and {self.group_gpus:g} GPU' if self.group_gpus else ''}; in each "
            f"{counted(self.workers, 'unit worker')} of {self.cpus:g} CPU and "
            f"{counted(self.teachers, 'teacher')} of {self.cpus:g} CPU{gpus}"
        )


def lay_out(nodes: Sequence[tuple[float, float]], teachers: int, workers: int | None) -> Layout:
    """Share a cluster out.

    With GPUs a group is one GPU, its share of its node's CPUs, and a unit worker for each of those;
    without, it is one CPU, or more where few `workers` are wanted, and one unit worker.

    Args:
        nodes: (CPUs, GPUs) of each.
        teachers: of the job.
        workers: most unit workers, over all groups; None is as many as fit.
    """
    with_gpu = [(cpus, gpus) for cpus, gpus in nodes if gpus >= 1]
    if with_gpu:
        group_cpus = _floor(min(cpus / int(gpus) for cpus, gpus in with_gpu))
        groups = sum(int(gpus) for _, gpus in with_gpu)
        each = max(
            1, min(int(group_cpus), math.ceil(workers / groups) if workers else int(group_cpus))
        )
        return Layout(
            groups=groups,
            workers=each,
            teachers=teachers,
            group_cpus=group_cpus,
            group_gpus=1.0,
            limit=workers,
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
    """The largest number of CPUs of which the nodes hold `wanted`, each on one node."""
    candidates = {size / k for size in set(sizes) for k in range(1, wanted + 1)}
    return max(share for share in candidates if _parts(sizes, share) >= wanted)


def _parts(sizes: Sequence[float], share: float) -> int:
    return sum(int(size / share + 1e-9) for size in sizes)


def _floor(share: float) -> float:
    """Ray counts resources in units of 1/10,000."""
    return math.floor(share * 10_000) / 10_000
