"""PIPs: equal to the official code (`pips_*`), chained over a clip included, and properties of our
own choices.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.layers.clip_features import ClipFeatures
from teachers.layers.correlation import correlate_templates
from teachers.pips.pips import Pips, PipsConfig, position_code
from teachers.pips.teacher import PipsTeacher, next_start
from tests.support import parity
from tests.support.official import check, file_of, model_of

KEYS = "pips"
NOISE_PX = 1e-3
"""Float32 noise of a track; an untrained network moves points by a hundred times as much."""


# --- equal to the official code


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pips_a", "pips_one_step", "pips_three_steps"])
def test_every_iteration_equals_the_official_network(name):
    case = parity.case(name)
    steps, looks = official_answer(case, torch.float32)
    check(steps[..., :2], case["coords"], case.meta["tolerance_px"])
    check(steps[-1, ..., 2], case["vis_logits"], case.meta["tolerance_logit"])
    np.testing.assert_allclose(looks, case["feat0"], atol=1e-4)


@pytest.mark.slow
def test_in_float64_only_float64_noise_is_left():
    case = parity.case("pips_f64")
    steps, looks = official_answer(case, torch.float64)
    check(steps[..., :2], case["f64_coords"], case.meta["tolerance_px"])
    check(steps[-1, ..., 2], case["f64_vis_logits"], case.meta["tolerance_px"])
    np.testing.assert_allclose(looks, case["f64_feat0"], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("max_frames", [96, 9])
def test_a_chain_of_windows_equals_the_official_one(tmp_path, max_frames):
    case = parity.case("pips_chain")
    checkpoint = file_of(case, Pips(PipsConfig()), KEYS, tmp_path)
    teacher = PipsTeacher(name="pips", checkpoint=checkpoint, device="cpu", max_frames=max_frames)
    assert teacher.info.settings["iterations"] == case.meta["iters"]
    assert teacher.info.visible_rule == "v > 0.5"
    tracks = teacher.track(case.frames, np.pad(case["queries_xy"], ((0, 0), (1, 0))))
    check(tracks.xy, case["trajs"], case.meta["tolerance_px"])
    for point, first, step in case["windows"]:
        frames = min(step, len(case.frames) - first)  # those that no later window replaces
        ours = tracks.visibility[point, first : first + frames]
        np.testing.assert_allclose(
            ours, case["window_vis"][window_of(case, point, first)][:frames], atol=1e-3
        )


def window_of(case: parity.Case, point: int, first: int) -> int:
    return int(np.flatnonzero((case["windows"][:, :2] == [point, first]).all(1))[0])


def official_answer(case: parity.Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[I, N, S, 3] and the features [3, C] of the first queries."""
    model = model_of(case, Pips(PipsConfig()), KEYS).to(dtype)
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)[None]
    start = torch.from_numpy(case["queries_xy"])[None, :, None].expand(-1, -1, 8, -1)
    if "coords_init" in case.arrays:
        start = torch.from_numpy(case["coords_init"]).transpose(0, 1)[None]
    start = start.to(dtype)
    with torch.inference_mode():
        looks = model.query_features(
            model.encode(frames), torch.zeros(1, 1, 1, dtype=torch.long), start[:, :3, 0]
        )
        return model(frames, start, case.meta["iters"])[0].transpose(0, 1), looks[0]


# --- the parts


def test_correlations_are_products_with_sampled_features():
    draw = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 6, 9, 4, generator=draw, dtype=torch.float64)
    templates = torch.randn(2, 5, 7, 2, 4, generator=draw, dtype=torch.float64)
    frame = torch.randint(3, (2, 5, 7), generator=draw)
    xy = torch.rand(2, 5, 7, 2, generator=draw, dtype=torch.float64) * 14 - 3  # outside too
    xy[0, 0, 0] = torch.tensor([8.0, 0.0])  # in the corner
    ours = correlate_templates(grid, templates, frame, xy, radius=2)

    steps = range(-2, 3)
    # [70, 25, 2]
    at = torch.stack([xy + xy.new_tensor([dx, dy]) for dx in steps for dy in steps], -2).flatten(
        0, 2
    )
    # [70, 4, 6, 9]
    maps = grid[torch.arange(2)[:, None, None], frame].flatten(0, 2).permute(0, 3, 1, 2)
    sampled = F.grid_sample(maps, (at / at.new_tensor([4, 2.5]) - 1)[:, None], align_corners=True)[
        :, :, 0
    ]
    torch.testing.assert_close(ours.flatten(0, 2), templates.flatten(0, 2) @ sampled)


def test_the_position_code_alternates_sines_and_cosines():
    code = position_code(torch.tensor([[[[0.0, 0.0], [0.5, -2.0]]]]), channels=4)
    assert code.shape == (1, 1, 2, 3 * 4 + 3)
    at_rest = [0, 1, 0, 1]
    np.testing.assert_allclose(code[0, 0, 0], at_rest * 3 + [0, 0, 0])
    angles = np.outer([0.5, -2.0, 2.0], [0, 500])  # two frames: time goes from 0 to 2
    np.testing.assert_allclose(
        code[0, 0, 1],
        [*np.stack([np.sin(angles), np.cos(angles)], -1).ravel(), 0.5, -2, 2],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("visibility", "index"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], 7),
        ([1, 1, 0.95, 0.2, 0.91, 0.9, 0.89, 0.1], 4),
        ([1, 1, 0.1, 0.87, 0.5, 0.5, 0.861, 0.1], 6),
        ([1, 1, 0.5, 0.01, 0, 0, 0.3, 0], 2),
        ([1, 1, 0, 0, 0, 0, 0, 0], 7),
    ],
    ids=[
        "the last",
        "the last above 0.9",
        "two share a threshold",
        "the best seen",
        "nothing is seen",
    ],
)
def test_the_next_window_begins_where_the_point_was_last_seen_well(visibility, index):
    assert next_start(torch.tensor([visibility], dtype=torch.float32)).tolist() == [index]


def test_features_of_a_clip_are_the_same_from_any_window():
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None]
    encoded = []

    def encode(part: np.ndarray) -> list[Tensor]:
        encoded.extend(part.ravel().tolist())
        return [torch.from_numpy(part.copy())[None]]

    features = ClipFeatures(encode, frames)
    for first, count in ((3, 5), (4, 4), (6, 6), (11, 7), (15, 99)):
        assert features.window(first, count)[0].flatten().tolist() == list(
            range(first, min(first + count, 20))
        )
    assert encoded == list(range(3, 20))
    assert features.reversed().window(0, 2)[0].flatten().tolist() == [19, 18]
    features.window(0, 20)
    encoded.clear()
    assert features.reversed().window(5, 3)[0].flatten().tolist() == [14, 13, 12]
    assert encoded == []
