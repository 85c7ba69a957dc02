"""CPUs: how many of this machine's this process may use.

It may be kept to some of the cores (`taskset`, a cpuset), which the kernel tells, or to a part of
the time of all (`docker --cpus`, the limit of a pod), which only the files of its control groups
tell.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LIMITS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""The files with a group's quota and period, in cgroup v2 and v1."""


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs of this machine that this process may use, at least 1; `root` holds `proc` and `sys`."""
    told = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1
    return max(1, int(min([cores, *_limits(root)])))


def _limits(root: Path) -> Iterator[float]:
    """The CPUs that each control group around this process may keep busy, where it has a limit."""
    with contextlib.suppress(OSError):  # not Linux
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            # in a container, the path may be the host's, and only the topmost folder is there
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield from _limit(mounted / group.relative_to("/"))


def _limit(group: Path) -> Iterator[float]:
    for names in LIMITS:
        with contextlib.suppress(OSError):
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
