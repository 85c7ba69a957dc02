"""CoTracker3 offline: equal to the official code (`ct3_offline_*` and the predictors' cases), and
properties of our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from teachers.cotracker import cotracker3
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config, Memory
from teachers.cotracker.offline import CoTracker3OfflineTeacher
from teachers.cotracker.support_points import frame_grid
from teachers.errors import ConfigError
from teachers.layers.time_embedding import time_embedding
from tests.support import networks, parity
from tests.support.networks import (
    LARGE_BLOCKS,
    SMALL_BLOCKS,
    as_batch,
    mini_with,
    not_learning,
    together_and_alone,
)
from tests.support.official import (
    check,
    check_evaluation,
    check_predictor,
    file_of,
    inputs,
    model_of,
    predictor,
)
from tests.support.parity import NOISE_PX

KEYS = "cotracker3_offline"


# --- equal to the official code


LONG = [pytest.param(f"ct3_offline_t{frames}", marks=pytest.mark.slow) for frames in (60, 72)]


@pytest.mark.parametrize("name", ["ct3_offline_a", *LONG])
def test_every_iteration_equals_the_official_network(name):
    case = parity.case(name)
    model = model_of(case, CoTracker3(CoTracker3Config()), KEYS)
    with torch.inference_mode():
        result = model(*inputs(case), case.meta["train_iters"])
    px, probability = case.meta["tolerance_px"], case.meta["tolerance_prob"]
    check(result.xy[:, 0], case["train_w0_coords"], px)
    check(result.visibility[:, 0], case["train_w0_vis"], probability)
    check(result.confidence[:, 0], case["train_w0_conf"], probability)
    answer = case.meta["iters"] - 1
    check(result.xy[answer, 0], case["tracks"], px)
    check(result.visibility[answer, 0], case["visibility"], probability)
    check(result.confidence[answer, 0], case["confidence"], probability)


@pytest.mark.slow
def test_predictor_mode_equals_the_official_predictor(tmp_path):
    case = parity.case("ct3_predictor_offline_queries_backward")
    teacher = predictor(CoTracker3OfflineTeacher, official_file(case, tmp_path))
    check_predictor(case, teacher, teacher.track(case.frames, case["queries"]))


@pytest.mark.slow
def test_predictor_mode_without_support_equals_the_official_grid(tmp_path):
    case = parity.case("ct3_predictor_offline_grid_backward")
    file = official_file(case, tmp_path)
    teacher = predictor(CoTracker3OfflineTeacher, file, support_grid=0)
    height, width = case.frames.shape[1:3]
    grid = frame_grid(case.meta["call"]["grid_size"], 384, 512).numpy() * [
        1,
        (width - 1) / 511,
        (height - 1) / 383,
    ]
    grid[:, 0] = case.meta["call"]["grid_query_frame"]
    check_predictor(case, teacher, teacher.track(case.frames, grid))


def test_a_grid_of_one_point_is_in_the_middle():
    assert frame_grid(1, 384, 512).tolist() == [[0, 256, 192]]
    assert frame_grid(0, 384, 512).shape == (0, 3)


@pytest.mark.slow
def test_benchmark_mode_equals_the_official_evaluation(tmp_path):
    case = parity.case("ct3_eval_offline_joint")
    file = official_file(case, tmp_path)
    teacher = check_evaluation(case, CoTracker3OfflineTeacher, file, product=True)
    assert teacher.info.settings["support_grid"] == case.meta["constructor"]["grid_size"]


def official_file(case: parity.Case, folder: Path) -> str:
    return file_of(case, CoTracker3(CoTracker3Config()), KEYS, folder)


def test_the_time_embedding_is_the_official_one():
    (entry,) = [entry for entry in parity.key_list(KEYS) if entry["key"] == "time_emb"]
    embedding = time_embedding(60, 1110).double()
    assert list(embedding.shape) == entry["shape"]
    np.testing.assert_allclose(
        [embedding.sum(), embedding.norm()], [entry["sum"], entry["l2"]], rtol=1e-9
    )


# --- the mini network


@pytest.fixture
def mini() -> CoTracker3:
    """Untrained, but with heads large enough to move points by some px."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CoTracker3(CoTracker3Config.mini())
        torch.nn.init.normal_(model.updateformer.flow_head.weight, std=0.05)
        torch.nn.init.normal_(model.updateformer.vis_conf_head.weight, std=0.05)
    return model


CLIP = {"seed": 3, "T": 10, "H": 64, "W": 96, "vx": 1.0, "vy": -0.5}
QUERIES = 6


def test_mini_is_small_and_every_weight_learns(mini, frames, queries):
    assert sum(parameter.numel() for parameter in mini.parameters()) < 1_500_000
    result = mini(*as_batch(frames, queries), iterations=2)
    assert result.xy.shape == (2, 1, 6, 10, 2)
    (result.xy.mean() + result.visibility.mean() + result.confidence.mean()).backward()
    assert not_learning(mini) == []


def test_block_sizes_do_not_change_the_result(mini, frames, queries):
    with torch.inference_mode():
        whole = mini(*as_batch(frames, queries), memory=LARGE_BLOCKS)
        parts = mini(*as_batch(frames, queries), memory=SMALL_BLOCKS)
    assert (whole.xy[-1] - whole.xy[0]).abs().max() > 100 * NOISE_PX
    torch.testing.assert_close(parts.xy, whole.xy, atol=NOISE_PX, rtol=0)
    torch.testing.assert_close(parts.visibility, whole.visibility, atol=1e-4, rtol=0)


def test_clips_of_a_batch_do_not_see_each_other(mini, frames, queries):
    together, alone = together_and_alone(
        lambda *clips: mini(*clips).xy.transpose(0, 1), frames, queries
    )
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)


def test_correlating_again_on_the_way_back_does_not_change_gradients(mini, frames, queries):
    gradients = []
    for recompute in (True, False):
        result = mini(
            *as_batch(frames, queries),
            iterations=2,
            memory=Memory(points_per_block=20, recompute=recompute),
        )
        loss = result.xy.square().mean() + result.visibility.mean()
        gradients.append(
            torch.autograd.grad(loss, [mini.fnet.conv1.weight, mini.corr_mlp.fc1.weight])
        )
    for again, kept in zip(*gradients, strict=True):
        assert kept.any()
        torch.testing.assert_close(again, kept, rtol=1e-4, atol=1e-4 * kept.abs().max().item())


def test_it_runs_in_bfloat16_near_the_float32_result(mini, frames, queries):
    with torch.inference_mode():
        exact = mini(*as_batch(frames, queries), iterations=1)
        with torch.autocast("cpu", torch.bfloat16):
            rough = mini(*as_batch(frames, queries), iterations=1)
    assert rough.xy.dtype == torch.float32
    torch.testing.assert_close(rough.xy, exact.xy, atol=0.25, rtol=0)


class Rounding(TorchDispatchMode):
    """Counts the numbers that are rounded to bfloat16."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.numbers += args[0].numel()
        return func(*args, **kwargs)


@pytest.mark.parametrize("recompute", [True, False])
def test_maps_are_rounded_once_for_all_iterations_and_nothing_else_changes(
    mini, frames, queries, recompute, monkeypatch
):
    encode = mini.encode  # on a GPU, autocast leaves lengths, and so the maps, in float32

    def as_there(*given):
        return [level.float() for level in encode(*given)]

    def step():
        with torch.autocast("cpu", torch.bfloat16), Rounding() as rounding:
            memory = Memory(points_per_block=20, recompute=recompute)
            result = mini(*as_batch(frames, queries), iterations=3, memory=memory)
            loss = result.xy.square().mean() + result.visibility.mean()
        weights = [mini.fnet.conv1.weight, mini.corr_mlp.fc1.weight]
        return rounding.numbers, (result.xy, *torch.autograd.grad(loss, weights))

    monkeypatch.setattr(mini, "encode", as_there)
    once, found = step()
    monkeypatch.setattr(cotracker3, "rounded_for_products", lambda pyramid: None)
    in_each, expected = step()
    video, points = as_batch(frames, queries)
    cells = video.shape[1] * points.shape[1] * (2 * mini.config.radius + 2) ** 2
    maps = sum(level.numel() for level in encode(video))
    gathered = 3 * mini.config.levels * cells * mini.config.channels
    assert in_each - once == gathered - maps > 0
    for new, old in zip(found, expected, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-5 * old.abs().max().item())


@pytest.mark.parametrize(("height", "width"), [(62, 96), (64, 98), (12, 96)])
def test_sizes_that_do_not_fit_the_pyramid_are_refused(mini, height, width):
    with pytest.raises(
        ConfigError,
        match=(
            rf"frames of {width} x {height} px: the network needs multiples of 4, at least 32 a "
            r"side"
        ),
    ):
        mini.encode(torch.zeros(1, 2, 3, height, width))


# --- the teacher


def test_frames_before_the_query_come_from_the_reversed_clip(mini, tmp_path, frames):
    teacher = mini_with(CoTracker3OfflineTeacher, mini, tmp_path, support_grid=0)
    there = teacher.track(frames, np.array([[6, 40, 30]]))
    back = teacher.track(frames[::-1], np.array([[3, 40, 30]]))
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)
    np.testing.assert_array_equal(there.xy[0, 6], [40, 30])
    assert there.visibility[0, 6] == 1


@pytest.mark.parametrize("mode", ["label", "recipe"])
def test_clips_of_any_size_are_tracked_with_a_hundred_support_points(
    mini, tmp_path, frames, queries, mode
):
    teacher = mini_with(CoTracker3OfflineTeacher, mini, tmp_path, mode=mode)
    tracks = teacher.track(frames[:, :63, :94], np.minimum(queries, [9, 93, 62]))
    assert np.isfinite(tracks.xy).all()
    assert teacher.info.visible_rule == "v > 0.9"
    settings = teacher.info.settings
    assert (settings["support_points"], settings["iterations"]) == (100, 4)


def test_the_seed_draws_the_support_points(mini, tmp_path, frames, queries):
    teacher = mini_with(CoTracker3OfflineTeacher, mini, tmp_path, mode="label")
    one, again, other = (teacher.track(frames, queries, seed).xy for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0


def test_a_query_tracked_alone_does_not_depend_on_the_others(mini, tmp_path, frames, queries):
    frames, queries = frames[:3], queries * [0, 1, 1]
    alone = mini_with(
        CoTracker3OfflineTeacher, mini, tmp_path, mode="benchmark", single=True, iterations=2
    )
    together = mini_with(CoTracker3OfflineTeacher, mini, tmp_path, mode="benchmark", iterations=2)
    all_alone = alone.track(frames, queries).xy
    np.testing.assert_allclose(alone.track(frames, queries[2:3]).xy, all_alone[2:3], atol=NOISE_PX)
    assert np.abs(all_alone - together.track(frames, queries).xy).max() > 10 * NOISE_PX


def test_frames_that_cannot_be_written_to_are_taken(mini, tmp_path, frames, queries):
    frames = frames.copy()
    frames.setflags(write=False)
    teacher = mini_with(CoTracker3OfflineTeacher, mini, tmp_path, mode="label")
    assert np.isfinite(teacher.track(frames, queries).xy).all()


def test_one_frame_is_a_clip(mini, tmp_path, frames):
    tracks = mini_with(CoTracker3OfflineTeacher, mini, tmp_path).track(
        frames[:1], np.array([[0, 40, 30]])
    )
    np.testing.assert_array_equal(tracks.xy, [[[40, 30]]])


def test_random_weights_are_asked_for_by_name_and_are_always_the_same(frames, queries):
    one, two = (networks.mini(CoTracker3OfflineTeacher) for _ in range(2))
    assert one.info.checkpoint_sha256 == "random"
    np.testing.assert_array_equal(one.track(frames, queries).xy, two.track(frames, queries).xy)
