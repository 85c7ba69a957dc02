"""CPUs: the limits of containers and pods count, which only files of their control groups tell."""

from __future__ import annotations

import os

import pytest

from pipelines.engines.cpus import usable_cpus

V1 = "4:memory:/pod\n3:cpu,cpuacct:/pod/this\n0::/"
V2 = "0::/pod/this"


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        (V2, {"pod/this/cpu.max": "400000 100000\n", "pod/cpu.max": "max 100000\n"}, 4),
        (V2, {"pod/this/cpu.max": "max 100000\n", "pod/cpu.max": "250000 100000\n"}, 2),
        (V2, {"cpu.max": "300000 100000\n"}, 3),  # the path is the host's
        (V2, {"pod/this/cpu.max": "50000 100000\n"}, 1),
        (V2, {"pod/this/cpu.max": "9900000 100000\n"}, 64),
        (V2, {}, 64),
        (V1, {"cpu/pod/cpu.cfs_quota_us": "250000", "cpu/pod/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        (None, {}, 64),
    ],
)
def test_a_limit_of_a_container_counts(tmp_path, monkeypatch, groups, files, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {**texts, **({"proc/self/cgroup": groups} if groups else {})}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == cpus
