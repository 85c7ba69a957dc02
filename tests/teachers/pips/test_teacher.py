"""The teachers of PIPs and PIPs++ over a clip, with untrained small networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from teachers.errors import CheckpointError
from teachers.layers.branch import going
from teachers.pips.pips import Pips, PipsConfig
from teachers.pips.pips2 import Pips2, Pips2Config
from teachers.pips.teacher import ForwardTeacher, Pips2Teacher, PipsTeacher
from tests.support import parity, waves
from tests.support.networks import LARGE_BLOCKS, SMALL_BLOCKS, mini, not_learning

CLIP = {"seed": 6, "T": 20, "H": 64, "W": 80, "vx": 1.0, "vy": -0.5}
QUERIES = 7
NOISE_PX = 1e-3
"""Float32 noise of a track; an untrained network moves points by a hundred times as much."""


@pytest.mark.parametrize(
    ("make", "last", "idle"),
    [
        (lambda: Pips(PipsConfig.mini()), lambda steps: steps, []),
        (
            lambda: Pips2(Pips2Config.mini()),
            lambda window: window.steps,
            ["norm.weight", "norm.bias"],
        ),
    ],
)
def test_minis_are_small_and_every_weight_that_is_used_learns(make, last, idle, frames, queries):
    torch.manual_seed(0)
    model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    start = torch.from_numpy(queries[None, :, None, 1:]).expand(2, -1, 8, -1)
    steps = last(model(torch.stack([video[:8], video[8:16]]), start, iterations=2))
    assert steps.shape[:-1] == (2, 7, 2, 8)
    steps.square().mean().backward()
    assert not_learning(model) == idle


@pytest.fixture(params=[(PipsTeacher, {}), (Pips2Teacher, {}), (Pips2Teacher, {"window": 7})])
def made(request: pytest.FixtureRequest) -> tuple[type[ForwardTeacher], dict[str, Any]]:
    """A class, and how it goes through a clip: PIPs++ in one window, or in short ones."""
    return request.param


@pytest.mark.parametrize(
    ("kind", "whole", "parts"),
    [
        (PipsTeacher, {}, {"max_frames": 8}),
        pytest.param(Pips2Teacher, {}, {}, marks=pytest.mark.slow),
        (Pips2Teacher, {"window": 7}, {"window": 7}),
    ],
)
def test_neither_blocks_nor_how_many_frames_are_held_change_the_result(
    kind, whole, parts, frames, queries
):
    whole = mini(kind, mode="label", memory=LARGE_BLOCKS, **whole).track(frames, queries)
    parts = mini(kind, mode="label", memory=SMALL_BLOCKS, **parts).track(frames, queries)
    np.testing.assert_allclose(parts.xy, whole.xy, atol=NOISE_PX)
    np.testing.assert_allclose(parts.visibility, whole.visibility, atol=1e-3)
    assert np.abs(whole.xy - queries[:, None, 1:]).max() > 100 * NOISE_PX


@pytest.mark.parametrize("max_frames", [96, 11])
def test_a_gpu_that_is_not_asked_how_far_points_are_gives_the_same(max_frames, queries):
    clip = parity.video(**CLIP | {"T": 40})
    expected = mini(PipsTeacher, mode="label").track(clip, queries)
    with going(gpu=True):
        teacher = mini(PipsTeacher, mode="label", max_frames=max_frames)
        found = teacher.track(clip, queries)
    np.testing.assert_allclose(found.xy, expected.xy, atol=NOISE_PX)
    np.testing.assert_allclose(found.visibility, expected.visibility, atol=1e-3)


def test_label_mode_tracks_backward_as_it_would_in_the_reversed_clip(made, frames, queries):
    kind, settings = made
    teacher = mini(kind, mode="label", **settings)
    there, back = (
        teacher.track(frames, queries),
        teacher.track(frames[::-1], queries * [-1, 1, 1] + [19, 0, 0]),
    )
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)
    assert np.isfinite(there.xy).all()
    assert (np.isfinite(there.visibility) == (kind is PipsTeacher)).all()
    assert np.isnan(there.confidence).all()
    np.testing.assert_array_equal(there.xy[np.arange(7), queries[:, 0].astype(int)], queries[:, 1:])


def test_predictor_mode_begins_at_the_query_as_in_the_clip_that_begins_there(made, frames, queries):
    kind, settings = made
    teacher = mini(kind, **settings)
    tracks = teacher.track(frames, queries)
    before = np.arange(20) < queries[:, :1]
    np.testing.assert_array_equal(np.isnan(tracks.xy).any(-1), before)
    if kind is PipsTeacher:
        np.testing.assert_array_equal(np.isnan(tracks.visibility), before)
    later = teacher.track(frames[5:], np.array([[0, 40, 30]]))
    np.testing.assert_allclose(
        teacher.track(frames, np.array([[5, 40, 30]])).xy[:, 5:], later.xy, atol=NOISE_PX
    )


def test_a_point_does_not_depend_on_the_others(made, frames, queries):
    kind, settings = made
    teacher = mini(kind, mode="label", **settings)
    alone = teacher.track(frames, queries[2:3])
    np.testing.assert_allclose(teacher.track(frames, queries).xy[2:3], alone.xy, atol=NOISE_PX)


@pytest.mark.parametrize("kind", [PipsTeacher, Pips2Teacher])
@pytest.mark.parametrize("size", [(17, 23), (1, 1), (62, 67)])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_clips_of_any_size_and_length_are_tracked(kind, size, count):
    clip = parity.video(**CLIP | {"T": count, "H": size[0], "W": size[1]})
    tracks = mini(kind, mode="label").track(
        clip, np.array([[0, 0, 0], [count - 1, size[1] - 0.5, size[0] - 0.5]])
    )
    assert np.isfinite(tracks.xy).all()
    if kind is PipsTeacher:
        assert ((tracks.visibility >= 0) & (tracks.visibility <= 1)).all()


def test_weights_of_another_network_are_refused(tmp_path):
    weights = mini(PipsTeacher).model.state_dict()
    weights.pop("norm.bias")
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(
        CheckpointError,
        match=(
            r"other.safetensors: not a checkpoint of 'pips': 1 of .* are missing \(first: "
            r"norm.bias"
        ),
    ):
        mini(PipsTeacher, name="pips", checkpoint=str(tmp_path / "other.safetensors"))


def test_sides_no_multiple_of_the_stride_are_squeezed_as_in_the_official_code_or_continued():
    clip = waves.translating(frames=8, height=50, width=67, velocity=(1.0, 0.5))
    queries = np.array([[0, 20.0, 30.0], [0, 50.5, 10.0]])
    continued = np.pad(clip, ((0, 0), (0, 2), (0, 1), (0, 0)), mode="edge")
    for mode, seen in (("predictor", clip), ("label", continued)):
        teacher = mini(PipsTeacher, mode=mode)
        frames = torch.from_numpy(seen).permute(0, 3, 1, 2)[None]
        start = torch.from_numpy(queries[None, :, None, 1:]).float().expand(-1, -1, 8, -1)
        with torch.inference_mode():
            direct = teacher.model(frames, start, teacher.iterations)[0, :, -1, :, :2]
        answer = teacher.track(clip, queries).xy
        # another window may begin in frame 2
        np.testing.assert_allclose(answer[:, :3], direct[:, :3], atol=1e-4)
