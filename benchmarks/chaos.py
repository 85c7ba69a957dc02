"""Chaos: a labelling job on S3 and a cluster of two nodes, while a killer and a failing network do
their worst.

    python -m benchmarks.chaos --videos 100 --every 20 30 --seed 0

A calm run labels the same videos first, with teachers that do not wait. Then the killer ends one of
these with SIGKILL, again and again: the driver, a unit worker, a teacher, a decoder, the second
node; and a proxy fails 5 % of the S3 requests. A driver that ended is started again until the job
is done. At the end the bytes must equal the calm run's, the accounts must close, `verify` must find
nothing, and no process may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.jobs import ROOT, STILL, tars, write_moving
from benchmarks.harness.processes import FLAGS, children_of, start_driver, still_running
from benchmarks.harness.s3_server import Faults, proxy, s3_server
from benchmarks.harness.teachers import Still
from labeler.io import s3
from labeler.io.storage import Storage
from labeler.shards import tables
from labeler.shards.plan import read_plans
from labeler.shards.records import latest_records
from labeler.shards.verify import verify
from teachers import Tracks

CLIP_S = "CHAOS_CLIP_S"
"""Environment variable: seconds that `Patient` takes for a clip. No setting of the teacher, which
would be in the bytes."""


class Patient(Still):
    """Takes its time, as a learnt teacher does, so that there is something to kill."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        time.sleep(float(os.environ[CLIP_S]))
        return super()._track(frames, queries, seed)


VICTIMS = ("UnitWorker", "TeacherActor", "decoder")
"""Beside the driver and the second node."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--videos", type=int, default=100, help="short videos that are made, of one clip each"
    )
    parser.add_argument("--folder", type=Path, help="videos to take instead")
    parser.add_argument(
        "--every",
        type=float,
        nargs=2,
        default=(20.0, 30.0),
        help="seconds between kills, at least and at most",
    )
    parser.add_argument(
        "--faults", type=float, default=0.05, help="share of the S3 requests that fail"
    )
    parser.add_argument(
        "--teachers", nargs="+", default=[STILL, f"benchmarks.chaos:{Patient.__name__}"]
    )
    parser.add_argument(
        "--clip-s",
        type=float,
        default=8.0,
        help="seconds that the slower of these teachers takes for a clip",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    os.environ |= {
        CLIP_S: "0",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch, s3_server() as port:
        folder = arguments.folder or _videos(Path(scratch) / "videos", arguments.videos)
        share = arguments.faults / 4
        with proxy(
            port, Faults(refuse=share, reset=share, lose=share, slow=share, seed=arguments.seed)
        ) as flaky:
            return Chaos(folder, Path(scratch), flaky, arguments).run()


def _videos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        write_moving(folder / f"{i:04d}.mp4", seed=i)
    return folder


def _two_nodes() -> tuple[Any, Any]:
    """A cluster, and its second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    return cluster, cluster.add_node(num_cpus=1)


class Chaos:
    """One run."""

    def __init__(
        self, videos: Path, scratch: Path, flaky: object, arguments: argparse.Namespace
    ) -> None:
        self.videos, self.scratch, self.flaky, self.arguments = videos, scratch, flaky, arguments
        self.random = random.Random(arguments.seed)
        self.killed: Counter[str] = Counter()
        self.before = set(children_of(os.getpid()))
        s3.use(endpoint=flaky.url)
        self.url = "s3://chaos/labels"
        Storage("s3://chaos").fs.mkdir("chaos")

    def run(self) -> int:
        calm = self.scratch / "calm"
        started = time.monotonic()
        driver = start_driver(self.videos, calm, tuple(self.arguments.teachers))
        said, _ = driver.communicate()
        assert driver.returncode == 0, said
        print(f"calm run: {time.monotonic() - started:.0f} s", flush=True)
        os.environ[CLIP_S] = str(self.arguments.clip_s)
        self.cluster, self.node = _two_nodes()

        started, starts = time.monotonic(), 0
        while True:
            starts += 1
            driver = self._start()
            if self._kill_until_it_ends(driver) == 0:
                break
        seconds = time.monotonic() - started
        self.cluster.shutdown()

        storage = Storage(self.url)
        plans, records = read_plans(storage), latest_records(storage)
        accounts = tables.accounts(plans, records)  # raises if they do not add up
        found = list(verify(storage))
        left = still_running(
            [pid for pid in children_of(os.getpid()) if pid not in self.before], within_s=30
        )
        equal = tars(self.url) == tars(calm)
        print(f"chaos run: {seconds:.0f} s, the driver started {starts} times")
        killed = ", ".join(f"{count} {name}" for name, count in self.killed.most_common())
        print(f"killed: {killed or 'nothing'}")
        print(
            f"S3 requests: {self.flaky.requests.total()}, failed on purpose: "
            f"{dict(self.flaky.failed)}"
        )
        print(
            f"videos: {accounts.videos} = {accounts.done} done + {accounts.videos_left_out} left "
            f"out + {accounts.videos_failed} failed"
        )
        print(f"bytes equal to the calm run: {equal}")
        problems = [one for one in found if not one.harmless]
        print(f"verify: {len(problems)} problems, {len(found) - len(problems)} leftovers")
        print(f"processes left: {len(left)}")
        return 0 if equal and not (left or problems or accounts.open) else 1

    def _start(self) -> subprocess.Popen:
        command = [
            "label",
            str(self.videos),
            "--out",
            self.url,
            "--teachers",
            *self.arguments.teachers,
            *FLAGS,
        ]
        flags = ["--engine", "ray", "--ray-address", self.cluster.address]
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command, *flags],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=(self.scratch / "driver.log").open("ab"),
            stderr=subprocess.STDOUT,
        )

    def _kill_until_it_ends(self, driver: subprocess.Popen) -> int:
        """The driver's exit code; something is killed every now and then."""
        while True:
            try:
                return driver.wait(self.random.uniform(*self.arguments.every))
            except subprocess.TimeoutExpired:
                self._kill_one(driver)

    def _kill_one(self, driver: subprocess.Popen) -> None:
        """One of the kinds of process that are there now."""
        alive = {"driver": [driver.pid], **{name: self._processes(name) for name in VICTIMS}}
        victim = self.random.choice(["node", *(name for name, pids in alive.items() if pids)])
        if victim == "node":
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self.cluster.add_node(num_cpus=1)
        else:
            os.kill(self.random.choice(alive[victim]), signal.SIGKILL)
        self.killed[victim] += 1
        print(f"killed: {victim}", flush=True)

    def _processes(self, victim: str) -> list[int]:
        """Processes of this run that are a `victim`."""
        found = []
        for pid in children_of(os.getpid()):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line.startswith(f"ray::{victim}".encode()) or (
                victim == "decoder" and b"labeler.clips.isolate" in line
            ):
                found.append(pid)
        return found


if __name__ == "__main__":
    sys.exit(main())
