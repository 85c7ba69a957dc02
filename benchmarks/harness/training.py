"""What a mini student is trained on where speeds are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.jobs import procedural_videos
from labeler.clips.queries import QueryConfig
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import label
from student.data.config import DataConfig
from student.synth.scene import SynthConfig


def labelled(folder: Path, videos: int, world: SynthConfig, **settings: Any) -> Path:
    """A data set of so many videos of a world, labelled with 128 queries a clip; `settings` are
    those of `LabelConfig`."""
    drawn, out = procedural_videos(folder / "videos", videos, world), folder / "shards"
    queries = QueryConfig(count=128)
    label(
        LabelConfig(videos=(str(drawn),), out=str(out), engine="local", queries=queries, **settings)
    )
    return out


def crops(shards: Path, clips: int) -> DataConfig:
    """Steps of so many clips of 24 x 192 x 256 px with 64 points, all computed at once."""
    return DataConfig(
        data=(str(shards),), policy="random", frames=24, height=192, width=256, queries=64,
        batch=clips, at_once=clips,
    )  # fmt: skip
