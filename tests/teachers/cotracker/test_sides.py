"""Sides: a mini CoTracker3 that refines tracks on small frames first and on large ones at the
end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import teachers
from teachers.cotracker.cotracker3 import CoTracker3Config
from teachers.cotracker.refinements import Refinements
from teachers.cotracker.sizes import resized, scaled
from teachers.layers.sampling import sample_windows

SIDES = (24, 48, 200)
SIZE = (45, 70)
"""Neither side is a multiple of the stride, so the raster is 48 x 72."""
FACTORS = [0.5, 1.0, 2.0]
"""None is enlarged more than twice."""


KINDS = ("offline", "online")


def of_kind(kind, mode="label", **settings):
    given = {"checkpoint": "random", "preset": "mini", "mode": mode, "device": "cpu"}
    teacher = teachers.load(f"cotracker3-{kind}", **given, **settings)
    config = teacher.model.config
    teacher.model.config = replace(config, sides=SIDES, resolution=(40, 60))
    return teacher


def resting(kind, **settings):
    """A network that leaves points where they are."""
    teacher = of_kind(kind, **settings)
    torch.nn.init.zeros_(teacher.model.updateformer.flow_head.weight)
    torch.nn.init.zeros_(teacher.model.updateformer.flow_head.bias)
    return teacher


@pytest.fixture(params=KINDS)
def teacher(request):
    return resting(request.param)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)


QUERIES = np.float32([[0, 20, 30], [3, 60.5, 12.25], [5, 0, 44]])


@pytest.mark.parametrize("settings", [{}, {"max_frames": 4}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_point_that_rests_keeps_its_position_in_frames_of_every_size(frames, kind, settings):
    tracks = resting(kind, **settings).track(frames, QUERIES)
    expected = np.broadcast_to(QUERIES[:, None, 1:], tracks.xy.shape)
    np.testing.assert_allclose(tracks.xy, expected, atol=1e-4)


def test_each_pass_begins_where_the_one_before_ended(teacher, frames, monkeypatch):
    """Every pass moves points by one px of its own frames: 2, 1, and half a px of the clip's."""
    seen = []

    def moved(grids, windows, xy, visibility, confidence, iterations, memory):
        seen.append((tuple(grids[0].shape[2:4]), xy[0, 0, 1].tolist()))
        steps = torch.stack([xy, xy + 1])
        logits = torch.zeros(steps.shape[:-1])
        return Refinements(steps, logits, logits)

    monkeypatch.setattr(teacher.model, "refine", moved)
    tracks = teacher.track(frames, QUERIES[:1])
    np.testing.assert_allclose(tracks.xy[0, 1], QUERIES[0, 1:] + 3.5, atol=1e-5)
    # cells: of 24 x 36 px, padded to the 32 rows that the network needs, 48 x 72, and 96 x 144
    assert [shape for shape, _ in seen] == [(8, 9), (12, 18), (24, 36)]
    np.testing.assert_allclose(
        [xy for _, xy in seen], [[9.75, 14.75], [22, 32], [46.5, 66.5]], atol=1e-5
    )


def test_frames_of_every_size_show_a_point_at_its_scaled_position(teacher):
    """On a ramp the colour tells the position."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(72.0), indexing="ij")
    video = torch.stack([x, y, x + y])[None, None]
    xy = torch.tensor([[20.0, 30.0], [50.25, 12.5]])
    assert teacher.model.factors((48, 72)) == FACTORS
    for factor in FACTORS:
        grid = resized(video, factor, teacher.model.config.levels).permute(0, 1, 3, 4, 2).float()
        at = scaled(xy, factor)
        found = sample_windows(grid, torch.zeros(1, 1, 1, dtype=torch.long), at[None, :, None], 0)
        torch.testing.assert_close(found[0, :, 0, 0, :2], xy, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("sides", "starts"), [((), [0.0, 5.0]), (SIDES, [0.0] * 6)])
def test_a_window_goes_on_from_what_was_seen_unless_each_of_its_passes_looks_anew(
    sides, starts, monkeypatch
):
    online = of_kind("online", mode="recipe")
    online.model.config = replace(online.model.config, sides=sides)
    seen = []

    def sure(grids, windows, xy, visibility, confidence, iterations, memory):
        seen.append(visibility[0, 0, 0].item())
        logits = torch.full((1, *xy.shape[:-1]), 5.0)
        return Refinements(xy[None], logits, logits)

    monkeypatch.setattr(online.model, "refine", sure)
    online.track(np.zeros((24, *SIZE, 3), np.uint8), QUERIES[:1])
    assert seen == starts


def test_a_stream_in_frames_of_every_size_is_as_the_clip():
    online = of_kind("online", mode="recipe")
    clip = np.random.default_rng(0).integers(0, 256, (29, *SIZE, 3), dtype=np.uint8)
    whole, stream = online.track(clip, QUERIES), online.stream(QUERIES)
    parts = [stream.push(part) for part in np.split(clip, [3, 20, 21])] + [stream.finish()]
    for name in ("xy", "visibility", "confidence"):
        pushed = np.concatenate([getattr(part, name) for part in parts], 1)
        np.testing.assert_allclose(pushed, getattr(whole, name), atol=1e-4)
    assert np.abs(whole.xy - QUERIES[:, None, 1:]).max() > 0.01


def test_a_clip_of_windows_gives_the_tracks_of_every_pass(frames):
    model = of_kind("online").model
    clips = torch.from_numpy(np.concatenate([frames] * 4)).permute(0, 3, 1, 2)[None, ..., :44, :68]
    found = model(clips, torch.from_numpy(QUERIES)[None], iterations=1)
    assert [each.first_frame for each in found] == [0, 0, 0, 8, 8, 8]
    assert all(each.xy.shape == (1, 1, 3, 16, 2) for each in found)


def test_sizes_that_would_be_enlarged_too_much_are_one(teacher):
    model = teacher.model
    model.config = CoTracker3Config.mini(sides=(128, 256, 512))
    assert model.factors((256, 300)) == [0.5, 1.0, 2.0]
    assert model.factors((512, 900)) == [0.25, 0.5, 1.0]
    # a part of such a frame, or a small one
    assert model.factors((100, 64)) == [0.5, 1.0, 2.0]
    model.config = CoTracker3Config.mini()
    assert model.factors((100, 64)) == [1.0]
