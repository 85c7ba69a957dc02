"""TAPIR, BootsTAPIR, causal BootsTAPIR: equal to the official code (`tapir_*`, `bootstapir_*`), and
properties of our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.layers.fast import tanh_gelu
from teachers.layers.resnet import InstanceNorm
from teachers.tapir.config import (
    BOOTSTAPIR,
    CAUSAL_BOOTSTAPIR,
    TapirConfig,
    default_resolutions,
)
from teachers.tapir.mixer import over_time
from teachers.tapir.network import Tapir
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher
from tests.support import parity
from tests.support.networks import not_learning, together_and_alone, weights_of
from tests.support.official import check_answer, inputs
from tests.support.parity import NOISE_PX

VARIANTS = {"tapir": {}, "bootstapir": BOOTSTAPIR, "bootstapir_causal": CAUSAL_BOOTSTAPIR}
TEACHERS = {
    "tapir": TapirTeacher,
    "bootstapir": BootsTapirTeacher,
    "bootstapir_causal": CausalBootsTapirTeacher,
}


# --- equal to the official code


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "tapir_256",
        "tapir_resize_chunk",
        "tapir_hires_default",
        "tapir_hires_list",
        "tapir_quirk_nonsquare",
        "tapir_quirk_no_resize",
        "bootstapir_256",
        "bootstapir_resize_chunk",
        "bootstapir_hires_default",
        "bootstapir_causal_offline",
    ],
)
def test_every_step_equals_the_official_network(name):
    case = parity.case(name)
    model = official(case, official_quirks="quirk" in name)
    frames, queries = inputs(case)
    with torch.inference_mode():
        result = model(frames, queries, listed_resolutions(case))
    check_answer(result.steps[:, 0], case, "iter_")
    check_answer(result.answer[0], case)
    product = torch.sigmoid(-result.answer[0, ..., 2:]).prod(-1)
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tapir_256", "bootstapir_256"])
def test_in_float64_only_float64_noise_is_left(name):
    case = parity.case(name)
    answer = answer_of(official(case).double(), case)
    check_answer(answer, case, "f64_", ("tolerance_f64_px", "tolerance_f64_logit"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tapir_quirk_nonsquare", "tapir_quirk_no_resize"])
def test_the_bugs_of_the_torch_release_are_off_by_default(name):
    case = parity.case(name)
    answer = answer_of(official(case), case)
    check_answer(answer, case, "fixed_", ("fixed_tolerance_px", "tolerance_logit"))
    assert np.abs(answer[..., :2].numpy() - case["tracks"]).max() > 1


@pytest.mark.slow
def test_frame_by_frame_equals_the_official_live_model_and_its_state():
    case = parity.case("bootstapir_causal_stream")
    model = official(case)
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None]
    size = case.frames.shape[1:3]
    queries = F.pad(torch.from_numpy(case["queries_xy"]), (1, 0))[None]
    with torch.inference_mode():
        features = model.encode(frames, [(256, 256)])
        described = model.describe(features, queries, size)
        past, steps = model.no_past(len(case["queries_xy"])), []
        for t in range(len(case.frames)):
            one = model.encode(frames[:, t : t + 1], [(256, 256)])
            steps.append(model.track(one, described, size, pasts=[past]).steps)
        whole = model.track(features, described, size)
        pinned = model.track(features, described, size, queries)
    every = torch.cat(steps, 3)
    check_answer(every[:, 0], case, "iter_")
    check_answer(every[-1, 0], case)
    check_answer(pinned.answer[0], case, "offline_")
    np.testing.assert_allclose(
        whole.answer[0, ..., :2],
        case["offline_unpinned_tracks"],
        atol=case.meta["tolerance_px"],
        rtol=0,
    )
    state = {"atol": 20 * case.meta["state_noise"], "rtol": 0}
    np.testing.assert_allclose(
        past.first[0, 0, 0, [0, 11], :, 0], case["state_first_iter"], **state
    )
    np.testing.assert_allclose(
        past.first[0, 0, -1, [0, 11], :, 0], case["state_last_iter"], **state
    )
    # channel by channel, as the official code has them
    second = past.second[0, 0, -1, 5].transpose(1, 2).flatten(1)
    np.testing.assert_allclose(second[:, :512], case["state2_last_iter"], **state)


def official(case: parity.Case, **changes: Any) -> Tapir:
    model = (
        Tapir(TapirConfig(**VARIANTS[case.meta["model"]], **changes)).eval().requires_grad_(False)
    )
    model.load_state_dict(weights_of(case))
    return model


def answer_of(model: Tapir, case: parity.Case) -> Tensor:  # [N, T, 4]
    """In the precision of the model."""
    frames, queries = inputs(case)
    queries = queries.to(next(model.parameters()).dtype)
    with torch.inference_mode():
        return model(frames, queries, listed_resolutions(case)).answer[0]


def listed_resolutions(case: parity.Case) -> list[tuple[int, int]] | None:
    listed = case.meta["settings"]["refinement_resolutions"]
    return listed and [tuple(resolution) for resolution in listed]


@pytest.mark.parametrize(
    ("size", "resolutions"),
    [
        ((256, 256), [(256, 256)]),
        ((100, 256), [(256, 256)]),
        ((296, 296), [(256, 256), (296, 296)]),
        ((256, 328), [(256, 256), (256, 328)]),
        ((480, 854), [(256, 256), (344, 464), (480, 848)]),
        ((1024, 256), [(256, 256), (512, 256), (1024, 256)]),
        ((4, 300), [(256, 256), (8, 296)]),
    ],
)
def test_large_frames_are_refined_at_growing_resolutions(size, resolutions):
    assert default_resolutions(size, TapirConfig()) == resolutions


@pytest.mark.parametrize(
    ("size", "resolutions"),
    [
        ((100, 256), [(256, 256), (384, 384)]),
        ((300, 384), [(256, 256), (384, 384)]),
        ((480, 854), [(256, 256), (344, 464), (480, 848)]),
    ],
)
def test_no_frame_is_refined_on_less_than_the_squares_of_the_network(size, resolutions):
    """Those of the mini that is shipped."""
    assert default_resolutions(size, TapirConfig(scales=(1.0, 1.5))) == resolutions


# --- fast ways, and the plain ones


@pytest.mark.parametrize("back", [1, 2])
def test_a_depthwise_convolution_over_time_is_that_of_torch(back):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 9, 1, 5, generator=draw, dtype=torch.float64)
    up, mix = (
        torch.nn.Conv1d(5, 20, 3, groups=5).double(),
        torch.nn.Conv1d(20, 20, 3, groups=20).double(),
    )

    def theirs(
        x: Tensor, convolution: torch.nn.Conv1d
    ) -> Tensor:  # channel m of c is c * M + m there
        y = convolution(F.pad(x.transpose(2, 3).flatten(2).transpose(1, 2), (back, 2 - back)))
        return y.transpose(1, 2).unflatten(2, (5, 4)).transpose(2, 3)

    wide = over_time(x, up, back)
    torch.testing.assert_close(wide, theirs(x, up))
    torch.testing.assert_close(over_time(wide, mix, back), theirs(wide, mix))


@pytest.mark.parametrize("parts", [(9,), (1, 1, 7), (2, 4, 3)])
def test_a_causal_convolution_that_knows_the_past_can_take_a_clip_in_parts(parts):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 9, 4, 5, generator=draw, dtype=torch.float64)
    mix, past = (
        torch.nn.Conv1d(20, 20, 3, groups=20).double(),
        torch.zeros(3, 2, 4, 5, dtype=torch.float64),
    )
    in_parts = torch.cat([over_time(part, mix, 2, past) for part in x.split(parts, 1)], 1)
    torch.testing.assert_close(in_parts, over_time(x, mix, 2))


def test_the_fast_gelu_is_that_of_torch():
    x = torch.linspace(-12, 12, 1001)
    torch.testing.assert_close(tanh_gelu(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=1e-6)
    wide = x.double()
    torch.testing.assert_close(
        tanh_gelu(wide), F.gelu(wide, approximate="tanh"), atol=1e-7, rtol=1e-7
    )


def test_the_fast_instance_norm_is_that_of_torch():
    x = 100 + torch.randn(2, 6, 9, 7, generator=torch.Generator().manual_seed(0))
    norm = InstanceNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    exact = F.instance_norm(x.double(), weight=norm.weight.double(), bias=norm.bias.double())
    torch.testing.assert_close(norm(x).double(), exact, atol=1e-4, rtol=0)


# --- the mini network

CLIP = {"seed": 3, "T": 10, "H": 96, "W": 128, "vx": 1.0, "vy": -0.5}
QUERIES = 6


def small_network(**changes: Any) -> Tapir:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tapir(TapirConfig.mini(**changes))


def test_mini_is_small_and_every_weight_learns(frames, queries):
    assert sum(parameter.numel() for parameter in small_network().parameters()) < 500_000
    model = small_network(**BOOTSTAPIR, raster=128)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    result = model(torch.stack([video, video.flip(0)]), torch.from_numpy(queries).expand(2, -1, -1))
    assert result.steps.shape == (1 + 3, 2, 6, 10, 4)
    result.steps.square().mean().backward()
    assert not_learning(model) == []


def test_it_runs_in_bfloat16_near_the_float32_result(frames, queries):
    model, batch = (
        small_network(),
        (torch.from_numpy(frames).permute(0, 3, 1, 2)[None], torch.from_numpy(queries)[None]),
    )
    with torch.inference_mode():
        exact = model(*batch).answer
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(*batch).answer
    assert (rough - exact)[..., :2].abs().median() < 1


def test_clips_of_a_batch_do_not_see_each_other(frames, queries):
    model = small_network(**BOOTSTAPIR)
    together, alone = together_and_alone(lambda *clips: model(*clips).answer, frames, queries)
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)
