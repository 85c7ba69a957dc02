"""A Ray cluster of several nodes on this machine: one that leaves costs its clips in flight, one
that joins late is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.harness.jobs import STILL, config, moving_videos, tars
from benchmarks.harness.processes import children_of, start_driver
from labeler.io.storage import Storage
from labeler.shards.verify import verify
from pipelines.jobs.labelling import label
from tests.pipelines.engines.test_ray import title_of
from tests.support.jobs import ROOT, SLOW, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc"
    ),
]
TEACHERS = (STILL, SLOW)


@pytest.fixture
def cluster():
    """A head with one CPU, so with room for one group; add_node and remove_node change it."""
    from ray.cluster_utils import Cluster

    running = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield running
    running.shutdown()


@pytest.fixture
def videos(tmp_path):
    return moving_videos(tmp_path / "videos", 16)


def workers_at_work() -> int:
    """Unit workers of this session's clusters that do a unit now."""
    return sum(title_of(pid).startswith("ray::UnitWorker") for pid in children_of(os.getpid()))


STATES = """
import sys, ray
from ray.util.placement_group import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False)
print(*(group["state"] for group in placement_group_table().values()))
"""


def states_of_groups(address: str) -> list[str]:
    """Of the groups of a cluster; asked by a process of its own, because this one may be connected
    to another cluster."""
    command = [sys.executable, "-c", STATES, address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def committed(out: Path) -> int:
    return len(list(out.glob("shards/*.json")))


def wait_until(happened, driver, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    wait_for(lambda: happened() or time.monotonic() > deadline, driver)


def test_a_node_that_joins_late_is_used(videos, cluster, tmp_path):
    out = tmp_path / "out"
    driver = start_driver(
        videos, out, TEACHERS, "--engine", "ray", "--ray-address", cluster.address
    )
    wait_until(lambda: committed(out) > 0, driver)
    assert workers_at_work() == 1
    cluster.add_node(num_cpus=1)
    wait_until(lambda: workers_at_work() == 2, driver)
    assert workers_at_work() == 2
    said, _ = driver.communicate()
    assert driver.returncode == 0, said
    label(config(videos, tmp_path / "alone", TEACHERS))
    assert tars(out) == tars(tmp_path / "alone")


def test_a_node_that_leaves_costs_no_clip_and_no_byte(videos, cluster, tmp_path):
    out = tmp_path / "out"
    node = cluster.add_node(num_cpus=1)
    driver = start_driver(
        videos, out, TEACHERS, "--engine", "ray", "--ray-address", cluster.address
    )
    wait_until(lambda: committed(out) > 0 and workers_at_work() == 2, driver)
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: "REMOVED" in states_of_groups(cluster.address), driver)
    states = states_of_groups(cluster.address)
    assert "REMOVED" in states, "its group was given up"
    assert "RESCHEDULING" not in states, "Ray busies itself with such a group"
    said, _ = driver.communicate()
    assert driver.returncode == 0, said
    assert list(verify(Storage(str(out)))) == []
    label(config(videos, tmp_path / "alone", TEACHERS))
    assert tars(out) == tars(tmp_path / "alone")


def test_a_driver_killed_on_a_cluster_leaves_the_cluster_and_nothing_else(
    videos, cluster, tmp_path
):
    out = tmp_path / "out"
    flags = ("--engine", "ray", "--ray-address", cluster.address)
    driver = start_driver(videos, out, TEACHERS, *flags)
    wait_until(lambda: committed(out) > 0, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    deadline = time.monotonic() + 60
    while workers_at_work() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers_at_work() == 0
    again = start_driver(videos, out, TEACHERS, *flags)
    said, _ = again.communicate()
    assert again.returncode == 0, said


def test_a_cluster_without_a_worker_yet_says_so(videos, tmp_path):
    from ray.cluster_utils import Cluster

    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        driver = start_driver(
            videos, tmp_path / "out", TEACHERS, "--engine", "ray", "--ray-address", head.address
        )
        said, _ = driver.communicate(timeout=120)
    finally:
        head.shutdown()
    assert driver.returncode == 1
    assert "the Ray cluster has no node with CPUs yet" in said
    assert "Traceback" not in said


@pytest.mark.timeout(900)
def test_chaos_changes_no_byte():
    """The short form of `benchmarks/chaos.py`, which checks bytes, accounts, `verify`, and
    processes itself."""
    command = [
        "-m",
        "benchmarks.chaos",
        "--videos",
        "8",
        "--clip-s",
        "4",
        "--every",
        "10",
        "16",
        "--seed",
        "3",
    ]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "killed:" in done.stdout
