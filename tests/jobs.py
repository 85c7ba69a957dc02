"""Small labelling jobs: videos that move, a config that is quick, and what a job left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from labeler.clips import ClipConfig
from labeler.encode import encode_clip
from labeler.queries import QueryConfig
from pipelines.label import LabelConfig

ROOT = Path(__file__).parent.parent
STILL, NEAR, FAR, SLOW = (f"tests.stub_teachers:{name}" for name in ("Still", "Near", "Far", "Slow"))
FRAMES = 16
"""Of a clip."""


def write_moving(path: Path, seed: int, frames: int = FRAMES) -> Path:
    """A video of 48 x 64 px in which a texture moves by a pixel a frame, without a cut."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64 + frames, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (5, 5), 1.5)
    path.write_bytes(encode_clip(np.stack([texture[:, i : i + 64] for i in range(frames)]), fps=24))
    return path


def config(videos: Path, out: Path | str, teachers: tuple[str, ...] = (STILL, NEAR), **changes: Any) -> LabelConfig:
    """A job of one or two seconds on the local engine: 24 queries in clips of 16 frames, two videos a unit."""
    settings: dict[str, Any] = {
        "engine": "local",
        "videos_per_unit": 2,
        "clips": ClipConfig(frames=FRAMES, strides=(1,), clips_per_video=2),
        "queries": QueryConfig(count=24),
    }
    return LabelConfig(videos=(str(videos),), out=str(out), teachers=teachers, **{**settings, **changes})


FLAGS = (
    *("--engine", "local", "--videos-per-unit", "2", "--clips.frames", str(FRAMES), "--clips.strides", "1"),
    *("--clips.clips-per-video", "2", "--queries.count", "24"),
)
"""The same settings on the command line."""


def start_driver(videos: Path, out: Path, teachers: tuple[str, ...] = (STILL, NEAR), *flags: str) -> subprocess.Popen:
    """`tapdistill label` with those settings, as a process of its own."""
    arguments = ["label", str(videos), "--out", str(out), "--teachers", *teachers, *FLAGS, *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs, such as these tests, ignore it
    )  # fmt: skip


def tars(out: Path | str) -> dict[str, bytes]:
    """Every tar that a record names, by file name: what a reader of the data set sees."""
    from labeler.records import latest_records
    from labeler.storage import Storage

    storage = Storage(str(out))
    return {record.tar: storage.read(record.tar) for record in latest_records(storage) if record.tar}


def findings(out: Path | str) -> list[str]:
    """What `verify` finds in a data set, in words; empty where all is well."""
    from labeler.storage import Storage
    from labeler.verify import verify

    return [f"{finding.file}: {finding.problem}" for finding in verify(Storage(str(out)))]


def differences(there: Path | str, here: Path | str) -> list[str]:
    """Members that are not the same in two data sets, by unit: empty for equal samples, whatever the revision."""
    found: list[str] = []
    for unit, (a, b) in enumerate(zip_longest(contents(there), contents(here), fillvalue=b"")):
        if a != b:
            old, new = (dict(flat(tar)) for tar in (a, b))
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            found.append(f"unit {unit}: {names or 'the tar itself'}")
    return found


def flat(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every member."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]


def contents(out: Path | str) -> list[bytes]:
    """The bytes of the tars alone, by unit: equal for equal samples, whatever the revision."""
    return [data for _, data in sorted(tars(out).items())]


def children_of(pid: int) -> list[int]:
    """Every process below `pid`."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
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
        left = [pid for pid in pids if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def wait_for(happened: Callable[[], bool], driver: subprocess.Popen) -> None:
    """Wait until it happened, or the driver ended."""
    while driver.poll() is None and not happened():
        time.sleep(0.02)
