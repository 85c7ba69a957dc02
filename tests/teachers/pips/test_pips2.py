"""PIPs++: equal to the official code (`pips2_*`), chained over a clip included, and properties of
our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from teachers.errors import CheckpointError, ConfigError
from teachers.layers.fast import TimeConvolution, norm_over_time
from teachers.layers.memory import Memory
from teachers.pips.pips2 import Pips2, Pips2Config, motion
from teachers.pips.teacher import Pips2Teacher
from tests.support import parity
from tests.support.official import check, file_of, model_of

KEYS = "pips2"
NOISE_PX = 1e-3
"""Float32 noise of a track; an untrained network moves points by a hundred times as much."""


# --- equal to the official code


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pips2_a", "pips2_noise_init", "pips2_two_steps", "pips2_long"])
def test_every_iteration_equals_the_official_network(name):
    case = parity.case(name)
    model = model_of(case, Pips2(Pips2Config.official()), KEYS)
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None]
    start = torch.from_numpy(case["queries_xy"])[None, :, None].expand(-1, -1, len(case.frames), -1)
    if "trajs_init" in case.arrays:
        start = torch.from_numpy(case["trajs_init"]).transpose(0, 1)[None]
    with torch.inference_mode():
        looks = model.first_templates(model.encode(frames), start)[0, :3, 0, 0]
        window = model(frames, start, case.meta["iters"], case.meta["beautify"])
    np.testing.assert_allclose(looks, case["feat1"], atol=1e-4)
    check(window.steps[0].transpose(0, 1), case["coords"][:-1], case.meta["tolerance_px"])
    check(window.xy[0], case["coords"][-1], case.meta["tolerance_px"])


@pytest.mark.slow
def test_a_chain_of_windows_equals_the_official_one(tmp_path):
    case = parity.case("pips2_chain")
    checkpoint = file_of(case, Pips2(Pips2Config.official()), KEYS, tmp_path)
    teacher = Pips2Teacher(
        name="pips2",
        checkpoint=checkpoint,
        device="cpu",
        window=case.meta["S_max"],
        iterations=case.meta["iters"],
        beautify=case.meta["beautify"],
    )
    assert teacher.info.visible_rule == "none"
    tracks = teacher.track(case.frames, np.pad(case["queries_xy"], ((0, 0), (1, 0))))
    check(tracks.xy, case["trajs"], case.meta["tolerance_px"])


def test_keys_and_shapes_are_those_of_the_official_checkpoint():
    with torch.device("meta"):
        model = Pips2(Pips2Config.official())
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert own == {entry["key"]: entry["shape"] for entry in parity.key_list(KEYS)}


# --- the parts


def test_motion_is_the_step_to_the_next_frame_and_its_sines_and_cosines():
    code = motion(torch.tensor([[[[1.0, 5.0], [1.5, 4.0], [3.5, 4.0]]]]), frequencies=2)[0, 0]
    # the last is repeated
    steps, omega = np.array([[0.5, -1], [2, 0], [2, 0]]), np.array([1, 1e-4])
    x, y = steps[:, :1] * omega, steps[:, 1:] * omega
    np.testing.assert_allclose(
        code, np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y), steps], 1), atol=1e-6
    )


@pytest.mark.parametrize("frames", [1, 2, 7, 24])
def test_the_fast_convolution_over_time_is_that_of_torch(frames):
    torch.manual_seed(0)
    x = torch.randn(3, frames, 5, dtype=torch.float64)
    fast = TimeConvolution(5, 4).double()
    plain = F.conv1d(x.mT, fast.conv.weight, fast.conv.bias, padding=1).mT
    torch.testing.assert_close(fast(x, fast.kernel()), plain)


def test_the_norm_over_time_is_the_instance_norm_of_torch():
    x = 3 + torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm_over_time(x), F.instance_norm(x.mT).mT)


# --- the mini network


CLIP = {"seed": 6, "T": 20, "H": 64, "W": 80, "vx": 1.0, "vy": -0.5}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return parity.video(**CLIP)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return parity.queries(6, 7, CLIP["T"], CLIP["H"], CLIP["W"])


def mini_teacher(**settings) -> Pips2Teacher:
    return Pips2Teacher(
        **{"name": "pips2-mini", "checkpoint": "random", "device": "cpu", "preset": "mini"}
        | settings
    )


def test_mini_is_small_and_every_weight_but_the_unused_norm_learns(frames, queries):
    torch.manual_seed(0)
    model = Pips2(Pips2Config.mini())
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    start = torch.from_numpy(queries[None, :, None, 1:]).expand(2, -1, 8, -1)
    window = model(torch.stack([video[:8], video[8:16]]), start, iterations=2)
    assert window.steps.shape == (2, 7, 2, 8, 2)
    window.steps.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == [
        "norm.weight",
        "norm.bias",
    ]


def test_the_last_moves_are_halved_if_asked_for(frames, queries):
    torch.manual_seed(0)
    model = Pips2(Pips2Config.mini()).eval()
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    start = torch.from_numpy(queries[None, :, None, 1:]).expand(-1, -1, 20, -1)
    with torch.inference_mode():
        whole, halved = (
            model(video, start, iterations=8, beautify=beautify).steps[0]
            for beautify in (False, True)
        )
    torch.testing.assert_close(whole[:, :7], halved[:, :7])
    torch.testing.assert_close(
        halved[:, 7, 1:] - halved[:, 6, 1:],
        (whole[:, 7, 1:] - whole[:, 6, 1:]) / 2,
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("window", [128, 7])
def test_block_sizes_do_not_change_the_result(frames, queries, window):
    whole = mini_teacher(
        window=window, mode="label", memory=Memory(frames_per_block=100, points_per_block=10**6)
    )
    parts = mini_teacher(
        window=window, mode="label", memory=Memory(frames_per_block=3, points_per_block=1)
    )
    tracks = whole.track(frames, queries)
    np.testing.assert_allclose(parts.track(frames, queries).xy, tracks.xy, atol=NOISE_PX)
    assert np.abs(tracks.xy - queries[:, None, 1:]).max() > 100 * NOISE_PX


@pytest.mark.parametrize("window", [128, 7])
def test_label_mode_tracks_backward_as_it_would_in_the_reversed_clip(frames, queries, window):
    teacher = mini_teacher(mode="label", window=window)
    there, back = (
        teacher.track(frames, queries),
        teacher.track(frames[::-1], queries * [-1, 1, 1] + [19, 0, 0]),
    )
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)
    assert np.isfinite(there.xy).all()
    assert np.isnan(there.visibility).all()
    assert np.isnan(there.confidence).all()
    np.testing.assert_array_equal(there.xy[np.arange(7), queries[:, 0].astype(int)], queries[:, 1:])


@pytest.mark.parametrize("window", [128, 7])
def test_a_query_in_the_middle_is_tracked_as_in_the_clip_that_begins_there(frames, queries, window):
    teacher = mini_teacher(window=window)
    tracks = teacher.track(frames, queries)
    np.testing.assert_array_equal(np.isnan(tracks.xy).any(-1), np.arange(20) < queries[:, :1])
    later = teacher.track(frames[5:], np.array([[0, 40, 30]]))
    np.testing.assert_allclose(
        teacher.track(frames, np.array([[5, 40, 30]])).xy[:, 5:], later.xy, atol=NOISE_PX
    )


def test_a_point_does_not_depend_on_the_others(frames, queries):
    teacher = mini_teacher(mode="label")
    np.testing.assert_allclose(
        teacher.track(frames, queries).xy[2:3],
        teacher.track(frames, queries[2:3]).xy,
        atol=NOISE_PX,
    )


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (62, 67)])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_clips_of_any_size_and_length_are_tracked(size, count):
    clip = parity.video(**CLIP | {"T": count, "H": size[0], "W": size[1]})
    tracks = mini_teacher(mode="label").track(
        clip, np.array([[0, 0, 0], [count - 1, size[1] - 0.5, size[0] - 0.5]])
    )
    assert np.isfinite(tracks.xy).all()


def test_a_teacher_without_weights_refuses():
    with pytest.raises(
        CheckpointError,
        match=r"'pips2' has no weights: get its file from .*aharley/pips2 .*--checkpoint FILE",
    ):
        Pips2Teacher(name="pips2", device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "large"}, "preset = 'large': there are official, mini"),
        ({"iterations": 0}, "iterations = 0: must be a whole number, at least 1"),
        ({"window": 1}, "window = 1: must be a whole number, at least 2"),
        ({"beautify": "off"}, "beautify = off: must be true or false"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        mini_teacher(**settings)
