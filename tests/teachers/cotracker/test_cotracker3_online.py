"""CoTracker3 online: equal to the official code, window by window and as a stream; and what we do
where that code gives zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from teachers.cotracker.cotracker3 import ONLINE_PRESETS, CoTracker3Online
from teachers.cotracker.online import CoTracker3OnlineTeacher
from teachers.cotracker.windows import WindowChain, windows
from teachers.errors import ConfigError
from teachers.layers.memory import DEFAULT_MEMORY
from tests.support import networks, official, parity
from tests.support.networks import as_batch, mini_with, not_learning
from tests.support.official import (
    answers,
    check,
    check_predictor,
    file_of,
    inputs,
    model_of,
    predictor,
)
from tests.support.parity import NOISE_PX
from tests.support.slow import slow

KEYS = "cotracker3_online"


# --- equal to the official code


@pytest.mark.parametrize(
    "name",
    ["ct3_online_t11", *slow("ct3_online_a", "ct3_online_t29")],
)
def test_every_iteration_of_every_window_equals_the_official_network(name):
    case = parity.case(name)
    model = model_of(case, official_network(), KEYS)
    with torch.inference_mode():
        result = model(*inputs(case), case.meta["train_iters"])
    assert len(result) == case.meta["n_windows"]
    px, probability = case.meta["tolerance_px"], case.meta["tolerance_prob"]
    for index, window in enumerate(result):
        assert window.first_frame == 8 * index
        check(window.xy[:, 0], case[f"train_w{index}_coords"], px)
        check(window.visibility[:, 0], case[f"train_w{index}_vis"], probability)
        check(window.confidence[:, 0], case[f"train_w{index}_conf"], probability)
    # fewer iterations change what later windows start from
    if case.meta["iters"] < case.meta["train_iters"]:
        with torch.inference_mode():
            result = model(*inputs(case), case.meta["iters"])
    xy, visibility, confidence = answers(result, case.meta["iters"] - 1)
    check(xy, case["tracks"], px)
    check(visibility, case["visibility"], probability)
    check(confidence, case["confidence"], probability)


@pytest.mark.slow
def test_float64_equals_the_official_network_to_a_millionth_of_a_pixel():
    case = parity.case("ct3_online_t11")
    model = model_of(case, official_network(), KEYS).double()
    frames, queries = inputs(case)
    with torch.inference_mode():
        xy, visibility, confidence = answers(
            model(frames, queries.double(), case.meta["iters"]), case.meta["iters"] - 1
        )
    check(xy, case["f64_tracks"], 1e-6)
    check(visibility, case["f64_visibility"], 1e-8)
    check(confidence, case["f64_confidence"], 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "support_grid"), [("ct3_predictor_online", 0), ("ct3_predictor_online_support", 6)]
)
def test_a_stream_gives_what_the_official_online_predictor_gives_after_each_chunk(
    tmp_path, name, support_grid
):
    case = parity.case(name)
    file = official_file(case, tmp_path)
    teacher = predictor(CoTracker3OnlineTeacher, file, support_grid=support_grid)
    stream = teacher.stream(case["queries"])
    chunks = [case.frames[:16], case.frames[16:24], case.frames[24:]]
    final = [*(stream.push(chunk) for chunk in chunks if len(chunk)), stream.finish()]
    check_predictor(case, teacher, official.concatenated(final))
    # the first half of a window is final as soon as it is there, so it must be in the answer after
    # that chunk too
    check(final[0].xy, case["chunk0_tracks"][:8], case.meta["tolerance_px"])
    check(
        official.concatenated(final[:2]).xy[:, 8:],
        case["chunk1_tracks" if "chunk1_tracks" in case.arrays else "tracks"][8:16],
        case.meta["tolerance_px"],
    )


@pytest.mark.slow
def test_benchmark_mode_with_one_query_at_a_time_equals_the_official_evaluation(tmp_path):
    case = parity.case("ct3_eval_online_single")
    call = case.meta["constructor"]
    official.check_evaluation(
        case,
        CoTracker3OnlineTeacher,
        official_file(case, tmp_path),
        product=True,
        single=True,
        support_grid=call["grid_size"],
        local_grid=call["local_grid_size"],
    )


def official_network() -> CoTracker3Online:
    return CoTracker3Online(ONLINE_PRESETS["official"]())


def official_file(case: parity.Case, folder: Path) -> str:
    return file_of(case, official_network(), KEYS, folder)


# --- the mini network


CLIP = {"seed": 3, "T": 27, "H": 48, "W": 64, "vx": 1.0, "vy": -0.5}
QUERIES = 6


@pytest.fixture
def mini() -> CoTracker3Online:
    """Untrained, but with heads large enough to move points by some px."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CoTracker3Online(ONLINE_PRESETS["mini"]())
        torch.nn.init.normal_(model.updateformer.flow_head.weight, std=0.05)
        torch.nn.init.normal_(model.updateformer.vis_conf_head.weight, std=0.05)
    return model


@pytest.mark.parametrize(
    ("frames_there", "first_frames"),
    [(1, [0]), (8, [0]), (16, [0]), (17, [0, 8]), (24, [0, 8]), (27, [0, 8, 16])],
)
def test_windows_cover_every_frame(mini, frames, queries, frames_there, first_frames):
    with torch.inference_mode():
        result = mini(
            *as_batch(frames[:frames_there], queries * np.float32([0, 1, 1])), iterations=1
        )
    assert [window.first_frame for window in result] == first_frames
    assert result[-1].first_frame + result[-1].xy.shape[3] == frames_there


@pytest.mark.parametrize("length", [1, 5, 8])
def test_a_clip_shorter_than_half_a_window_is_as_one_that_stands_still_at_its_end(
    mini, frames, queries, length
):
    queries = queries * np.float32([0, 1, 1])
    longer = np.concatenate(
        [frames[:length], np.repeat(frames[length - 1 : length], 16 - length, 0)]
    )
    with torch.inference_mode():
        (short,), (long,) = (
            mini(*as_batch(frames[:length], queries)),
            mini(*as_batch(longer, queries)),
        )
    torch.testing.assert_close(short.xy, long.xy[..., :length, :], atol=NOISE_PX, rtol=0)
    assert (
        short.xy[-1] - torch.from_numpy(queries)[None, :, None, 1:]
    ).abs().max() > 100 * NOISE_PX


def test_the_loss_of_a_window_reaches_the_one_before_through_logits_but_not_through_positions(
    mini, frames, queries
):
    video, points = as_batch(frames[:24], queries * np.float32([0, 1, 1]))
    chain = WindowChain(mini, points, (64, 64), iterations=1, memory=DEFAULT_MEMORY)
    one, two = windows(mini.encode(video), mini.config.window)
    chain.advance(one)
    first = chain.last
    second = chain.advance(two)
    loss = second.visibility_logit.sum() + second.confidence_logit.sum() + second.xy.sum()
    pulls = torch.autograd.grad(
        loss, [first.visibility_logit, first.confidence_logit, first.xy], allow_unused=True
    )
    assert pulls[2] is None
    for pull in pulls[:2]:
        assert (pull[..., 8:] != 0).all()
        assert (pull[..., :8] == 0).all()


def test_every_weight_learns(mini, frames, queries):
    result = mini(*as_batch(frames[:20], queries % np.float32([20, 100, 100])), iterations=2)
    sum(
        window.xy.mean() + window.visibility.mean() + window.confidence.mean() for window in result
    ).backward()
    assert not_learning(mini) == []


# --- the teacher


@pytest.mark.parametrize(
    "pieces",
    [
        [1] * 27,
        [5, 0, 11, 2, 9],
        *slow([27], [16, 8, 3], [40]),
    ],
)
def test_a_stream_gives_the_tracks_of_the_whole_clip(mini, tmp_path, frames, queries, pieces):
    teacher = mini_with(CoTracker3OnlineTeacher, mini, tmp_path, mode="recipe")
    stream, parts, first = teacher.stream(queries), [], 0
    for piece in pieces:
        if piece:
            parts.append(stream.push(frames[first : first + piece]))
        first += piece
    whole, streamed = (
        teacher.track(frames, queries),
        official.concatenated([*parts, stream.finish()]),
    )
    np.testing.assert_allclose(streamed.xy, whole.xy, atol=NOISE_PX)
    np.testing.assert_allclose(streamed.visibility, whole.visibility, atol=1e-4)
    np.testing.assert_allclose(streamed.confidence, whole.confidence, atol=1e-4)


@pytest.mark.parametrize("length", [3, *slow(16, 24)])
def test_a_stream_may_end_anywhere(mini, tmp_path, frames, queries, length):
    teacher = mini_with(CoTracker3OnlineTeacher, mini, tmp_path, mode="predictor")
    queries = np.minimum(queries, [length - 1, 100, 100])
    stream = teacher.stream(queries)
    streamed = official.concatenated([stream.push(frames[:length]), stream.finish()])
    np.testing.assert_allclose(
        streamed.xy, teacher.track(frames[:length], queries).xy, atol=NOISE_PX
    )


def test_label_mode_takes_the_frames_before_a_query_from_the_reversed_clip(mini, tmp_path, frames):
    label, recipe = (
        mini_with(CoTracker3OnlineTeacher, mini, tmp_path, mode="label"),
        mini_with(CoTracker3OnlineTeacher, mini, tmp_path, mode="recipe"),
    )
    query = np.array([[20, 40, 30]])
    there = label.track(frames, query)
    back = recipe.track(frames[::-1].copy(), query * [0, 1, 1] + [6, 0, 0])
    np.testing.assert_allclose(there.xy[:, :20], back.xy[:, ::-1][:, :20], atol=NOISE_PX)
    np.testing.assert_allclose(
        there.xy[:, 21:], recipe.track(frames, query).xy[:, 21:], atol=NOISE_PX
    )
    np.testing.assert_array_equal(there.xy[0, 20], [40, 30])
    assert there.visibility[0, 20] == 1


@pytest.mark.parametrize(
    ("mode", "rule", "iterations", "support_grid"),
    [
        ("predictor", "v*c > 0.6", 6, 0),
        ("label", "v > 0.9", 4, 5),
        ("recipe", "v > 0.9", 4, 5),
        ("benchmark", "v*c > 0.6", 6, 5),
    ],
)
def test_each_mode_is_the_published_call(mode, rule, iterations, support_grid):
    info = networks.mini(CoTracker3OnlineTeacher, mode=mode).info
    assert (info.visible_rule, info.settings["iterations"], info.settings["support_grid"]) == (
        rule,
        iterations,
        support_grid,
    )
    assert info.settings["backward"] == (mode == "label")
    assert (info.settings["resolution"] is None) == (mode in ("label", "recipe"))


def test_label_mode_takes_clips_of_any_size_and_covers_every_frame(mini, tmp_path, frames, queries):
    tracks = mini_with(CoTracker3OnlineTeacher, mini, tmp_path, mode="label").track(
        frames[:10, :47, :62], np.minimum(queries, [9, 61, 46])
    )
    assert np.isfinite(tracks.xy).all()
    assert np.isfinite(tracks.visibility).all()


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("label", {}), ("benchmark", {"single": True}), ("recipe", {"support_points": 3})],
)
def test_modes_that_need_the_whole_clip_cannot_stream(mode, settings):
    teacher = networks.mini(CoTracker3OnlineTeacher, mode=mode, **settings)
    with pytest.raises(ConfigError, match=f"mode '{mode}' of 'mini' needs the whole clip"):
        teacher.stream(np.array([[0, 1, 1]]))
