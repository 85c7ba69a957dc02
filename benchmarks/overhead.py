"""What labelling costs beside the teachers: wall time of a job over the pure teacher time, at two
workers.

    python -m benchmarks.overhead

The teachers sleep a known time for each clip, as a CPU does while a GPU works; decoding, encoding,
agreement, and writing are real. Three cases: teachers are the bottleneck (the goal: at most 1.05),
decoding is (long strides through larger videos, quick teachers), encoding is (larger clips, quick
teachers). Time runs from the first clip that a teacher gets to the last commit: Ray's start and end
are not counted.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness.teachers import Still
from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.unit import ClipStarted, Event, UnitDone
from labeler.video.encode import encode_clip
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import label
from teachers import Tracks

WORKERS = 2
GOAL = 1.05


class Sleeper(Still):
    """Every point stays where it is, after a known time."""

    seconds = 2.0

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        time.sleep(self.seconds)
        return super()._track(frames, queries, seed)


class Second(Sleeper):
    """The other one; both sleep at once."""


class Quick(Sleeper):
    """Takes hardly any time."""

    seconds = 0.02


class Quicker(Quick):
    """The other one."""


@dataclass(frozen=True)
class Case:
    """Videos, clips, and teachers."""

    size_hw: tuple[int, int]
    clips: ClipConfig
    teachers: tuple[str, str]
    teacher_s: float
    frames: int
    """Of a video."""


CASES: Mapping[str, Case] = {
    "teacher-bound": Case(
        (192, 256),
        ClipConfig(frames=24, strides=(1,), clips_per_video=4),
        ("Sleeper", "Second"),
        2.0,
        24 * 4,
    ),
    "decode-bound": Case(
        (480, 640),
        ClipConfig(frames=24, strides=(3,), clips_per_video=2, short_side=192),
        ("Quick", "Quicker"),
        0.02,
        72 * 2,
    ),
    "encode-bound": Case(
        (384, 512),
        ClipConfig(frames=80, strides=(1,), clips_per_video=1),
        ("Quick", "Quicker"),
        0.02,
        80,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--only", choices=CASES)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {WORKERS} workers, Python {platform.python_version()}, ray "
        f"{version('ray')}"
    )
    for name, case in CASES.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
                measure(name, case, Path(scratch), arguments.videos)


def measure(name: str, case: Case, scratch: Path, videos: int) -> None:
    """Run one case and print its line."""
    folder = scratch / "videos"
    folder.mkdir()
    for i in range(videos):
        _write_moving(folder / f"{i:03d}.mp4", i, case)
    times: list[float] = []

    def watch(event: Event | object) -> None:
        if isinstance(event, ClipStarted | UnitDone):
            times.append(time.monotonic())

    config = LabelConfig(
        videos=(str(folder),),
        out=str(scratch / "out"),
        teachers=tuple(f"benchmarks.overhead:{one}" for one in case.teachers),
        engine="ray",
        workers=WORKERS,
        videos_per_unit=2,
        clips=case.clips,
        queries=QueryConfig(count=256),
    )
    result = label(config, watch)
    wall = times[-1] - times[0]
    clips = result.accounts.labelled
    pure = clips * case.teacher_s / WORKERS
    seconds: dict[str, float] = {}
    for record in result.records:
        for step, spent in record.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + spent
    steps = ", ".join(f"{step} {spent / clips:.2f}" for step, spent in seconds.items())
    print(
        f"{name}: {clips} clips in {wall:.1f} s; pure teacher time {pure:.1f} s; s a clip: {steps}",
        flush=True,
    )
    if name == "teacher-bound":
        print(
            f"    ratio {wall / pure:.2f}; goal: at most {GOAL}: "
            f"{'reached' if wall / pure <= GOAL else 'missed'}"
        )


def _write_moving(path: Path, seed: int, case: Case) -> None:
    height, width = case.size_hw
    noise = np.random.default_rng(seed).integers(0, 256, (height, width + case.frames, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (7, 7), 2.0)
    path.write_bytes(
        encode_clip(np.stack([texture[:, i : i + width] for i in range(case.frames)]), fps=24)
    )


if __name__ == "__main__":
    main()
