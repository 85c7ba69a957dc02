"""The teachers of TAPIR: equal to the official code, and properties of our own choices."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from teachers.checkpoints.files import CONFIG
from teachers.errors import CheckpointError, ConfigError
from teachers.tapir.config import BOOTSTAPIR, TapirConfig
from teachers.tapir.network import Tapir
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher
from tests.support import parity
from tests.support.networks import mini, weights_of
from tests.support.parity import NOISE_PX

CLIP = {"seed": 3, "T": 10, "H": 96, "W": 128, "vx": 1.0, "vy": -0.5}
QUERIES = 6
TEACHERS = {
    "tapir": TapirTeacher,
    "bootstapir": BootsTapirTeacher,
    "bootstapir_causal": CausalBootsTapirTeacher,
}


# --- equal to the official code


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


def official_file(case: parity.Case, folder: Path) -> str:
    path = folder / "official.pt"
    torch.save(weights_of(case), path)
    return str(path)


# --- the small network


@pytest.mark.parametrize(
    "kind", [TapirTeacher, pytest.param(CausalBootsTapirTeacher, marks=pytest.mark.slow)]
)
def test_windows_of_a_long_clip_give_what_the_whole_clip_does(kind):
    clip = parity.video(**CLIP | {"T": 45, "H": 32, "W": 40})
    queries = parity.queries(5, 7, 45, 32, 40)
    settings = {"mode": "label", "through_query": False, "resolutions": ((64, 64),)}
    whole, parts = mini(kind, **settings), mini(kind, **settings, max_frames=16)
    for teacher in (whole, parts):  # a network that looks only a few frames far
        shallow = TapirConfig.mini(**teacher.variant, raster=64, mixer_blocks=1, iterations=1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            teacher.model = Tapir(shallow).eval().requires_grad_(False)
        assert teacher.model.config.reach <= 4
    np.testing.assert_allclose(
        parts.track(clip, queries).xy, whole.track(clip, queries).xy, atol=NOISE_PX
    )


def test_label_mode_works_at_the_raster_and_goes_through_the_query(frames, queries):
    teacher = mini(TapirTeacher, mode="label")
    tracks = teacher.track(frames, queries)
    assert np.isfinite(tracks.xy).all()
    np.testing.assert_array_equal(
        tracks.xy[np.arange(6), queries[:, 0].astype(int)], queries[:, 1:]
    )
    assert teacher.info.settings["resolutions"] == ((256, 256),)


@pytest.mark.parametrize("mode", ["predictor", "label", "benchmark"])
def test_a_network_refines_at_the_scales_in_its_file(frames, queries, tmp_path, mode):
    """As if it had been asked to; these frames are smaller than the raster."""
    weights, paths = mini(TapirTeacher).model.state_dict(), {}
    weights = {key: value.contiguous() for key, value in weights.items()}
    for scales in ((1.0,), (0.25, 0.5)):
        paths[scales] = tmp_path / f"{len(scales)}.safetensors"
        config = TapirConfig.mini(scales=scales)
        save_file(weights, paths[scales], {CONFIG: json.dumps(asdict(config))})
    plain, own = (mini(TapirTeacher, checkpoint=str(path), mode=mode) for path in paths.values())
    squares = ((64, 64), (128, 128))
    asked = mini(TapirTeacher, checkpoint=str(paths[(1.0,)]), mode=mode, resolutions=squares).track(
        frames, queries
    )
    np.testing.assert_array_equal(own.track(frames, queries).xy, asked.xy)
    assert np.abs(plain.track(frames, queries).xy - asked.xy).max() > NOISE_PX


def test_label_mode_of_the_causal_network_takes_earlier_frames_from_the_reversed_clip(frames):
    teacher = mini(CausalBootsTapirTeacher, mode="label")
    there = teacher.track(frames, np.array([[6, 40, 30]]))
    back = teacher.track(frames[::-1], np.array([[3, 40, 30]]))
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)


def test_recipe_mode_forgets_the_half_pixel(frames, queries):
    moved = np.float32([0, 0.5, 0.5])
    exact = mini(TapirTeacher, mode="benchmark").track(frames, queries)
    recipe = mini(TapirTeacher, mode="recipe").track(frames, queries + moved)
    np.testing.assert_allclose(recipe.xy - 0.5, exact.xy, atol=1e-4)


@pytest.mark.parametrize("pushes", [[10], [1] * 10, [3, 1, 6]])
def test_a_stream_is_the_same_however_it_is_pushed(frames, queries, pushes):
    teacher = mini(CausalBootsTapirTeacher)
    stream, whole = teacher.stream(queries), teacher.stream(queries).push(frames)
    parts = [stream.push(part) for part in np.split(frames, np.cumsum(pushes)[:-1])]
    xy = np.concatenate([part.xy for part in parts], 1)
    np.testing.assert_allclose(xy, whole.xy, atol=NOISE_PX)
    before = np.arange(10) < queries[:, :1]
    np.testing.assert_array_equal(np.isnan(xy).any(-1), before)
    np.testing.assert_array_equal(np.isnan(whole.visibility), before)


def test_points_of_a_stream_do_not_see_each_other(frames, queries):
    teacher = mini(CausalBootsTapirTeacher)
    together, alone = (
        teacher.stream(queries).push(frames),
        teacher.stream(queries[4:5]).push(frames),
    )
    np.testing.assert_allclose(together.xy[4:5], alone.xy, atol=NOISE_PX)


def test_a_stream_says_what_is_wrong(frames):
    teacher = mini(CausalBootsTapirTeacher)
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
    with pytest.raises(ConfigError, match="mode 'label' of 'mini' needs the whole clip"):
        mini(CausalBootsTapirTeacher, mode="label").stream(np.array([[0, 1, 1]]))


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (64, 300)])
def test_clips_of_any_size_are_tracked(size):
    clip = parity.video(**CLIP | {"T": 2, "H": size[0], "W": size[1]})
    tracks = mini(BootsTapirTeacher).track(
        clip, np.array([[0, 0, 0], [1, size[1] - 0.5, size[0] - 0.5]])
    )
    assert np.isfinite(tracks.xy).all()
    assert ((tracks.visibility >= 0) & (tracks.visibility <= 1)).all()


def test_weights_of_the_other_variant_are_refused(tmp_path):
    path = tmp_path / "boots.safetensors"
    save_file(Tapir(TapirConfig.mini(**BOOTSTAPIR)).state_dict(), path)
    with pytest.raises(
        CheckpointError, match=r"boots.safetensors: not a checkpoint of 'tapir': .* are unexpected"
    ):
        TapirTeacher(name="tapir", checkpoint=str(path), device="cpu", preset="mini")
