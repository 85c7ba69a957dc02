"""Small labelling jobs: videos that move, and a config that is quick."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.harness.s3_server import proxy, s3_server
from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.io import s3
from labeler.io.storage import Storage
from labeler.shards.records import latest_records
from labeler.video.encode import encode_clip
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import label
from student.synth.scene import SynthConfig, generate

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


def moving_videos(folder: Path, count: int) -> Path:
    """A new folder of so many of those."""
    folder.mkdir()
    for seed in range(count):
        write_moving(folder / f"{seed:0{len(str(count - 1))}d}.mp4", seed)
    return folder


def procedural_videos(folder: Path, count: int, config: SynthConfig) -> Path:
    """A new folder of so many videos of the generator."""
    folder.mkdir()
    for seed in range(count):
        (folder / f"{seed}.mp4").write_bytes(encode_clip(generate(seed, config).frames, fps=24))
    return folder


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


def tars(out: Path | str) -> dict[str, bytes]:
    """Every tar that a record names, by file name: what a reader of the data set sees."""
    storage = Storage(str(out))
    return {
        record.tar: storage.read(record.tar) for record in latest_records(storage) if record.tar
    }


def requests_of_a_unit() -> tuple[dict[str, float], float]:
    """(requests that a unit sends to S3 by method, with the videos on a local disk; all others of a
    job): a job of 8 units of one video through a counting proxy, less one of 4."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    counts = []
    with s3_server() as port, tempfile.TemporaryDirectory() as scratch:
        for number in (4, 8):
            folder = moving_videos(Path(scratch) / f"videos{number}", number)
            with proxy(port) as counting:
                s3.use(endpoint=counting.url)
                Storage(f"s3://job{number}").fs.mkdir(f"job{number}")
                label(config(folder, f"s3://job{number}/labels", videos_per_unit=1))
                counts.append(counting.requests.copy())
    each = {method: (counts[1][method] - counts[0][method]) / 4 for method in sorted(counts[1])}
    return each, sum(counts[0].values()) - 4 * sum(each.values())
