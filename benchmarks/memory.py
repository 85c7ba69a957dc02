"""Memory of a labelling job: 50 long videos against 5, and one video of an hour against one of ten
minutes.

    python -m benchmarks.memory

The peak is the sum of the high-water marks (VmHWM, kept by Linux) of the job's process and each one
below it, so no peak is missed between two samples. The videos are small and textured, the teachers
stand still. Goals: 50 videos within 10 % of 5; the hour within 10 % of the ten minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.harness.jobs import NEAR, ROOT, STILL
from benchmarks.harness.processes import children_of

FPS = 25
GOAL = 1.10


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as scratch:
        folder = Path(scratch)
        for name, count, minutes in (
            ("5 videos of 4 minutes", 5, 4),
            ("50 videos of 4 minutes", 50, 4),
        ):
            write_videos(folder / name.replace(" ", "-"), count, minutes)
        few, many = (
            peak_mib(folder / name) for name in ("5-videos-of-4-minutes", "50-videos-of-4-minutes")
        )
        _say("50 videos of 4 minutes", many, "5 of them", few)
        for minutes in (10, 60):
            write_videos(folder / f"{minutes}-minutes", 1, minutes)
        short, hour = (peak_mib(folder / f"{minutes}-minutes") for minutes in (10, 60))
        _say("a video of 60 minutes", hour, "one of 10", short)


def _say(what: str, mib: float, against: str, other: float) -> None:
    print(
        f"{what}: {mib:.0f} MiB; {against}: {other:.0f} MiB; ratio {mib / other:.2f}; goal: at "
        f"most {GOAL:.2f}",
        flush=True,
    )


def write_videos(folder: Path, count: int, minutes: float) -> None:
    """`count` videos of 160 x 120 px whose texture wanders; the first is encoded, the others differ
    from it in a comment."""
    folder.mkdir()
    first = folder / "000.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (7, 7), 2.0)
    with av.open(str(first), "w") as container:
        stream = container.add_stream(
            "libx264",
            rate=FPS,
            width=160,
            height=120,
            pix_fmt="yuv420p",
            options={"preset": "ultrafast"},
        )
        for i in range(round(minutes * 60 * FPS)):
            x, y = round(70 + 69 * np.sin(i / 40)), round(40 + 39 * np.cos(i / 31))
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[y : y + 120, x : x + 160]), format="rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = first.read_bytes()
    for i in range(1, count):
        comment = b"%08d" % i
        (folder / f"{i:03d}.mp4").write_bytes(
            data + (8 + len(comment)).to_bytes(4, "big") + b"free" + comment
        )


def peak_mib(videos: Path) -> float:
    """Label `videos` in a process of its own, and return its peak."""
    with tempfile.TemporaryDirectory(prefix="memory-out-") as out:
        job = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipelines.cli",
                "label",
                str(videos),
                "--out",
                f"{out}/labels",
                "--engine",
                "local",
                "--teachers",
                STILL,
                NEAR,
                "--clips.frames",
                "48",
                "--queries.count",
                "256",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        peaks: dict[int, int] = {}
        while job.poll() is None:
            for pid in [job.pid, *children_of(job.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), _high_water_kib(pid))
            time.sleep(0.1)
        assert job.returncode == 0
        return sum(peaks.values()) / 2**10


def _high_water_kib(pid: int) -> int:
    """Most memory that the process held so far; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
