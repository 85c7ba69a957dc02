"""TAPIR, BootsTAPIR, causal BootsTAPIR: equal to the official code (`tapir_*`, `bootstapir_*`), and
properties of our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from teachers.errors import CheckpointError, ConfigError
from teachers.layers.correlation import correlate_cells, correlate_maps
from teachers.layers.fast import tanh_gelu
from teachers.layers.memory import Memory
from teachers.layers.overlapping import overlapping
from teachers.layers.resnet import InstanceNorm
from teachers.tapir.mixer import over_time
from teachers.tapir.network import (
    BOOTSTAPIR,
    CAUSAL_BOOTSTAPIR,
    Tapir,
    TapirConfig,
    default_resolutions,
)
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher
from tests.support import parity

NOISE_PX = 2e-3
"""Float32 noise of a track, as in the parity cases."""

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
    frames, queries = as_batch(case)
    with torch.inference_mode():
        result = model(frames, queries, listed_resolutions(case))
    check(result.steps[:, 0], case, "iter_tracks", "iter_occlusion", "iter_expected_dist")
    check(result.answer[0], case, "tracks", "occlusion", "expected_dist")
    product = torch.sigmoid(-result.answer[0, ..., 2:]).prod(-1)
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tapir_256", "bootstapir_256"])
def test_in_float64_only_float64_noise_is_left(name):
    case = parity.case(name)
    frames, queries = as_batch(case)
    with torch.inference_mode():
        answer = official(case).double()(frames, queries.double()).answer[0]
    np.testing.assert_allclose(
        answer[..., :2], case["f64_tracks"], atol=case.meta["tolerance_f64_px"], rtol=0
    )
    np.testing.assert_allclose(
        answer[..., 2], case["f64_occlusion"], atol=case.meta["tolerance_f64_logit"], rtol=0
    )
    np.testing.assert_allclose(
        answer[..., 3], case["f64_expected_dist"], atol=case.meta["tolerance_f64_logit"], rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tapir_quirk_nonsquare", "tapir_quirk_no_resize"])
def test_the_bugs_of_the_torch_release_are_off_by_default(name):
    case = parity.case(name)
    frames, queries = as_batch(case)
    with torch.inference_mode():
        answer = official(case)(frames, queries, listed_resolutions(case)).answer[0]
    check(
        answer,
        case,
        "fixed_tracks",
        "fixed_occlusion",
        "fixed_expected_dist",
        tolerance="fixed_tolerance_px",
    )
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
    check(every[:, 0], case, "iter_tracks", "iter_occlusion", "iter_expected_dist")
    check(every[-1, 0], case, "tracks", "occlusion", "expected_dist")
    check(pinned.answer[0], case, "offline_tracks", "offline_occlusion", "offline_expected_dist")
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


@pytest.mark.slow
def test_a_stream_with_a_replaced_point_equals_the_official_live_model(tmp_path):
    case = parity.case("bootstapir_causal_stream_update")
    teacher = CausalBootsTapirTeacher(
        name="bootstapir-causal", checkpoint=official_file(case, tmp_path), device="cpu"
    )
    stream = teacher.stream(np.pad(case["queries_xy"] - 0.5, ((0, 0), (1, 0))))
    update = case.meta["update"]
    before = stream.push(case.frames[: update["frame"]])
    stream.replace(update["index"], *(np.array(update["xy"]) - 0.5))
    after = stream.push(case.frames[update["frame"] :])
    xy = np.concatenate([before.xy, after.xy], 1)
    product = np.concatenate(
        [tracks.visibility * tracks.confidence for tracks in (before, after)], 1
    )
    np.testing.assert_allclose(xy + 0.5, case["tracks"], atol=case.meta["tolerance_px"], rtol=0)
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )
    assert stream.finish().xy.shape == (5, 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tapir_resize_chunk", "bootstapir_hires_default", "bootstapir_causal_offline"]
)
def test_predictor_mode_equals_the_official_forward_pass_half_a_pixel_away(name, tmp_path):
    case = parity.case(name)
    teacher = TEACHERS[case.meta["model"]](
        name="t", checkpoint=official_file(case, tmp_path), device="cpu"
    )
    tracks = teacher.track(case.frames, case["queries"] - np.float32([0, 0.5, 0.5]))
    np.testing.assert_allclose(
        tracks.xy + 0.5, case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    np.testing.assert_allclose(
        tracks.visibility * tracks.confidence,
        case["visible_product"],
        atol=case.meta["tolerance_logit"],
        rtol=0,
    )
    assert teacher.info.visible_rule == "v*c > 0.5"


def official(case: parity.Case, **changes: Any) -> Tapir:
    model = (
        Tapir(TapirConfig.official(**VARIANTS[case.meta["model"]], **changes))
        .eval()
        .requires_grad_(False)
    )
    model.load_state_dict(official_weights(case))
    return model


def official_weights(case: parity.Case) -> dict[str, Tensor]:
    return _official_weights(case.meta["model"], json.dumps(case.meta["weights"]))


@functools.lru_cache(maxsize=1)
def _official_weights(model: str, formula: str) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(value)
        for key, value in parity.weights(model, **json.loads(formula)).items()
    }


def official_file(case: parity.Case, folder: Path) -> str:
    path = folder / "official.pt"
    torch.save(official_weights(case), path)
    return str(path)


def as_batch(case: parity.Case) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None], torch.from_numpy(
        case["queries"]
    )[None]


def listed_resolutions(case: parity.Case) -> list[tuple[int, int]] | None:
    listed = case.meta["settings"]["refinement_resolutions"]
    return listed and [tuple(resolution) for resolution in listed]


def check(
    values: Tensor,
    case: parity.Case,
    xy: str,
    occlusion: str,
    distance: str,
    tolerance: str = "tolerance_px",
) -> None:
    np.testing.assert_allclose(values[..., :2], case[xy], atol=case.meta[tolerance], rtol=0)
    np.testing.assert_allclose(
        values[..., 2], case[occlusion], atol=case.meta["tolerance_logit"], rtol=0
    )
    np.testing.assert_allclose(
        values[..., 3], case[distance], atol=case.meta["tolerance_logit"], rtol=0
    )


@pytest.mark.parametrize("model", VARIANTS)
def test_keys_and_shapes_are_those_of_the_official_checkpoint(model):
    with torch.device("meta"):
        network = Tapir(TapirConfig.official(**VARIANTS[model]))
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert own == {entry["key"]: entry["shape"] for entry in parity.key_list(model)}


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
    assert default_resolutions(size, TapirConfig.official()) == resolutions


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


@pytest.mark.parametrize("correlate", [correlate_maps, correlate_cells])
def test_correlations_are_products_with_sampled_features(correlate):
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 6, 9, 4, generator=draw, dtype=torch.float64)
    features = torch.randn(2, 5, 3, 4, generator=draw, dtype=torch.float64)
    xy = torch.rand(2, 5, 3, 2, generator=draw, dtype=torch.float64) * 14 - 3  # outside too
    xy[0, 0, 0] = torch.tensor([9.0, 0.5])  # on the border, and on a cell's centre
    ours = correlate(grid, features, xy, radius=2)
    steps = range(-2, 3)
    # [2, 5, 3, 25, 2]
    at = torch.stack([xy + xy.new_tensor([dx, dy]) for dy in steps for dx in steps], -2)
    places = at.transpose(1, 2).flatten(0, 1) * 2 / torch.tensor([9, 6]) - 1
    # [6, 4, 5, 25]
    sampled = F.grid_sample(grid.flatten(0, 1).permute(0, 3, 1, 2), places, align_corners=False)
    sampled = sampled.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2)
    torch.testing.assert_close(ours, (sampled @ features[..., None])[..., 0])


# --- the mini network

CLIP = {"seed": 3, "T": 10, "H": 96, "W": 128, "vx": 1.0, "vy": -0.5}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return parity.video(**CLIP)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return parity.queries(3, 6, CLIP["T"], CLIP["H"], CLIP["W"])


def mini(**changes: Any) -> Tapir:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tapir(TapirConfig.mini(**changes))


def test_mini_is_small_and_every_weight_learns(frames, queries):
    assert sum(parameter.numel() for parameter in mini().parameters()) < 500_000
    model = mini(**BOOTSTAPIR, raster=128)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    result = model(torch.stack([video, video.flip(0)]), torch.from_numpy(queries).expand(2, -1, -1))
    assert result.steps.shape == (1 + 3, 2, 6, 10, 4)
    result.steps.square().mean().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


def test_clips_of_a_batch_do_not_see_each_other(frames, queries):
    model = mini(**BOOTSTAPIR)
    video, points = torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(queries)
    clips, both = torch.stack([video, video.flip(0)]), torch.stack([points, points.flip(0)])
    with torch.inference_mode():
        together = model(clips, both).answer
        alone = torch.cat(
            [model(clip[None], query[None]).answer for clip, query in zip(clips, both, strict=True)]
        )
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)


def test_it_runs_in_bfloat16_near_the_float32_result(frames, queries):
    model, batch = (
        mini(),
        (torch.from_numpy(frames).permute(0, 3, 1, 2)[None], torch.from_numpy(queries)[None]),
    )
    with torch.inference_mode():
        exact = model(*batch).answer
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(*batch).answer
    assert (rough - exact)[..., :2].abs().median() < 1


# --- the teacher


def teacher_of(kind: type[TapirTeacher], **settings: Any) -> Any:
    return kind(name="tapir-mini", checkpoint="random", device="cpu", preset="mini", **settings)


@pytest.mark.parametrize("kind", TEACHERS.values())
def test_block_sizes_do_not_change_the_result(kind, frames, queries):
    small, large = (
        teacher_of(kind, memory=Memory(frames, points)) for frames, points in ((3, 1), (100, 10**6))
    )
    np.testing.assert_allclose(
        small.track(frames, queries).xy, large.track(frames, queries).xy, atol=NOISE_PX
    )


@pytest.mark.parametrize("kind", [TapirTeacher, CausalBootsTapirTeacher])
def test_windows_of_a_long_clip_give_what_the_whole_clip_does(kind):
    clip = parity.video(**CLIP | {"T": 45, "H": 32, "W": 40})
    queries = parity.queries(5, 7, 45, 32, 40)
    settings = {"mode": "label", "through_query": False, "resolutions": ((64, 64),)}
    whole, parts = teacher_of(kind, **settings), teacher_of(kind, **settings, max_frames=16)
    for teacher in (whole, parts):  # a network that looks only a few frames far
        shallow = TapirConfig.mini(**teacher.variant, raster=64, mixer_blocks=1, iterations=1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            teacher.model = Tapir(shallow).eval().requires_grad_(False)
        assert teacher.model.config.reach <= 4
    np.testing.assert_allclose(
        parts.track(clip, queries).xy, whole.track(clip, queries).xy, atol=NOISE_PX
    )


@pytest.mark.parametrize(
    ("frames", "window", "reach"), [(100, 20, 3), (21, 20, 96), (40, 1, 5), (7, 4, 0)]
)
def test_windows_answer_for_every_frame_once(frames, window, reach):
    answered = []
    for whole, kept in overlapping(frames, window, reach):
        assert 0 <= whole.start < whole.stop <= frames
        assert whole.stop - whole.start == window
        answered += range(frames)[whole][kept]
        for frame, place in (
            (answered[-1], kept.stop),
            (range(frames)[whole][kept][0], kept.start + 1),
        ):
            assert (
                frame in (0, frames - 1)
                or min(place - 1, window - place) >= min(reach, window // 4)
                or whole.start == 0
            )
    assert answered == list(range(frames))


def test_label_mode_works_at_the_raster_and_goes_through_the_query(frames, queries):
    teacher = teacher_of(TapirTeacher, mode="label")
    tracks = teacher.track(frames, queries)
    assert np.isfinite(tracks.xy).all()
    np.testing.assert_array_equal(
        tracks.xy[np.arange(6), queries[:, 0].astype(int)], queries[:, 1:]
    )
    assert teacher.info.settings["resolutions"] == ((256, 256),)


def test_label_mode_of_the_causal_network_takes_earlier_frames_from_the_reversed_clip(frames):
    teacher = teacher_of(CausalBootsTapirTeacher, mode="label")
    there = teacher.track(frames, np.array([[6, 40, 30]]))
    back = teacher.track(frames[::-1], np.array([[3, 40, 30]]))
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)


def test_recipe_mode_forgets_the_half_pixel(frames, queries):
    moved = np.float32([0, 0.5, 0.5])
    exact = teacher_of(TapirTeacher, mode="benchmark").track(frames, queries)
    recipe = teacher_of(TapirTeacher, mode="recipe").track(frames, queries + moved)
    np.testing.assert_allclose(recipe.xy - 0.5, exact.xy, atol=1e-4)


def test_a_clip_twice_as_large_has_tracks_twice_as_large():
    """Every pixel four times: resized to the raster the two clips are the same, and a pixel's
    centre x has become 2 x + 0.5."""
    clip = parity.video(**CLIP | {"H": 256, "W": 256, "T": 2})
    queries = parity.queries(4, 5, 2, 256, 256)
    teacher = teacher_of(TapirTeacher, mode="benchmark")
    small = teacher.track(clip, queries)
    large = teacher.track(
        clip.repeat(2, axis=1).repeat(2, axis=2), queries * [1, 2, 2] + [0, 0.5, 0.5]
    )
    np.testing.assert_allclose(large.xy, 2 * small.xy + 0.5, atol=NOISE_PX)
    np.testing.assert_allclose(large.visibility, small.visibility, atol=1e-4)


@pytest.mark.parametrize("pushes", [[10], [1] * 10, [3, 1, 6]])
def test_a_stream_is_the_same_however_it_is_pushed(frames, queries, pushes):
    teacher = teacher_of(CausalBootsTapirTeacher)
    stream, whole = teacher.stream(queries), teacher.stream(queries).push(frames)
    parts = [stream.push(part) for part in np.split(frames, np.cumsum(pushes)[:-1])]
    xy = np.concatenate([part.xy for part in parts], 1)
    np.testing.assert_allclose(xy, whole.xy, atol=NOISE_PX)
    before = np.arange(10) < queries[:, :1]
    np.testing.assert_array_equal(np.isnan(xy).any(-1), before)
    np.testing.assert_array_equal(np.isnan(whole.visibility), before)


def test_points_of_a_stream_do_not_see_each_other(frames, queries):
    teacher = teacher_of(CausalBootsTapirTeacher)
    together, alone = (
        teacher.stream(queries).push(frames),
        teacher.stream(queries[4:5]).push(frames),
    )
    np.testing.assert_allclose(together.xy[4:5], alone.xy, atol=NOISE_PX)


def test_a_stream_says_what_is_wrong(frames):
    teacher = teacher_of(CausalBootsTapirTeacher)
    stream = teacher.stream(np.array([[0, 1, 1], [12, 1, 1]]))
    stream.push(frames)
    with pytest.raises(ConfigError, match="frames of 64 x 96 px in a stream of 128 x 96 px"):
        stream.push(frames[:, :, :64])
    with pytest.raises(
        ConfigError, match=r"query 1 is in frame 12, but the stream ended after 10 frames"
    ):
        stream.finish()
    with pytest.raises(ConfigError, match="the stream has finished"):
        stream.push(frames)
    with pytest.raises(ConfigError, match=r"query 0 is \(t, x, y\) = \(0, 500, 1\)"):
        teacher.stream(np.array([[0, 500, 1]])).push(frames)
    with pytest.raises(ConfigError, match="at least one query"):
        teacher.stream(np.zeros((0, 3)))
    with pytest.raises(ConfigError, match="mode 'label' of 'tapir-mini' needs the whole clip"):
        teacher_of(CausalBootsTapirTeacher, mode="label").stream(np.array([[0, 1, 1]]))


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (64, 300)])
def test_clips_of_any_size_are_tracked(size):
    clip = parity.video(**CLIP | {"T": 2, "H": size[0], "W": size[1]})
    tracks = teacher_of(BootsTapirTeacher).track(
        clip, np.array([[0, 0, 0], [1, size[1] - 0.5, size[0] - 0.5]])
    )
    assert np.isfinite(tracks.xy).all()
    assert ((tracks.visibility >= 0) & (tracks.visibility <= 1)).all()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (TapirTeacher, "tapir_checkpoint_panning.pt"),
        (BootsTapirTeacher, "bootstapir_checkpoint_v2.pt"),
    ],
)
def test_a_teacher_without_weights_refuses(kind, file):
    with pytest.raises(
        CheckpointError,
        match=rf"'tapir' has no weights: get its file from .*/{file} .*--checkpoint FILE",
    ):
        kind(name="tapir", device="cpu")


def test_weights_of_the_other_variant_are_refused(tmp_path):
    path = tmp_path / "boots.safetensors"
    save_file(mini(**BOOTSTAPIR).state_dict(), path)
    with pytest.raises(
        CheckpointError, match=r"boots.safetensors: not a checkpoint of 'tapir': .* are unexpected"
    ):
        TapirTeacher(name="tapir", checkpoint=str(path), device="cpu", preset="mini")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "large"}, "preset = 'large': there are official, mini"),
        ({"max_frames": 0}, "max_frames = 0: must be a whole number, at least 1"),
        ({"max_frames": 2.5}, "max_frames = 2.5: must be a whole number, at least 1"),
        ({"half_pixel": "False"}, "half_pixel = False: must be true or false"),
        (
            {"resolutions": [(100, 128)]},
            r"resolution = \(100, 128\): both sides must be multiples of 8, at least 8",
        ),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, message, frames, queries):
    with pytest.raises(ConfigError, match=message):
        TapirTeacher(
            **{"name": "t", "checkpoint": "random", "device": "cpu", "preset": "mini"} | settings
        ).track(frames, queries)
