"""Shares of a cluster: who reserves a GPU, and what a process of a training takes."""

from __future__ import annotations

import pytest

from pipelines.engines.common import TeacherSpec
from pipelines.engines.layout import WORKERS_PER_GPU, lay_out, share_of_rank
from teachers import ConfigError


def on_gpu(*names: str, device: str = "auto") -> int:
    return sum(TeacherSpec(name=name, device=device).on_gpu for name in names)


def test_networks_compute_on_a_gpu_and_others_do_not():
    assert on_gpu("cotracker3-offline", "tapir", "xfeat", "tapir-mini") == 4
    assert on_gpu("lk", "flow", "match") == 0
    assert on_gpu("round-1", "mypackage.tracker:Mine") == 2  # what may be one
    assert on_gpu("tapir", "lk", device="cpu") == 0


def test_a_job_on_cpus_reserves_no_gpu_and_uses_every_node():
    layout = lay_out([(64, 8), (32, 0)], teachers=2, workers=None, networks=0)
    assert (layout.gpus, layout.group_gpus, layout.idle) == (0, 0, 0)
    assert layout.groups == 64 + 32
    assert layout == lay_out([(64, 0), (32, 0)], teachers=2, workers=None)
    assert "GPU" not in str(layout)


def test_teachers_that_are_no_networks_leave_the_gpu_to_the_others():
    layout = lay_out([(16, 1), (32, 0)], teachers=4, workers=None, networks=2)
    assert layout.gpus == 0.5
    assert "0.5 GPU for each of 2 networks" in str(layout)
    assert "1 node without a GPU not used: label there" in str(layout)
    assert str(lay_out([(8, 1)], 2, None, networks=2)) == str(lay_out([(8, 1)], 2, None))


def test_a_gpu_has_so_many_workers_however_many_cores_there_are():
    assert lay_out([(224, 1)], teachers=4, workers=None).workers == WORKERS_PER_GPU == 16
    assert lay_out([(224, 1)], teachers=4, workers=64).workers == 64
    assert lay_out([(224, 8)], teachers=4, workers=None).workers == 16
    assert lay_out([(64, 8)], teachers=4, workers=None).workers == 8


@pytest.mark.parametrize(
    ("nodes", "workers", "readers", "device", "cpus", "gpus"),
    [
        ([(64, 8)] * 4, 32, 8, "auto", 8, 1),  # as far as the node has CPUs
        ([(128, 8)] * 4, 32, 8, "auto", 9, 1),  # itself and its readers
        ([(16, 1), (64, 0)], 1, 0, "cuda", 1, 1),
        ([(64, 8)], 8, 8, "cpu", 8, 0),
        ([(2, 0)], 2, 8, "auto", 1, 0),
        ([(4, 0), (4, 0)], 2, 1, "auto", 2, 0),
        ([(1, 0)], 2, 0, "auto", 1, 0),  # waits for room, and says so
    ],
)
def test_a_process_takes_a_gpu_and_cpus_for_its_readers(
    nodes, workers, readers, device, cpus, gpus
):
    share = share_of_rank(nodes, workers, readers, device, batch=32)
    assert (share.cpus, share.gpus) == (cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "workers", "at_once", "words"),
    [
        ([(64, 8)], 32, 1, r"has 8 GPUs, .* give --workers 8 "),
        ([(64, 8), (64, 4)], 32, 1, r"has 12 GPUs, .* give --workers 8 "),  # 12 do not divide 32
        ([(64, 8)], 32, 8, r"give --workers 4 "),
        ([(8, 1)], 2, 1, r"has 1 GPU, .* give --workers 1 "),
    ],
)
def test_more_processes_than_gpus_are_refused_with_the_right_number(nodes, workers, at_once, words):
    with pytest.raises(ConfigError, match=words):
        share_of_rank(nodes, workers, 8, "auto", batch=32, at_once=at_once)
    assert share_of_rank(nodes, 2, 0, "cpu", batch=32).gpus == 0
    with pytest.raises(ConfigError, match=r"has 0 GPUs, .* take a node with GPUs"):
        share_of_rank([(8, 0)], 2, 0, "cuda", batch=32)
