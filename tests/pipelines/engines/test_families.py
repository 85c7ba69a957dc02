"""A labelling job with a teacher of every family at once, on Ray, with the layout that it prints.

Random weights are refused in a job, so the minis that are shipped stand in, and files with small
networks of the families that have none.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import ray
from safetensors.torch import save_file

import teachers
from benchmarks.harness.jobs import config, tars, write_moving
from labeler import open_dataset
from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from pipelines.engines.layout import lay_out
from pipelines.jobs.events import Note
from pipelines.jobs.labelling import label
from teachers.checkpoints.files import CONFIG
from teachers.registry import declared
from tests.support.jobs import findings

SHIPPED = ("cotracker3-offline-mini", "tapir-mini")
FILLED = ("pips", "xfeat", "locotrack-base", "alltracker-tiny", "tapnext")
CLASSICAL = ("lk", "flow")
ALL = (*SHIPPED, *FILLED, *CLASSICAL)


def test_no_family_is_missing():
    families = {entry.factory.split(".")[1] for entry in teachers.entries() if entry.own}
    assert {declared(name).__module__.split(".")[1] for name in ALL} == families


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[str, ...]:
    """NAME=FILE of small networks, each with the sizes that its file says."""
    folder = tmp_path_factory.mktemp("filled")
    given = []
    for name in FILLED:
        made: Any = teachers.load(name, checkpoint="random", preset="mini", device="cpu")
        path = folder / f"{name}.safetensors"
        weights = {key: value.contiguous() for key, value in made.model.state_dict().items()}
        save_file(weights, path, {CONFIG: json.dumps(asdict(made.config))})
        given.append(f"{name}={path}")
    return tuple(given)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_teacher_of_each_family_labels_on_ray_as_in_one_process(
    filled, tmp_path, ray_cluster, monkeypatch
):
    """Nine processes begin at once; on a machine that does other things that takes minutes."""
    monkeypatch.setattr("pipelines.engines.ray.PLACEMENT_TIMEOUT_S", 1500)
    videos = tmp_path / "videos"
    videos.mkdir()
    for seed in (0, 1):
        write_moving(videos / f"{seed}.mp4", seed)
    small = {
        "checkpoint": filled,
        "clips": ClipConfig(frames=8, strides=(1,), clips_per_video=1),
        "queries": QueryConfig(count=6),
    }
    label(config(videos, tmp_path / "local", ALL, **small))
    said: list[str] = []
    result = label(
        config(videos, tmp_path / "ray", ALL, engine="ray", **small),
        lambda event: said.append(event.text) if isinstance(event, Note) else None,
    )
    cpus = ray.cluster_resources()["CPU"]
    layout = lay_out([(cpus, 0.0)], teachers=len(ALL), workers=None)
    assert str(layout) in said
    assert f"{len(ALL)} teachers of {layout.cpus:g} CPU" in str(layout)
    assert result.open_units == []
    assert findings(tmp_path / "ray") == []
    assert tars(tmp_path / "ray") == tars(tmp_path / "local")
    clips = list(open_dataset(str(tmp_path / "ray")))
    assert len(clips) == 2
    for clip in clips:
        assert set(clip.tracks) == set(ALL)
        for tracks in clip.tracks.values():
            assert tracks.xy.shape == (6, 8, 2)
            assert np.isfinite(tracks.xy).all(-1).any()
