"""CoTracker3 offline: equal to the official code (`ct3_offline_*` and the predictors' cases), and
properties of our own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from teachers.checkpoints.files import load_weights, read_weights
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config, Memory
from teachers.cotracker.offline import CoTracker3OfflineTeacher
from teachers.cotracker.support_points import frame_grid
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.sampling import sample_windows
from teachers.layers.time_embedding import time_embedding
from teachers.tracks import VisibleRule
from tests.support import parity

NOISE_PX = 2e-3
"""Float32 noise of a track, as in the parity cases."""


# --- equal to the official code


@pytest.mark.parametrize(
    "name",
    [
        "ct3_offline_a",
        pytest.param("ct3_offline_t60", marks=pytest.mark.slow),
        pytest.param("ct3_offline_t72", marks=pytest.mark.slow),
    ],
)
def test_every_iteration_equals_the_official_network(name):
    case = parity.case(name)
    model = CoTracker3(CoTracker3Config.official())
    model.load_state_dict(official_weights(case))
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        result = model(frames, torch.from_numpy(case["queries"])[None], case.meta["train_iters"])
    px, probability = case.meta["tolerance_px"], case.meta["tolerance_prob"]
    np.testing.assert_allclose(
        result.xy[:, 0].transpose(1, 2), case["train_w0_coords"], atol=px, rtol=0
    )
    np.testing.assert_allclose(
        result.visibility[:, 0].transpose(1, 2), case["train_w0_vis"], atol=probability, rtol=0
    )
    np.testing.assert_allclose(
        result.confidence[:, 0].transpose(1, 2), case["train_w0_conf"], atol=probability, rtol=0
    )
    answer = case.meta["iters"] - 1
    np.testing.assert_allclose(
        result.xy[answer, 0].transpose(0, 1), case["tracks"], atol=px, rtol=0
    )
    np.testing.assert_allclose(
        result.visibility[answer, 0].T, case["visibility"], atol=probability, rtol=0
    )
    np.testing.assert_allclose(
        result.confidence[answer, 0].T, case["confidence"], atol=probability, rtol=0
    )


@pytest.mark.slow
def test_predictor_mode_equals_the_official_predictor(tmp_path):
    case = parity.case("ct3_predictor_offline_queries_backward")
    teacher = CoTracker3OfflineTeacher(
        name="cotracker3-offline", checkpoint=official_file(case, tmp_path), device="cpu"
    )
    check_predictor(case, teacher, case["queries"])


@pytest.mark.slow
def test_predictor_mode_without_support_equals_the_official_grid(tmp_path):
    case = parity.case("ct3_predictor_offline_grid_backward")
    teacher = CoTracker3OfflineTeacher(
        name="cotracker3-offline",
        checkpoint=official_file(case, tmp_path),
        device="cpu",
        support_grid=0,
    )
    height, width = case.frames.shape[1:3]
    grid = frame_grid(case.meta["call"]["grid_size"], 384, 512).numpy() * [
        1,
        (width - 1) / 511,
        (height - 1) / 383,
    ]
    grid[:, 0] = case.meta["call"]["grid_query_frame"]
    check_predictor(case, teacher, grid)


def test_a_grid_of_one_point_is_in_the_middle():
    assert frame_grid(1, 384, 512).tolist() == [[0, 256, 192]]
    assert frame_grid(0, 384, 512).shape == (0, 3)


def test_benchmark_mode_equals_the_official_evaluation(tmp_path):
    case = parity.case("ct3_eval_offline_joint")
    call = case.meta["constructor"]
    teacher = CoTracker3OfflineTeacher(
        name="cotracker3-offline",
        checkpoint=official_file(case, tmp_path),
        device="cpu",
        mode="benchmark",
        resolution=tuple(call["interp_shape"]),
        iterations=call["n_iters"],
    )
    assert teacher.info.settings["support_grid"] == call["grid_size"]
    tracks = teacher.track(case.frames, case["queries"])
    np.testing.assert_allclose(
        tracks.xy.swapaxes(0, 1), case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    product = tracks.visibility * tracks.confidence
    np.testing.assert_allclose(
        product.T, case["visibility"], atol=case.meta["tolerance_prob"], rtol=0
    )


def check_predictor(
    case: parity.Case, teacher: CoTracker3OfflineTeacher, queries: np.ndarray
) -> None:
    assert teacher.info.settings["iterations"] == case.meta["iters"]
    tracks = teacher.track(case.frames, queries)
    np.testing.assert_allclose(
        tracks.xy.swapaxes(0, 1), case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    visible, sure = VisibleRule.parse(teacher.info.visible_rule)(tracks).T, case["visibility_sure"]
    np.testing.assert_array_equal(visible[sure], case["visibility"][sure])


def official_weights(case: parity.Case) -> dict[str, Tensor]:
    filled = parity.weights("cotracker3_offline", **case.meta["weights"])
    return {key: torch.from_numpy(value) for key, value in filled.items()} | {
        "time_emb": time_embedding(60, 1110)
    }


def official_file(case: parity.Case, folder: Path) -> str:
    path = folder / "scaled_offline.safetensors"
    save_file(official_weights(case), path)
    return str(path)


def test_keys_and_shapes_are_those_of_the_official_checkpoint():
    with torch.device("meta"):
        model = CoTracker3(CoTracker3Config.official())
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert own == {entry["key"]: entry["shape"] for entry in parity.key_list("cotracker3_offline")}


def test_the_time_embedding_is_the_official_one():
    (entry,) = [
        entry for entry in parity.key_list("cotracker3_offline") if entry["key"] == "time_emb"
    ]
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


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return parity.video(**CLIP)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return parity.queries(3, 6, CLIP["T"], CLIP["H"], CLIP["W"])


def as_batch(frames: np.ndarray, queries: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None], torch.from_numpy(queries)[None]


def test_mini_is_small_and_every_weight_learns(mini, frames, queries):
    assert sum(parameter.numel() for parameter in mini.parameters()) < 1_500_000
    result = mini(*as_batch(frames, queries), iterations=2)
    assert result.xy.shape == (2, 1, 6, 10, 2)
    (result.xy.mean() + result.visibility.mean() + result.confidence.mean()).backward()
    without = [
        name
        for name, parameter in mini.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


def test_block_sizes_do_not_change_the_result(mini, frames, queries):
    with torch.inference_mode():
        whole = mini(
            *as_batch(frames, queries), memory=Memory(frames_per_block=100, points_per_block=10**6)
        )
        parts = mini(
            *as_batch(frames, queries), memory=Memory(frames_per_block=3, points_per_block=1)
        )
    assert (whole.xy[-1] - whole.xy[0]).abs().max() > 100 * NOISE_PX
    torch.testing.assert_close(parts.xy, whole.xy, atol=NOISE_PX, rtol=0)
    torch.testing.assert_close(parts.visibility, whole.visibility, atol=1e-4, rtol=0)


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


def test_clips_of_a_batch_do_not_see_each_other(mini, frames, queries):
    video, points = as_batch(frames, queries)
    both = torch.cat([video, video.flip(1)]), torch.cat([points, points.flip(1)])
    with torch.inference_mode():
        together = mini(*both).xy
        alone = torch.cat(
            [mini(clip[None], query[None]).xy for clip, query in zip(*both, strict=True)], 1
        )
    torch.testing.assert_close(together, alone, atol=NOISE_PX, rtol=0)


def test_it_runs_in_bfloat16_near_the_float32_result(mini, frames, queries):
    with torch.inference_mode():
        exact = mini(*as_batch(frames, queries), iterations=1)
        with torch.autocast("cpu", torch.bfloat16):
            rough = mini(*as_batch(frames, queries), iterations=1)
    assert rough.xy.dtype == torch.float32
    torch.testing.assert_close(rough.xy, exact.xy, atol=0.25, rtol=0)


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


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_windows_are_those_of_grid_sample(radius):
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 7, 9, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    xy = torch.rand(2, 4, 3, 2, generator=draw, dtype=torch.float64) * 20 - 5  # far outside too
    xy[0, 0, 0] = torch.tensor([2.0, 8.0])  # on a cell
    ours = sample_windows(grid, torch.arange(3)[None, None], xy, radius)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # the first axis moves x
    at = xy[..., None, None, :] + torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    places = at.flatten(3, 4).transpose(1, 2).flatten(0, 1) * 2 / torch.tensor([8, 6]) - 1
    theirs = F.grid_sample(
        grid.flatten(0, 1).permute(0, 3, 1, 2), places, align_corners=True, padding_mode="border"
    )
    theirs = theirs.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2)
    torch.testing.assert_close(ours, theirs)
    pull = torch.randn(ours.shape, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(
        *(torch.autograd.grad(windows, grid, pull)[0] for windows in (ours, theirs))
    )


# --- the teacher


def mini_teacher(model: CoTracker3, folder: Path, **settings: Any) -> CoTracker3OfflineTeacher:
    path = folder / "mini.safetensors"
    save_file(model.state_dict(), path)
    return CoTracker3OfflineTeacher(
        name="cotracker3-offline-mini",
        checkpoint=str(path),
        device="cpu",
        preset="mini",
        **settings,
    )


def test_frames_before_the_query_come_from_the_reversed_clip(mini, tmp_path, frames):
    teacher = mini_teacher(mini, tmp_path, support_grid=0)
    there = teacher.track(frames, np.array([[6, 40, 30]]))
    back = teacher.track(frames[::-1], np.array([[3, 40, 30]]))
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)
    np.testing.assert_array_equal(there.xy[0, 6], [40, 30])
    assert there.visibility[0, 6] == 1


@pytest.mark.parametrize("mode", ["label", "recipe"])
def test_label_mode_takes_clips_of_any_size_and_covers_every_frame(
    mini, tmp_path, frames, queries, mode
):
    teacher = mini_teacher(mini, tmp_path, mode=mode)
    tracks = teacher.track(frames[:, :63, :94], np.minimum(queries, [9, 93, 62]))
    assert np.isfinite(tracks.xy).all()
    assert teacher.info.visible_rule == "v > 0.9"
    assert (teacher.info.settings["support_points"], teacher.info.settings["iterations"]) == (
        100,
        4,
    )


def test_the_seed_draws_the_support_points(mini, tmp_path, frames, queries):
    teacher = mini_teacher(mini, tmp_path, mode="label")
    one, again, other = (teacher.track(frames, queries, seed).xy for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0


def test_a_query_tracked_alone_does_not_depend_on_the_others(mini, tmp_path, frames, queries):
    frames, queries = frames[:3], queries * [0, 1, 1]
    alone = mini_teacher(mini, tmp_path, mode="benchmark", single=True, iterations=2)
    together = mini_teacher(mini, tmp_path, mode="benchmark", iterations=2)
    all_alone = alone.track(frames, queries).xy
    np.testing.assert_allclose(alone.track(frames, queries[2:3]).xy, all_alone[2:3], atol=NOISE_PX)
    assert np.abs(all_alone - together.track(frames, queries).xy).max() > 10 * NOISE_PX


def test_frames_that_cannot_be_written_to_are_taken(mini, tmp_path, frames, queries):
    frames = frames.copy()
    frames.setflags(write=False)
    assert np.isfinite(mini_teacher(mini, tmp_path, mode="label").track(frames, queries).xy).all()


def test_one_frame_is_a_clip(mini, tmp_path, frames):
    tracks = mini_teacher(mini, tmp_path).track(frames[:1], np.array([[0, 40, 30]]))
    np.testing.assert_array_equal(tracks.xy, [[[40, 30]]])


def test_a_teacher_without_weights_refuses():
    with pytest.raises(
        CheckpointError,
        match=r"'cotracker3-offline' has no weights: .*facebook/cotracker3.*--checkpoint FILE",
    ):
        CoTracker3OfflineTeacher(name="cotracker3-offline", device="cpu")


def test_random_weights_are_asked_for_by_name_and_are_always_the_same(frames, queries):
    one, two = (
        CoTracker3OfflineTeacher(
            name="cotracker3-offline-mini", checkpoint="random", device="cpu", preset="mini"
        )
        for _ in range(2)
    )
    assert one.info.checkpoint_sha256 == "random"
    np.testing.assert_array_equal(one.track(frames, queries).xy, two.track(frames, queries).xy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations = 0: must be a whole number, at least 1"),
        ({"iterations": 1.5}, "iterations = 1.5: must be a whole number, at least 1"),
        ({"support_points": -1}, "support_points = -1: must be a whole number, at least 0"),
        ({"support_grid": "6"}, "support_grid = 6: must be a whole number"),
        ({"overlap": 300}, r"overlap = 300: must be in 1\.\.255"),
        ({"resolution": (100, 130)}, "must be height and width, multiples of 4"),
        ({"resolution": [64]}, "must be height and width, multiples of 4"),
        ({"bf16": "no"}, "bf16 = no: must be true or false"),
        ({"single": True}, "single tracking belongs to mode 'benchmark', not to 'predictor'"),
        ({"preset": "large"}, "preset = 'large': there are official, mini"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CoTracker3OfflineTeacher(
            **{"name": "mini", "checkpoint": "random", "device": "cpu", "preset": "mini"} | settings
        )


# --- checkpoints


def test_weights_come_back_from_a_file_as_they_were(mini, tmp_path, frames, queries):
    save_file(mini.state_dict(), tmp_path / "mini.safetensors")
    other = CoTracker3(CoTracker3Config.mini())
    load_weights(other, tmp_path / "mini.safetensors", "mini")
    with torch.inference_mode():
        assert torch.equal(
            other(*as_batch(frames, queries)).xy, mini(*as_batch(frames, queries)).xy
        )


@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_the_wrappings_of_training_scripts_are_taken_off(mini, tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    torch.save(
        {"model": {f"module.{key}": value for key, value in mini.state_dict().items()}, "step": 7},
        path,
    )
    assert read_weights(path).keys() == mini.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("time_emb"), r"1 of \d+ keys are missing \(first: time_emb\)"),
        (
            lambda weights: weights.update(head=torch.zeros(1)),
            r"1 of \d+ keys are unexpected \(first: head\)",
        ),
        (
            lambda weights: weights.update(time_emb=torch.zeros(1, 16, 182)),
            r"1 of \d+ keys have another shape \(first: time_emb is \[1, 16, 182\] where the "
            r"network has \[1, 24, 278\]\)",
        ),
        (
            lambda weights: [
                weights.pop(key) for key in list(weights) if key.startswith("corr_mlp")
            ],
            r"4 of 144 keys are missing \(first: corr_mlp.fc1.weight, corr_mlp.fc1.bias, "
            r"corr_mlp.fc2.weight, \.\.\.\)",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_its_keys(mini, tmp_path, change, message):
    weights = mini.state_dict()
    change(weights)
    path = tmp_path / "other.safetensors"
    save_file(weights, path)
    with pytest.raises(
        CheckpointError, match=rf"other.safetensors: not a checkpoint of 'mini': {message}"
    ):
        load_weights(mini, path, "mini")


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": Intruder(tmp_path / "it-ran")}, path)
    with pytest.raises(
        CheckpointError, match=r"evil.pth: not a checkpoint that can be read as tensors alone"
    ):
        read_weights(path)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "name", ["broken.pth", "broken.safetensors", "empty.pth", "empty.safetensors"]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no tensors here" if name.startswith("broken") else b"")
    with pytest.raises(CheckpointError, match=rf"{name}: not a checkpoint that can be read"):
        read_weights(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such checkpoint file"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [{"step": 7}, {}, [1, 2]])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "state.pth")
    with pytest.raises(CheckpointError, match=r"state\.pth: holds no state dict"):
        read_weights(tmp_path / "state.pth")
