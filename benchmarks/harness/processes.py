"""The processes of a labelling job: its driver, those below it, and which of them are left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness.jobs import FRAMES, NEAR, ROOT, STILL

FLAGS = (
    *(
        "--engine",
        "local",
        "--videos-per-unit",
        "2",
        "--clips.frames",
        str(FRAMES),
        "--clips.strides",
        "1",
    ),
    *("--clips.clips-per-video", "2", "--queries.count", "24"),
)
"""The settings of `config` on the command line."""


def start_driver(
    videos: Path, out: Path, teachers: tuple[str, ...] = (STILL, NEAR), *flags: str
) -> subprocess.Popen:
    """`tapdistill label` with those settings, as a process of its own."""
    arguments = ["label", str(videos), "--out", str(out), "--teachers", *teachers, *FLAGS, *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell's background jobs, such as these tests, ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def children_of(pid: int) -> list[int]:
    """Every process below `pid`."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int(
                    (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        below = [child for child, of in parents.items() if of == parent]
        found, todo = found + below, todo + below
    return found


def still_running(pids: list[int], within_s: float) -> list[int]:
    """Those of `pids` that are still there after `within_s`; zombies have ended."""
    deadline = time.monotonic() + within_s
    while True:
        left = [
            pid
            for pid in pids
            if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
