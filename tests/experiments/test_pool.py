"""Pool: what a camera sees of a stored clip is where the tracks say, read back from its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from experiments.minis import pool
from experiments.minis.pool import ViewConfig, draw_view, render_pool
from student.data.batch import Batch
from student.synth.scene import SynthConfig
from teachers.errors import ConfigError

VIEW = ViewConfig(batch=3, frames=5, size=64, points=20)
SMALL = SynthConfig(frames=12, height=96, width=96, points=60, query_frame="random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips whose colours are their own coordinates: red is x, green is y, blue is 2 * t."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    t, y, x = np.mgrid[:12, :96, :96]
    video = np.stack([2 * x, 2 * y, 2 * t], -1).astype(np.uint8)
    for clip in range(2):
        points = rng.uniform(5, 90, (80, 12, 2)).astype(np.float32)
        np.savez(
            folder / f"clip-{clip:06d}.npz",
            video=video,
            points=points,
            visible=rng.random((80, 12)) < 0.8,
        )
    return folder


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(pool, "recolour", lambda frames, rng: frames)


def arrays(view: Batch, *names: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Of each clip these arrays."""
    return zip(*(getattr(view, name).numpy() for name in names), strict=True)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("seed", range(5))
def test_a_track_shows_in_every_frame_the_place_that_the_clip_had_there(folder, seed):
    view = draw_view(folder, np.random.default_rng(seed), VIEW)
    stored = [np.load(path)["points"] for path in sorted(folder.glob("*.npz"))]
    read = 0
    for frames, xy, visible in arrays(view, "frames", "xy", "visible"):
        times = frames[:, 32, 32, 2] // 2
        for n, t in zip(*np.nonzero(visible & ((xy > 1) & (xy < 62)).all(-1)), strict=True):
            colour = cv2.getRectSubPix(frames[t].astype(np.float32), (1, 1), xy[n, t].tolist())[
                0, 0
            ]
            nearest = min(
                np.abs(colour[:2] / 2 - points[:, times[t]]).max(-1).min() for points in stored
            )
            assert nearest < 0.75  # colours are steps of half a pixel
            read += 1
    assert read > 100


@pytest.mark.usefixtures("plain")
def test_frames_follow_each_other_at_one_step_forwards_or_backwards(folder):
    steps = set()
    for seed in range(20):
        view = draw_view(folder, np.random.default_rng(seed), VIEW)
        for (frames,) in arrays(view, "frames"):
            (step,) = np.unique(np.diff(frames[:, 32, 32, 2].astype(int) // 2))
            steps.add(int(step))
    assert steps == {-2, -1, 1, 2}


def test_every_query_lies_on_its_track_where_it_is_visible(folder):
    view = draw_view(folder, np.random.default_rng(0), VIEW)
    for queries, xy, visible in arrays(view, "queries", "xy", "visible"):
        t = queries[:, 0].astype(int)
        assert visible[np.arange(20), t].all()
        np.testing.assert_array_equal(xy[np.arange(20), t], queries[:, 1:])


def test_what_is_outside_of_the_view_is_not_visible(folder):
    view = draw_view(folder, np.random.default_rng(0), VIEW)
    outside = ~((view.xy > -0.5) & (view.xy < 63.5)).all(-1)
    assert outside.any()
    assert not view.visible[outside].any()


def test_the_same_generator_gives_the_same_view_and_another_one_another(folder):
    one, same, other = (draw_view(folder, np.random.default_rng(seed), VIEW) for seed in (1, 1, 2))
    for name in ("frames", "queries", "xy", "visible"):
        assert torch.equal(getattr(one, name), getattr(same, name))
    assert not torch.equal(one.frames, other.frames)


def test_recolouring_keeps_shape_and_type_and_changes_colours():
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    changed = pool.recolour(frames, np.random.default_rng(1))
    assert changed.shape == frames.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, frames)


def test_rendering_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "STORED", SMALL)
    render_pool(tmp_path, clips=1)
    (first,) = tmp_path.iterdir()
    before = first.stat().st_mtime_ns, first.read_bytes()
    render_pool(tmp_path, clips=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip-000000.npz",
        "clip-000001.npz",
    ]
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    view = draw_view(tmp_path, np.random.default_rng(0), replace(VIEW, batch=1))
    assert view.frames.shape == (1, 5, 64, 64, 3)


def test_an_empty_pool_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no rendered clips"):
        draw_view(tmp_path, np.random.default_rng(0), VIEW)
