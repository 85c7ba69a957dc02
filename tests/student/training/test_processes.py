"""Processes: several that train together take the steps that one takes, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from pipelines.cli import run as tapdistill
from pipelines.engines.ray_training import TrainWorker
from student.data.config import DataConfig
from student.training import processes
from student.training.config import TrainConfig
from student.training.processes import ALONE, Processes, joined, joined_by_torchrun
from student.training.train import train
from teachers.errors import ConfigError, ShardError
from tests.support.training import (
    CLIPS,
    SCRATCH,
    assert_close_weights,
    assert_same_weights,
    environment,
    train_as_two,
    two_processes,
)

DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=2)
FLAGS = (
    *CLIPS,
    *SCRATCH,
    *("--batch", "2", "--learning-rate", "1e-3", "--clip-norm", "1", "--warm-up", "0.05"),
    *("--keep", "9"),
)
"""A mini run on the command line: two clips a step."""
TAPIR_FLAGS = (
    *CLIPS,
    *("--batch", "2", "--student", "tapir", "--init", "tapir-mini", "--learning-rate", "1e-4"),
    *("--ema", "2", "--keep", "9"),
)
"""The mini TAPIR that is shipped, with a running mean of its weights."""


def config(steps: int, **settings) -> TrainConfig:
    small = {"iterations": 2, "device": "cpu", "checkpoint_every": 1, "calibration_clips": 1}
    return TrainConfig.from_scratch(DATA, steps, **(small | settings))


def test_a_process_alone_sends_nothing():
    values = torch.tensor([1.0, 2.0])
    assert ALONE.mean(values) is values
    assert ALONE.gather("mine") == ["mine"]
    assert ALONE.from_first(lambda: 3) == 3
    assert ALONE.first
    assert not Processes(rank=1, world=2).first


def test_gradients_of_several_parts_add_up_to_that_of_the_whole_batch(tmp_path):
    """Accumulation is no other training: the same first step, but for rounding."""
    together = train(
        replace(config(1), data=replace(DATA, at_once=2)), tmp_path / "together"
    ).weights
    apart = train(config(1), tmp_path / "apart").weights
    assert_close_weights(together, apart)


def test_a_checkpoint_may_be_gone_on_with_in_other_parts(tmp_path):
    train(config(1), tmp_path)
    assert train(replace(config(1), data=replace(DATA, at_once=2)), tmp_path).steps == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workers", "0"), "--workers 0: must be at least 1"),
        (("--ray-address", "auto"), "one process needs no cluster"),
    ],
)
def test_workers_that_cannot_be_right_are_refused(tmp_path, capsys, flags, message):
    assert tapdistill(["train", *FLAGS, "--out", str(tmp_path), *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_process_takes_the_gpu_of_its_number_before_it_asks_any(monkeypatch):
    """Whatever is asked of a GPU makes a context there, which takes half a GiB; and there must be
    one of that number."""
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)

    def picked(name):
        done.append(name)
        return torch.device("cuda")

    store = torch.distributed.HashStore()
    for other in range(3):
        store.set(f"device/{other}", "cuda of another process")
    monkeypatch.setattr(processes, "pick_device", picked)
    monkeypatch.setattr(processes, "rendezvous", lambda *_, **__: iter([(store, 3, 4)]))
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    for device in ("cuda", "auto"):
        with joined(device, 3, 4, 1, "env://"):
            assert done == [1, device]
        done.clear()
        with (
            pytest.raises(ConfigError, match=r"only 2 GPUs.*--nproc-per-node 2"),
            joined(device, 3, 4, 2, "env://"),
        ):
            pass
    assert done == []


class Beside(Processes):
    """One of two processes, of which the other one answers with `heard`."""

    heard: ClassVar[list[object]]

    def gather(self, value):
        return [value, self.heard.pop(0)]

    def from_first(self, make):
        return make()


def test_processes_that_find_other_clips_do_not_train_together(tmp_path, monkeypatch):
    """As while somebody labels into the data: they would take some clips twice, others never."""
    monkeypatch.setattr(Beside, "heard", raising=False, value=[None, "another digest"])
    with pytest.raises(ShardError, match="process 1 finds other clips there than process 0"):
        train(config(1), tmp_path, processes=Beside(0, 2))


def test_data_that_another_process_cannot_read_are_an_error_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Beside, "heard", raising=False, value=[ShardError("labels: does not exist.")]
    )
    with pytest.raises(ShardError, match=r"labels: does not exist"):
        train(config(1), tmp_path, processes=Beside(0, 2))


# --- two processes on Ray, and under torchrun


def test_a_worker_takes_relative_paths_as_the_driver_does(tmp_path, monkeypatch):
    for name in ("driver", "ray"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "ray")
    TrainWorker(str(tmp_path / "gone"))  # a node without that folder
    assert Path.cwd() == tmp_path / "ray"
    TrainWorker(str(tmp_path / "driver"))
    assert Path.cwd() == tmp_path / "driver"


@pytest.mark.slow
def test_two_workers_on_ray_take_the_steps_that_one_process_takes(tmp_path, ray_cluster, capsys):
    alone = train(config(3), tmp_path / "alone").weights
    assert (
        tapdistill(
            ["train", *FLAGS, "--steps", "3", "--workers", "2", "--out", str(tmp_path / "ray")]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "with 6 points in 2 processes, clips 100% procedural" in said
    assert "3 steps done" in said
    assert_close_weights(alone, tmp_path / "ray" / "student.safetensors")


@pytest.mark.slow
def test_workers_on_ray_begin_with_the_file_that_the_driver_names(
    tmp_path, ray_cluster, monkeypatch
):
    train(config(1), tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    begin = ("--init", "first/student.safetensors", "--visibility", "exact")
    flags = ("--batch", "2", "--steps", "1", "--workers", "2", "--out", "second")
    assert tapdistill(["train", *CLIPS, *begin, *flags]) == 0


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_sentence(tmp_path, ray_cluster, capsys):
    (tmp_path / "file").write_text("")
    flags = ["--steps", "1", "--workers", "2", "--out", str(tmp_path / "file" / "out")]
    assert tapdistill(["train", *FLAGS, *flags]) == 1
    error = capsys.readouterr().err
    assert "file" in error
    assert "Traceback" not in error
    assert tapdistill(["train", *FLAGS, "--batch", "3", *flags]) == 1
    assert "batch = 3 cannot be shared by 2 processes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("flags", [FLAGS, TAPIR_FLAGS], ids=["cotracker3", "tapir"])
def test_two_processes_that_are_killed_go_on_to_the_same_weights(flags, tmp_path):
    """Under torchrun, `kill -9` of one rank at a random moment ends both; then again, to the end.
    Bit for bit as never killed."""
    process = train_as_two(tmp_path / "killed", *flags, "--steps", "8")
    checkpoints = tmp_path / "killed" / "checkpoints"
    while process.poll() is None and len(list(checkpoints.glob("*.pt"))) < 2:
        time.sleep(0.05)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    ranks = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    if ranks:
        os.kill(int(ranks[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    for folder in ("killed", "whole"):
        process = train_as_two(tmp_path / folder, *flags, "--steps", "8")
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert said.count("8 steps done") == 1  # one of the two speaks
    assert_same_weights(
        *(tmp_path / folder / "student.safetensors" for folder in ("killed", "whole"))
    )


@pytest.mark.slow
def test_two_processes_take_the_steps_of_a_tapir_that_one_takes(tmp_path):
    """With the same batch over all of them; also the mean of the weights is the same."""
    flags = [*TAPIR_FLAGS, "--steps", "3"]
    assert tapdistill(["train", *flags, "--out", str(tmp_path / "alone")]) == 0
    said, _ = (process := train_as_two(tmp_path / "both", *flags)).communicate(timeout=200)
    assert process.returncode == 0, said
    assert_close_weights(
        *(tmp_path / folder / "student.safetensors" for folder in ("alone", "both"))
    )


def said_under_torchrun(text: str, folder: Path) -> list[str]:
    """What each of two processes of a program says of itself; its argument is an output folder."""
    script = folder / "script.py"
    script.write_text(text)
    root = str(Path(__file__).parents[3])
    command = two_processes(str(script), str(folder / "out"))
    done = subprocess.run(
        command,
        env={**environment(), "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))


POISONED = """
import sys
from pathlib import Path
from unittest import mock

import torch

from student.data.mixture import Batches
from student.training.processes import joined_by_torchrun
from student.training.train import training
from student.training.events import StepSkipped
from tests.student.training.test_processes import config

torch.set_num_threads(1)
with joined_by_torchrun("cpu") as processes:
    next_batch, numbers = Batches.__next__, iter(range(99))

    def poisoned(stream):
        batch = next_batch(stream)
        if next(numbers) == 1 and processes.rank == 1:
            batch.queries[:] = torch.nan
        return batch

    with mock.patch.object(Batches, "__next__", poisoned):
        skipped = [
            event.keys
            for event in training(config(2), Path(sys.argv[1]), True, processes)
            if isinstance(event, StepSkipped)
        ]
    print(f"rank {processes.rank} skipped {skipped}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_one_process_is_skipped_by_all(tmp_path):
    said = said_under_torchrun(POISONED, tmp_path)
    assert said == [f"rank {rank} skipped [('procedural-3',)]" for rank in range(2)]


WITHOUT_SHARD = """
import sys
from pathlib import Path
from unittest import mock

import torch

from student.data.mixture import Batches
from student.training.processes import joined_by_torchrun
from student.training.train import training
from teachers.errors import ShardError
from tests.student.training.test_processes import config

torch.set_num_threads(1)
with joined_by_torchrun("cpu") as processes:
    next_batch, numbers = Batches.__next__, iter(range(99))

    def gone(stream):
        if next(numbers) == 1 and processes.rank == 1:
            raise ShardError("labels/7.tar does not exist.")
        return next_batch(stream)

    with mock.patch.object(Batches, "__next__", gone):
        try:
            for _ in training(config(3), Path(sys.argv[1]), True, processes):
                pass
        except ShardError as error:
            print(f"rank {processes.rank}: {error}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_an_error_of_one_process_is_raised_by_all(tmp_path):
    said = said_under_torchrun(WITHOUT_SHARD, tmp_path)
    assert said == [f"rank {rank}: labels/7.tar does not exist." for rank in range(2)]


def test_processes_of_which_some_have_no_gpu_say_which():
    store, world = torch.distributed.HashStore(), 3
    for rank, kind in enumerate(("cuda", "cpu")):
        store.set(f"device/{rank}", f"{kind} of node{rank}")
    with pytest.raises(ConfigError, match=r"process 1 found no GPU \(cpu of node1\)"):
        processes._require_one_kind(store, "cuda", 2, world)
    store.set("device/1", "cuda of node1")
    processes._require_one_kind(store, "cuda", 2, world)


@pytest.mark.slow
def test_under_torchrun_workers_are_not_asked_for(tmp_path):
    process = train_as_two(tmp_path, *FLAGS, "--steps", "1", "--workers", "2")
    said, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "--workers under torchrun" in said


def test_under_torchrun_a_device_has_no_number(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with (
        pytest.raises(ConfigError, match="each process takes the GPU of its number"),
        joined_by_torchrun("cuda:1"),
    ):
        pass


THREADS = """
import os
import sys
import torch
from student.training.processes import joined_by_torchrun

with joined_by_torchrun("cpu") as processes:
    torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    processes.gather(processes.rank)
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
sys.stdout.write(f"{[name for name in names if 'gloo' in name]}\\n")  # at once: there are two
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for threads in /proc")
def test_no_thread_of_a_group_is_left_that_could_abort_the_process_at_its_end(tmp_path):
    (tmp_path / "program.py").write_text(THREADS)
    command = two_processes(str(tmp_path / "program.py"))
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr
