"""CoTracker 2.1: equal to the official code, its predictors included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from teachers.cotracker.cotracker2 import CoTracker2, CoTracker2Config, position_embedding
from teachers.cotracker.online import CoTracker2Teacher
from teachers.layers.memory import DEFAULT_MEMORY
from tests.support import networks, parity
from tests.support.networks import (
    LARGE_BLOCKS,
    SMALL_BLOCKS,
    as_batch,
    mini_with,
    together_and_alone,
)
from tests.support.official import (
    answers,
    check,
    check_evaluation,
    check_predictor,
    concatenated,
    file_of,
    inputs,
    model_of,
    predictor,
)
from tests.support.parity import NOISE_PX

KEYS = "cotracker2"


# --- equal to the official code


@pytest.mark.slow
def test_every_iteration_of_every_window_equals_the_official_network():
    case = parity.case("ct2_a")
    model = model_of(case, CoTracker2(CoTracker2Config()), KEYS)
    with torch.inference_mode():
        result = model(*inputs(case), case.meta["train_iters"])
    assert len(result) == case.meta["n_windows"]
    for index, window in enumerate(result):
        check(window.xy[:, 0], case[f"train_w{index}_coords"], case.meta["tolerance_px"])
        check(window.visibility[0, 0], case[f"train_w{index}_vis"], case.meta["tolerance_prob"])
        assert window.confidence.isnan().all()
    check_answers(case, result)


@pytest.mark.slow
def test_three_windows_equal_the_official_network():
    case = parity.case("ct2_t29")
    model = model_of(case, CoTracker2(CoTracker2Config()), KEYS)
    with torch.inference_mode():
        check_answers(case, model(*inputs(case), case.meta["iters"]))


@pytest.mark.slow
def test_float64_equals_the_official_network_to_a_millionth_of_a_pixel():
    case = parity.case("ct2_f64")
    model = model_of(case, CoTracker2(CoTracker2Config()), KEYS)
    frames, queries = inputs(case)
    with torch.inference_mode():
        check_answers(case, model(frames, queries, case.meta["iters"]))
        xy, visibility, _ = answers(
            model.double()(frames, queries.double(), case.meta["iters"]), case.meta["iters"] - 1
        )
    check(xy, case["f64_tracks"], 1e-6)
    check(visibility, case["f64_visibility"], 1e-8)


@pytest.mark.slow
def test_predictor_mode_equals_the_official_offline_predictor(tmp_path):
    case = parity.case("ct2_predictor_offline_queries_backward")
    teacher = predictor(CoTracker2Teacher, official_file(case, tmp_path))
    assert teacher.info.visible_rule == "v > 0.9"
    check_predictor(case, teacher, teacher.track(case.frames, case["queries"]))


@pytest.mark.slow
def test_a_stream_gives_what_the_official_online_predictor_gives(tmp_path):
    case = parity.case("ct2_predictor_online")
    file = official_file(case, tmp_path)
    teacher = predictor(CoTracker2Teacher, file, predictor="online")
    assert teacher.info.visible_rule == "v > 0.6"
    stream = teacher.stream(case["queries"])
    first, second, rest = (
        stream.push(case.frames[:16]),
        stream.push(case.frames[16:]),
        stream.finish(),
    )
    check_predictor(case, teacher, concatenated([first, second, rest]))
    check(first.xy, case["chunk0_tracks"][:8], case.meta["tolerance_px"])


@pytest.mark.slow
def test_benchmark_mode_equals_the_official_evaluation(tmp_path):
    case = parity.case("ct2_eval_joint")
    support_grid = case.meta["constructor"]["grid_size"]
    file = official_file(case, tmp_path)
    check_evaluation(case, CoTracker2Teacher, file, product=False, support_grid=support_grid)


def check_answers(case: parity.Case, result: list[Any]) -> None:
    xy, visibility, _ = answers(result, case.meta["iters"] - 1)
    check(xy, case["tracks"], case.meta["tolerance_px"])
    check(visibility, case["visibility"], case.meta["tolerance_prob"])


def official_file(case: parity.Case, folder: Path) -> str:
    return file_of(case, CoTracker2(CoTracker2Config()), KEYS, folder)


def test_the_position_embedding_is_the_official_one():
    (entry,) = [entry for entry in parity.key_list(KEYS) if entry["key"] == "pos_emb"]
    embedding = position_embedding(96, 128, 456).double()
    assert list(embedding.shape) == entry["shape"]
    np.testing.assert_allclose(
        [embedding.sum(), embedding.norm()], [entry["sum"], entry["l2"]], rtol=1e-9
    )


# --- the mini network


CLIP = {"seed": 5, "T": 20, "H": 48, "W": 64, "vx": 1.0, "vy": -0.5}
QUERIES = 6


@pytest.fixture
def mini() -> CoTracker2:
    """Untrained, but with a head large enough to move points by some px, and with a slow flow
    embedding: noise stays small."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CoTracker2(CoTracker2Config.mini())
        torch.nn.init.normal_(model.updateformer.flow_head.weight, std=0.05)
        with torch.no_grad():
            model.updateformer.input_transform.weight[:, 2:34] *= 0.01
    return model


def test_correlation_is_the_sampled_map_of_products(mini):
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(1, 2, 7, 9, 32, generator=draw)
    feature, xy = (
        torch.randn(1, 3, 2, 32, generator=draw),
        torch.rand(1, 3, 2, 2, generator=draw) * 12 - 2,
    )
    ours = mini.correlation([grid], feature, xy, DEFAULT_MEMORY)
    maps = torch.einsum("btyxc,bntc->bntyx", grid, feature) / 32**0.5
    steps = torch.arange(-3, 4.0)
    # the first axis moves x
    at = xy[..., None, None, :] + torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    places = at.flatten(0, 2) * 2 / torch.tensor([8, 6]) - 1
    theirs = F.grid_sample(
        maps.flatten(0, 2)[:, None], places, align_corners=True, padding_mode="border"
    )
    torch.testing.assert_close(ours.flatten(0, 2), theirs.flatten(1), atol=1e-5, rtol=1e-5)


def test_points_whose_query_has_not_come_do_not_disturb_the_others(mini, tmp_path, frames):
    teacher = mini_with(CoTracker2Teacher, mini, tmp_path, mode="recipe", support_grid=0)
    now, later = np.array([[0, 40, 30], [3, 20, 10]]), np.array([[18, 12, 30], [19, 50, 20]])
    together = teacher.track(frames, np.concatenate([now, later]))
    np.testing.assert_allclose(
        together.xy[:2, :8], teacher.track(frames, now).xy[:, :8], atol=NOISE_PX
    )


def test_sixty_four_points_are_no_exception(mini, tmp_path, frames):
    """As many points as virtual tracks, where the official code mixes up who is hidden from
    whom."""
    teacher = mini_with(CoTracker2Teacher, mini, tmp_path, mode="recipe", support_grid=0)
    count = mini.config.virtual_tracks
    queries = np.stack(
        [
            np.where(np.arange(count) < 2, 0, 19),
            np.linspace(5, 60, count),
            np.linspace(40, 5, count),
        ],
        1,
    )
    np.testing.assert_allclose(
        teacher.track(frames, queries).xy[:2, :8],
        teacher.track(frames, queries[:2]).xy[:, :8],
        atol=NOISE_PX,
    )


def test_block_sizes_do_not_change_the_result(mini, frames, queries):
    with torch.inference_mode():
        whole = mini(*as_batch(frames, queries), memory=LARGE_BLOCKS)
        parts = mini(*as_batch(frames, queries), memory=SMALL_BLOCKS)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.xy, other.xy, atol=NOISE_PX, rtol=0)
    assert (whole[-1].xy[-1] - whole[-1].xy[0]).abs().max() > 100 * NOISE_PX


def test_clips_of_a_batch_do_not_see_each_other(mini, frames, queries):
    together, alone = together_and_alone(
        lambda *clips: mini(*clips)[0].xy.transpose(0, 1), frames, queries
    )
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)


@pytest.mark.parametrize(
    ("settings", "rule", "backward"),
    [
        ({"mode": "predictor"}, "v > 0.9", True),
        ({"mode": "predictor", "predictor": "online"}, "v > 0.6", False),
        ({"mode": "label"}, "v > 0.9", True),
        ({"mode": "recipe"}, "v > 0.9", False),
        ({"mode": "benchmark"}, "v > 0.6", False),
    ],
)
def test_each_mode_is_the_published_call(settings, rule, backward):
    info = networks.mini(CoTracker2Teacher, **settings).info
    assert (info.visible_rule, info.settings["backward"]) == (rule, backward)


def test_label_mode_covers_every_frame_and_knows_no_confidence(mini, tmp_path, frames, queries):
    tracks = mini_with(CoTracker2Teacher, mini, tmp_path, mode="label").track(
        frames[:, :47, :62], np.minimum(queries, [19, 61, 46])
    )
    assert np.isfinite(tracks.xy).all()
    assert np.isfinite(tracks.visibility).all()
    assert np.isnan(tracks.confidence).all()
