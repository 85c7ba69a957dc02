"""LocoTrack: equal to the official code (`locotrack_*`), and properties of our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.locotrack.blocks import directed_bias, same_convolution
from teachers.locotrack.config import LocoTrackConfig
from teachers.locotrack.network import (
    SMALL,
    LocoTrack,
    blend_rows,
    enlarged,
    gather_rows,
    soft_argmax,
)
from teachers.locotrack.teacher import LocoTrackSmallTeacher, LocoTrackTeacher
from tests.support import parity
from tests.support.networks import as_batch, mini, not_learning, together_and_alone
from tests.support.official import check_answer, check_refused, inputs, variant_of
from tests.support.parity import NOISE_PX

VARIANTS: dict[str, dict[str, Any]] = {"locotrack_base": {}, "locotrack_small": SMALL}
TEACHERS = {"locotrack_base": LocoTrackTeacher, "locotrack_small": LocoTrackSmallTeacher}
FORWARD = [
    "locotrack_base_256", "locotrack_small_256", "locotrack_small_resize_forward",
    "locotrack_base_hires_default", "locotrack_small_hires_list", "locotrack_base_single_hires",
    "locotrack_base_quirk_no_resize", "locotrack_base_t30",
]  # fmt: skip


# --- equal to the official code


def official(case: parity.Case, **changes: Any) -> LocoTrack:
    return variant_of(case, LocoTrack, LocoTrackConfig, VARIANTS, **changes)


def listed(case: parity.Case) -> list[tuple[int, int]] | None:
    sizes = case.meta["settings"]["refinement_resolutions"]
    return sizes and [tuple(size) for size in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD)
def test_every_step_equals_the_official_network(name):
    case = parity.case(name)
    model = official(case, official_quirks="quirk" in name)
    frames, queries = inputs(case)
    mixed: list[tuple[Tensor, Tensor]] = []
    hook = model.torch_pips_mixer.register_forward_hook(
        lambda _, given, out: mixed.append((given[0], out))
    )
    with torch.inference_mode():
        size = case.frames.shape[1:3]
        features = model.encode(frames, listed(case) or model.default_resolutions(size))
        looks = model.describe(features, queries, size)
        steps = model.track(features, looks, size, queries)
    hook.remove()
    check_answer(steps[:, 0], case, "iter_")
    check_answer(steps[-1, 0], case)
    product = torch.sigmoid(-steps[-1, 0, ..., 2:]).prod(-1)
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )
    tolerance = {"atol": case.meta["tolerance_feature"], "rtol": 0}
    high, low = looks.matched
    np.testing.assert_allclose(high[0, :3], case["query_feat_high"][0], **tolerance)
    np.testing.assert_allclose(low[0, :3], case["query_feat_low"][0], **tolerance)
    for window, grid in zip(looks.windows, ("highest", "high", "low"), strict=True):
        np.testing.assert_allclose(window[0, :3, 24], case[f"query_feat_{grid}"][-1], **tolerance)
    np.testing.assert_allclose(
        looks.windows[0][0, 0, [0, 6, 42, 48]], case["support_corners_highest"], **tolerance
    )
    given, out = mixed[0]
    some = [0, len(case.frames) // 2, len(case.frames) - 1]
    np.testing.assert_allclose(given[0, some], case["mixer_input_first"], **tolerance)
    np.testing.assert_allclose(out[0, some], case["mixer_output_first"][:, :4], **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["locotrack_base_256", "locotrack_small_256"])
def test_in_float64_only_float64_noise_is_left(name):
    case = parity.case(name)
    frames, queries = inputs(case)
    with torch.inference_mode():
        answer = official(case).double()(frames, queries.double())[-1, 0]
    check_answer(answer, case, "f64_", ("tolerance_f64_px", "tolerance_f64_logit"))


@pytest.mark.slow
def test_the_bug_of_the_release_is_off_by_default():
    case = parity.case("locotrack_base_quirk_no_resize")
    frames, queries = inputs(case)
    with torch.inference_mode():
        answer = official(case)(frames, queries, listed(case))[-1, 0]
    check_answer(answer, case, "fixed_", ("fixed_tolerance_px", "tolerance_logit"))
    assert np.abs(answer[..., :2].numpy() - case["tracks"]).max() > 1


@pytest.mark.slow
def test_a_resolution_between_has_no_effect():
    case = parity.case("locotrack_small_hires_list")
    frames, queries = inputs(case)
    first, _, last = listed(case)
    with torch.inference_mode():
        answer = official(case)(frames, queries, [first, last])[-1, 0]
    check_answer(answer, case)


def official_file(case: parity.Case, folder: Path) -> str:
    """As published: a dict with `state_dict`, every key behind "model."."""
    path = folder / "official.ckpt"
    weights = official(case).state_dict()
    torch.save({"state_dict": {f"model.{key}": value for key, value in weights.items()}}, path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["locotrack_base_inference_chunk", "locotrack_small_inference_hires"]
)
def test_predictor_mode_equals_the_official_predictor_half_a_pixel_away(name, tmp_path):
    case = parity.case(name)
    resolution = tuple(case.meta["settings"]["resolution"])
    teacher = TEACHERS[case.meta["model"]](
        name="t", checkpoint=official_file(case, tmp_path), device="cpu",
        resolution=None if resolution == (256, 256) else resolution,
    )  # fmt: skip
    tracks = teacher.track(case.frames, case["queries"] - np.float32([0, 0.5, 0.5]))
    product = tracks.visibility * tracks.confidence
    np.testing.assert_allclose(
        tracks.xy + 0.5, case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )
    visible, sure = teacher.info.rule(tracks), case["visible_sure"]
    np.testing.assert_array_equal(visible[sure], case["visible"][sure])


@pytest.mark.slow
def test_own_size_equals_the_official_forward_pass(tmp_path):
    case = parity.case("locotrack_base_hires_default")
    teacher = LocoTrackTeacher(
        name="t", checkpoint=official_file(case, tmp_path), device="cpu", resolution="own"
    )
    tracks = teacher.track(case.frames, case["queries"] - np.float32([0, 0.5, 0.5]))
    np.testing.assert_allclose(
        tracks.xy + 0.5, case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )


# --- fast ways, and the plain ones


def normal(*shape: int) -> Tensor:
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        (7, 3, 2, (1, 1)),
        (4, 3, 2, (0, 1)),
        (7, 5, 4, (1, 1)),
        (2, 2, 2, (0, 0)),
        (3, 3, 1, (1, 1)),
        (4, 5, 4, (0, 1)),
    ],
)
def test_a_convolution_is_padded_as_same_and_tiny_images_are_multiplied_alike(
    side, kernel, stride, padding
):
    convolution = torch.nn.Conv2d(3, 5, kernel, stride).double()
    x = normal(6, side, side, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(same_convolution(x, convolution), convolution(F.pad(x, padding * 2)))


def test_maps_are_enlarged_as_torch_does():
    maps = normal(3, 5, 8)
    theirs = F.interpolate(maps[:, None], scale_factor=2, mode="bilinear", align_corners=False)[
        :, 0
    ]
    torch.testing.assert_close(enlarged(maps), theirs)


def test_cells_around_a_place_are_those_that_torch_samples():
    grid = normal(2, 3, 6, 9, 4)
    xy = (
        torch.rand(2, 5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 14
        - 3
    )
    xy[0, 0, 0] = torch.tensor([9.0, 0.5])  # outside, and between two rows
    steps = range(-2, 3)
    at = torch.stack(
        [xy + xy.new_tensor([dx, dy]) for dy in steps for dx in steps], -2
    )  # rows slowest
    places = (at.transpose(1, 2).flatten(0, 1) + 0.5) * 2 / torch.tensor([9, 6]) - 1
    maps = grid.flatten(0, 1).permute(0, 3, 1, 2)
    padded = F.pad(grid, (0, 0, 1, 1, 1, 1))
    for border, mode in ((False, "zeros"), (True, "border")):
        ours = blend_rows(gather_rows(padded, xy, 2, border=border), xy, 2)
        theirs = F.grid_sample(maps, places, padding_mode=mode, align_corners=False)
        torch.testing.assert_close(ours, theirs.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2))


def test_the_soft_argmax_near_the_best_cell_is_that_over_all_cells():
    scores = 3 * normal(20, 12, 17)
    rows, columns = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(17) + 0.5, indexing="ij")
    centres = torch.stack([columns, rows], -1).double()
    best = centres.flatten(0, 1)[scores.flatten(1).argmax(1)]
    near = (centres - best[:, None, None]).square().sum(-1) < 25
    weights = scores.flatten(1).softmax(1).view(scores.shape) * near
    mean = (weights[..., None] * centres).sum((1, 2)) / weights.sum((1, 2))[:, None]
    torch.testing.assert_close(soft_argmax(scores, LocoTrackConfig()), mean)


def test_half_of_the_heads_look_back_and_half_ahead_less_and_less_far():
    bias = directed_bias(30, 6, torch.zeros(1))
    seen = torch.isfinite(bias)
    assert (seen[:3] == torch.ones(30, 30).tril().bool()).all()
    assert (seen[3:] == torch.ones(30, 30).triu().bool()).all()
    slopes = torch.tensor([0.3467, 0.1202, 0.0417])  # of the facts
    torch.testing.assert_close(-bias[:3, 29, 19] / 10, slopes, atol=1e-4, rtol=0)
    torch.testing.assert_close(-bias[3:, 3, 13] / 10, slopes, atol=1e-4, rtol=0)


# --- the mini network

CLIP = {"seed": 3, "T": 10, "H": 96, "W": 128, "vx": 1.0, "vy": -0.5}
QUERIES = 6


def test_mini_is_small_and_every_weight_that_is_used_learns(frames, queries):
    torch.manual_seed(0)
    model = LocoTrack(LocoTrackConfig.mini())
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    video, points = torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(queries)
    steps = model(torch.stack([video, video.flip(0)]), points.expand(2, -1, -1))
    assert steps.shape == (1 + 3, 2, 6, 10, 4)
    steps.square().mean().backward()
    assert not_learning(model) == []
    assert (model.torch_pips_mixer.output_proj.weight.grad[4:] == 0).all()


def test_clips_of_a_batch_and_points_do_not_see_each_other(frames, queries):
    torch.manual_seed(0)
    model = LocoTrack(LocoTrackConfig.mini()).eval()
    together, alone = together_and_alone(lambda *clips: model(*clips)[-1], frames, queries)
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)
    with torch.inference_mode():
        one = model(*as_batch(frames, queries[2:3]))[-1]
    torch.testing.assert_close(together[:1, 2:3], one, atol=NOISE_PX, rtol=0)


@pytest.mark.slow
def test_windows_of_a_long_clip_find_what_the_whole_clip_does():
    """What is matched needs one frame alone, so without refinements nothing is lost."""
    clip = parity.video(**CLIP | {"T": 41, "H": 32, "W": 40})
    queries = parity.queries(5, 7, 41, 32, 40)
    whole, parts = (
        mini(LocoTrackTeacher, resolution="own"),
        mini(LocoTrackTeacher, resolution="own", max_frames=16),
    )
    for teacher in (whole, parts):
        teacher.model.refine = lambda features, windows, start, memory: [start]
    np.testing.assert_allclose(
        parts.track(clip, queries).xy, whole.track(clip, queries).xy, atol=NOISE_PX
    )


def test_a_long_clip_is_tracked_in_every_frame():
    clip = parity.video(**CLIP | {"T": 41, "H": 32, "W": 40})
    queries = parity.queries(5, 7, 41, 32, 40)
    tracks = mini(LocoTrackTeacher, max_frames=16).track(clip, queries)
    assert np.isfinite(tracks.xy).all()
    assert np.isfinite(tracks.visibility).all()


def test_a_finer_resolution_changes_what_is_refined_but_not_what_is_matched(frames, queries):
    coarse, fine = (
        mini(LocoTrackTeacher),
        mini(LocoTrackTeacher, resolutions=[(256, 256), (320, 384)]),
    )
    video, points = (
        torch.from_numpy(frames).permute(0, 3, 1, 2)[None],
        torch.from_numpy(queries)[None],
    )
    with torch.inference_mode():
        a, b = (
            t.model(video, points, t.mode_settings.resolutions or [(256, 256)])
            for t in (coarse, fine)
        )
    torch.testing.assert_close(a[0], b[0])
    assert (a[-1] - b[-1]).abs().max() > 100 * NOISE_PX


def test_weights_of_the_other_size_are_refused(tmp_path):
    model = LocoTrack(LocoTrackConfig(**SMALL))
    check_refused(LocoTrackTeacher, "locotrack-base", model, "locotrack-small", tmp_path)
