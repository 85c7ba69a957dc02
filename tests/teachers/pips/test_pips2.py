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

from teachers.layers.branch import going
from teachers.layers.over_time import TimeConvolution, norm_over_time
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
    model = model_of(case, Pips2(Pips2Config()), KEYS)
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
    checkpoint = file_of(case, Pips2(Pips2Config()), KEYS, tmp_path)
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
    for gpu in (False, True):  # six sums for four frames; the convolution itself
        with torch.inference_mode(), going(gpu):
            torch.testing.assert_close(fast(x, fast.kernel()), plain)


def test_the_norm_over_time_is_the_instance_norm_of_torch():
    x = 3 + torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = F.instance_norm(x.mT).mT
    torch.testing.assert_close(norm_over_time(x), plain)
    for gpu in (False, True):
        with torch.inference_mode(), going(gpu):
            torch.testing.assert_close(norm_over_time(x), plain)


@pytest.mark.parametrize("gpu", [False, True])
def test_tracks_of_several_lengths_are_refined_as_each_alone(gpu):
    """In windows that begin in frames of their own, too."""
    torch.manual_seed(0)
    model = Pips2(Pips2Config.mini()).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    frames = torch.randint(256, (1, 9, 3, 48, 64), dtype=torch.uint8)
    start = (torch.rand(1, 4, 1, 2).double() * 50).expand(-1, -1, 7, -1)
    begins, lengths = torch.tensor([[0, 2, 1, 7]]), torch.tensor([[7, 7, 3, 2]])
    frame = (begins[..., None] + torch.arange(7)).clamp(max=8)
    with torch.inference_mode(), going(gpu):
        pyramid = model.encode(frames)
        templates = model.first_templates(pyramid, start, frame)
        found = model.refine(pyramid, start, templates, 5, True, frame, lengths)
        for point, (first, length) in enumerate(zip(begins[0], lengths[0], strict=True)):
            part = [grid[:, first : first + length] for grid in pyramid]
            own = start[:, point : point + 1, :length]
            looks = model.first_templates(part, own)
            alone = model.refine(part, own, looks, 5, True)
            assert (alone.steps - own[:, :, None]).abs().max() > 0.5
            torch.testing.assert_close(found.steps[:, point, :, :length], alone.steps[:, 0])
            torch.testing.assert_close(found.templates[:, point, :length], alone.templates[:, 0])


# --- the mini network

CLIP = {"seed": 6, "T": 20, "H": 64, "W": 80, "vx": 1.0, "vy": -0.5}
QUERIES = 7


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
