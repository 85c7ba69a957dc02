"""What it costs to read labelled clips for training, beside a plain webdataset reader of the same
shards.

    taskset -c 0 python -m benchmarks.reading

Procedural videos of 80 frames are labelled by one classical teacher. Then both readers give parts
of their clips as tensors, by turns in this process, on one thread; CPU seconds, medians over the
pairs of turns. The plain reader is what one would write: webdataset gives the members, PyAV decodes
the whole mp4 (in its default conversion, which is faster than the exact one), numpy loads the
teacher's tracks, and a random part is cut out.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.training import labelled
from labeler.fingerprint import one_thread
from student.data.config import DataConfig
from student.data.mixture import batches
from student.synth.scene import SynthConfig

VIDEOS, STORED = 2, 80


@dataclass(frozen=True)
class Case:
    """Which part of which clips, and how many times as fast as the plain reader ours should be."""

    clip_hw: tuple[int, int]
    frames: int
    crop_hw: tuple[int, int]
    goal: float


CASES = (
    Case((272, 640), 24, (192, 256), 1.3),
    Case((384, 680), 24, (384, 512), 1.3),
    Case((384, 680), 64, (384, 512), 1.0),
    Case((272, 640), 64, (384, 512), 1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=7, help="pairs of turns")
    parser.add_argument("--clips", type=int, default=4, help="clips of a turn")
    asked = parser.parse_args()
    print(f"{platform.machine()}, one thread, Python {platform.python_version()}, ", end="")
    names = ("torch", "webdataset", "av", "numpy", "opencv-python-headless")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print("| stored | read | plain, ms a clip | ours, ms a clip | times as fast | goal |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        shards: dict[tuple[int, int], Path] = {}
        for case in CASES:
            height, width = case.clip_hw
            if case.clip_hw not in shards:
                world = SynthConfig(frames=STORED, height=height, width=width, points=0)
                home = Path(folder, f"{height}x{width}")
                home.mkdir()
                shards[case.clip_hw] = labelled(home, VIDEOS, world, teachers=("lk",))
            data = shards[case.clip_hw]
            times = by_turns((plain(data, case), ours(data, case)), asked.turns, asked.clips)
            there, here = 1e3 * np.median(times, axis=0) / asked.clips
            ratio = float(np.median([first / second for first, second in times]))
            crop = f"{case.frames} x {case.crop_hw[0]} x {case.crop_hw[1]}"
            print(
                f"| {STORED} x {height} x {width} | {crop} | {there:.0f} | {here:.0f} | "
                f"{ratio:.2f} | {case.goal} |",
                flush=True,
            )


def by_turns(
    readers: tuple[Iterator[object], Iterator[object]], turns: int, clips: int
) -> list[tuple[float, float]]:
    """CPU seconds of each reader in each pair of turns, after a first clip that does not count."""
    for reader in readers:
        next(reader)

    def turn(reader: Iterator[object]) -> float:
        start = time.process_time()
        for _ in range(clips):
            next(reader)
        return time.process_time() - start

    pairs = []
    for number in range(turns):
        first, second = (turn(reader) for reader in readers[:: -1 if number % 2 else 1])
        pairs.append((second, first) if number % 2 else (first, second))
    return pairs


def ours(data: Path, case: Case) -> Iterator[Tensor]:
    """What training reads."""
    config = DataConfig(
        data=(str(data),), policy="random", frames=case.frames, height=case.crop_hw[0],
        width=case.crop_hw[1], queries=64, batch=1,
    )  # fmt: skip
    return (batch.frames for batch in batches(config, seed=0))


def plain(data: Path, case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    """The frames and tracks of random parts, as one would read them with webdataset."""
    os.environ["WDS_SECURE"] = "1"
    import webdataset

    tars = sorted(str(path) for path in data.rglob("*.tar"))
    cut: Callable[[dict[str, bytes]], tuple[Tensor, Tensor]] = _Plain(case)
    return iter(webdataset.WebDataset(tars, shardshuffle=False).repeat().map(cut))


class _Plain:
    """One sample to what the plain reader gives."""

    def __init__(self, case: Case) -> None:
        self._case, self._rng = case, np.random.default_rng(0)

    def __call__(self, sample: dict[str, bytes]) -> tuple[Tensor, Tensor]:
        case, rng = self._case, self._rng
        with av.open(io.BytesIO(sample["mp4"])) as container:
            container.streams.video[0].thread_type = "NONE"
            whole = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        with np.load(io.BytesIO(sample["lk.npz"])) as arrays:
            xy = arrays["xy"].astype(np.float32)
        with np.load(io.BytesIO(sample["queries.npz"])) as arrays:
            arrays["queries"].astype(np.float32)
        start = rng.integers(len(whole) - case.frames + 1)
        part = whole[start : start + case.frames]
        scale = max(1.0, *(c / s for c, s in zip(case.crop_hw, part.shape[1:3], strict=True)))
        if scale > 1:
            height, width = (round(scale * side) for side in part.shape[1:3])
            part = np.stack([cv2.resize(frame, (width, height)) for frame in part])
        height, width = case.crop_hw
        top = rng.integers(part.shape[1] - height + 1)
        left = rng.integers(part.shape[2] - width + 1)
        frames = np.ascontiguousarray(part[:, top : top + height, left : left + width])
        return torch.from_numpy(frames), torch.from_numpy(xy[:, start : start + case.frames])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_thread():
        main()
