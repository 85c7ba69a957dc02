"""Memory and pace of the online teachers over a long stream: both must stay as they are after the
first windows.

    python -m benchmarks.streams [--frames 10000] [TEACHER ...]

Frames of 384 x 512 px are drawn as they are pushed, so nothing but the stream is held; 100 points,
a tenth of them in frames that come later. Networks are the mini ones with random weights on one
thread. Growth is the resident memory at the end above that after the first checkpoint.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import teachers

HEIGHT, WIDTH, POINTS, PUSH, CHECKPOINTS = 384, 512, 100, 8, 10
TEACHERS = {
    "cotracker3-online": {},
    "cotracker2": {"predictor": "online"},
    "bootstapir-causal": {"resolutions": [(128, 128)]},
    "tapnext": {},
}
"""With the settings of a live demo."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="TEACHER", help=f"of {', '.join(TEACHERS)}; all without one"
    )
    parser.add_argument("--frames", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, 1 thread, Python {platform.python_version()}, torch "
        f"{version('torch')}, numpy {version('numpy')}"
    )
    for name in arguments.names or TEACHERS:
        measure(name, arguments.frames)


def measure(name: str, frames: int) -> None:
    teacher = teachers.load(
        name, checkpoint="random", device="cpu", mode="predictor", preset="mini", **TEACHERS[name]
    )
    rng = np.random.default_rng(0)
    places = rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (POINTS, 2))
    times = np.where(np.arange(POINTS) % 10, 0, rng.integers(frames, size=POINTS))
    stream = teacher.stream(np.column_stack([times, places]))
    texture = rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
    print(f"{name} {TEACHERS[name] or ''}, {frames} frames\n  frame  RSS MiB  frames/CPU s")
    step, answered, first_rss = max(PUSH, frames // CHECKPOINTS), 0, 0.0
    before, cpu_s = 0, time.process_time()
    for first in range(0, frames, PUSH):
        moved = [
            np.roll(texture, t % WIDTH, axis=1) for t in range(first, min(first + PUSH, frames))
        ]
        answered += stream.push(np.stack(moved)).xy.shape[1]
        pushed = first + len(moved)
        if pushed // step > before // step or pushed == frames:
            now = time.process_time()
            first_rss = first_rss or rss_mib()
            print(
                f"{pushed:7d}  {rss_mib():7.0f}  {(pushed - before) / (now - cpu_s):12.1f}",
                flush=True,
            )
            before, cpu_s = pushed, now
    answered += stream.finish().xy.shape[1]
    print(f"  {answered} frames answered, growth {rss_mib() - first_rss:+.0f} MiB", flush=True)


def rss_mib() -> float:
    """Resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
