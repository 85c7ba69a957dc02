"""Small labelling jobs: videos that move, a config that is quick, and the processes of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.video.encode import encode_clip
from pipelines.jobs.config import LabelConfig

ROOT = Path(__file__).parents[2]
STILL, NEAR = (f"benchmarks.harness.teachers:{name}" for name in ("Still", "Near"))

FRAMES = 16
"""Of a clip."""


def write_moving(path: Path, seed: int, frames: int = FRAMES) -> Path:
    """A video of 48 x 64 px in which a texture moves by a pixel a frame, without a cut."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64 + frames, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (5, 5), 1.5)
    path.write_bytes(encode_clip(np.stack([texture[:, i : i + 64] for i in range(frames)]), fps=24))
    return path


def config(
    videos: Path, out: Path | str, teachers: tuple[str, ...] = (STILL, NEAR), **changes: Any
) -> LabelConfig:
    """A job of one or two seconds on the local engine: 24 queries in clips of 16 frames, two videos
    a unit."""
    settings: dict[str, Any] = {
        "engine": "local",
        "videos_per_unit": 2,
        "clips": ClipConfig(frames=FRAMES, strides=(1,), clips_per_video=2),
        "queries": QueryConfig(count=24),
    }
    return LabelConfig(
        videos=(str(videos),), out=str(out), teachers=teachers, **{**settings, **changes}
    )


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
"""The same settings on the command line."""


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


def tars(out: Path | str) -> dict[str, bytes]:
    """Every tar that a record names, by file name: what a reader of the data set sees."""
    from labeler.io.storage import Storage
    from labeler.shards.records import latest_records

    storage = Storage(str(out))
    return {
        record.tar: storage.read(record.tar) for record in latest_records(storage) if record.tar
    }


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
