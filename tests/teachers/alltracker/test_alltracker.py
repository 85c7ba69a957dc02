"""AllTracker: equal to the official code (`alltracker_*`), and properties of our own choices.

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

from teachers.alltracker import network
from teachers.alltracker.blocks import few_outputs
from teachers.alltracker.config import AllTrackerConfig
from teachers.alltracker.network import (
    TINY,
    AllTracker,
    FlowState,
    Padding,
    Products,
    window_starts,
)
from teachers.alltracker.teacher import AllTrackerTeacher, AllTrackerTinyTeacher, read
from teachers.errors import ConfigError
from teachers.layers.memory import Memory
from tests.support import parity
from tests.support.networks import LARGE_BLOCKS, mini
from tests.support.official import check_refused, variant_of
from tests.support.parity import NOISE_PX

VARIANTS: dict[str, dict[str, Any]] = {"alltracker": {}, "alltracker_tiny": TINY}
WHOLE = [
    "alltracker_a", "alltracker_f64", "alltracker_t29", "alltracker_sliding_t29",
    "alltracker_sliding_window8", "alltracker_sizes", "alltracker_pair", "alltracker_tiny_a",
]  # fmt: skip


# --- equal to the official code


def official(case: parity.Case) -> AllTracker:
    return variant_of(case, AllTracker, AllTrackerConfig, VARIANTS)


def whole_clip(
    model: AllTracker, case: parity.Case
) -> tuple[Tensor, list[list[FlowState]], Tensor]:
    """Maps [T, H, W, 4] of flow and probabilities, the states of every iteration of every window,
    and the features."""
    frames = torch.from_numpy(case.frames).permute(0, 3, 1, 2)
    padding = Padding.of(case.frames.shape[1:3])
    around = [padding.left, padding.right, padding.top, padding.bottom]
    assert around == case.meta["padding_left_right_top_bottom"]
    runs, iterate = [], model.iterate

    def recorded(*args: Any) -> Any:
        runs.append(list(iterate(*args)))
        return iter(runs[-1])

    model.iterate = recorded
    features = model.encode(frames, padding)
    maps = torch.zeros(*case.frames.shape[:3], 4, dtype=features.dtype)
    answered = 0
    windows = model.windows(
        lambda first, n: features[first : first + n],
        len(frames),
        case.meta["settings"].get("window_len"),
    )
    for window in windows:
        end = window.first + window.frames
        first = (
            max(answered, window.first) if case.meta["call"] == "forward_sliding" else window.first
        )
        maps[first:end] = padding.cut(
            model.upsample(window.state, slice(first - window.first, window.frames))
        )
        answered = end
    model.iterate = iterate
    return torch.cat([maps[..., :2], maps[..., 2:].sigmoid()], -1), runs, features


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_iteration_equals_the_official_network(name):
    case = parity.case(name)
    model = official(case)
    with torch.inference_mode():
        maps, runs, features = whole_clip(model, case)
        px, prob = ({"atol": case.meta[f"tolerance_{kind}"], "rtol": 0} for kind in ("px", "prob"))
        x, y = case["points"].astype(int).T
        seen = maps[1 if len(maps) == 2 else slice(None), y, x]
        np.testing.assert_allclose(seen[..., :2], case["flow"], **px)
        np.testing.assert_allclose(seen[..., 2:], case["visconf"], **prob)
        last = maps[-1].permute(2, 0, 1)
        np.testing.assert_allclose(last[:2, 5::16, 3::16], case["flow_mesh"], **px)
        np.testing.assert_allclose(last[2:, 5::16, 3::16], case["visconf_mesh"], **prob)
        np.testing.assert_allclose(last[:2, :20, :20], case["flow_crop"], **px)
        np.testing.assert_allclose(last[2:, :20, :20], case["visconf_crop"], **prob)
        assert len(runs) == case.meta["n_windows"]
        padding = Padding.of(case.frames.shape[1:3])
        for index, run in enumerate(runs):
            for iteration, state in enumerate(run):
                full = padding.cut(model.upsample(state, slice(None)))[:, y[:12], x[:12]]
                theirs = (case[f"w{index}_iter_{what}"][iteration] for what in ("flow", "visconf"))
                np.testing.assert_allclose(full[..., :2], next(theirs), **px)
                np.testing.assert_allclose(full[..., 2:].sigmoid(), next(theirs), **prob)
        feature = {"atol": case.meta["tolerance_feature"], "rtol": 0}
        final = runs[-1][-1]
        np.testing.assert_allclose(final.flow[-1].permute(2, 0, 1), case["last_flow8"], **px)
        np.testing.assert_allclose(final.logits[-1].permute(2, 0, 1), case["last_visconf8"], **px)
        rows, columns = np.array(case.meta["cells"]).T
        frames, first = case.meta["fmap_frames"], case.meta["first_frame"]
        np.testing.assert_allclose(
            features[frames][:, rows, columns], case["fmap_cells"], **feature
        )
        window = features[1:] if len(maps) == 2 else features
        products = Products(features[0], window, model.config, network.CPU_MEMORY)
        around = products.around(first, torch.zeros(1, *features.shape[1:3], 2))[0]
        np.testing.assert_allclose(around[rows, columns], case["corr_first"], **feature)
        np.testing.assert_allclose(
            runs[0][0].hidden[first, rows, columns], case["update_first"], **feature
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alltracker_f64", "alltracker_tiny_a"])
def test_in_float64_only_float64_noise_is_left(name):
    case = parity.case(name)
    with torch.inference_mode():
        maps = whole_clip(official(case).double(), case)[0]
    x, y = case["points"].astype(int).T
    px, prob = case.meta["tolerance_f64_px"], case.meta["tolerance_f64_prob"]
    np.testing.assert_allclose(maps[:, y, x, :2], case["f64_flow"], atol=px, rtol=0)
    np.testing.assert_allclose(maps[:, y, x, 2:], case["f64_visconf"], atol=prob, rtol=0)


def official_file(case: parity.Case, folder: Path) -> str:
    """As published: a dict with `model`."""
    path = folder / "official.pth"
    torch.save({"model": official(case).state_dict()}, path)
    return str(path)


@pytest.mark.slow
def test_with_its_quirks_it_is_the_official_sparse_evaluation(tmp_path):
    case = parity.case("alltracker_queries")
    teacher = AllTrackerTeacher(
        name="t", checkpoint=official_file(case, tmp_path), device="cpu", mode="benchmark",
        resolution="own", official_quirks=True,
    )  # fmt: skip
    tracks = teacher.track(case.frames, case["queries"])
    product = tracks.visibility * tracks.confidence
    np.testing.assert_allclose(
        tracks.xy.swapaxes(0, 1), case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    np.testing.assert_allclose(product.T, case["product"], atol=case.meta["tolerance_prob"], rtol=0)
    visible, sure = teacher.info.rule(tracks).T, case["visible_sure"]
    np.testing.assert_array_equal(visible[sure], case["visible"][sure])


@pytest.mark.slow
def test_predictor_mode_and_the_dense_flow_equal_the_official_demo(tmp_path):
    case = parity.case("alltracker_both_ways")
    teacher = AllTrackerTeacher(name="t", checkpoint=official_file(case, tmp_path), device="cpu")
    t, points = case.meta["settings"]["query_frame"], case["points"]
    queries = np.concatenate([np.full((len(points), 1), t), points], 1)
    tracks, dense = teacher.track(case.frames, queries), teacher.flow(case.frames, t)
    x, y = points.astype(int).T
    for xy, visibility, confidence in (
        (tracks.xy, tracks.visibility, tracks.confidence),
        (
            (points + dense.flow[:, y, x]).swapaxes(0, 1),
            dense.visibility[:, y, x].T,
            dense.confidence[:, y, x].T,
        ),
    ):
        np.testing.assert_allclose(
            xy.swapaxes(0, 1), case["tracks"], atol=case.meta["tolerance_px"], rtol=0
        )
        visconf = np.stack([visibility.T, confidence.T], -1)
        np.testing.assert_allclose(
            visconf, case["visconf"], atol=case.meta["tolerance_prob"], rtol=0
        )


# --- fast ways, and the plain ones


def normal(*shape: int) -> Tensor:
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


def test_products_are_those_that_torch_samples():
    config = AllTrackerConfig.mini(levels=3, radius=2)
    query, frames = normal(9, 11, 6), normal(3, 9, 11, 6)
    flow = 8 * normal(2, 9, 11, 2)  # outside too
    ours = Products(query, frames, config, network.CPU_MEMORY).around(1, flow)
    own = torch.stack(torch.meshgrid(torch.arange(11), torch.arange(9), indexing="xy"), -1)
    steps = range(-2, 3)
    for offset in (0, 1):
        grid = frames[1 + offset].permute(2, 0, 1)[None]
        for level in range(3):
            grid = F.adaptive_avg_pool2d(grid, (9 // 2**level, 11 // 2**level)) if level else grid
            height, width = grid.shape[2:]
            maps = torch.einsum("hwc,cyx->hwyx", query, grid[0]) / 6**0.5
            at = (own + flow[offset]) / 2**level
            at = torch.stack([at + at.new_tensor([dx, dy]) for dx in steps for dy in steps], 2)
            places = 2 * at.flatten(0, 1) / torch.tensor([width - 1, height - 1]) - 1
            sampled = F.grid_sample(
                maps.flatten(0, 1)[:, None],
                places[:, None],
                padding_mode="border",
                align_corners=True,
            )
            torch.testing.assert_close(
                ours[offset, ..., 25 * level : 25 * level + 25], sampled.view(9, 11, 25)
            )


def test_products_that_are_not_kept_are_the_same(monkeypatch):
    query, frames, flow = normal(9, 11, 6), normal(3, 9, 11, 6), normal(3, 9, 11, 2)
    config = AllTrackerConfig.mini(levels=3)
    kept = Products(query, frames, config, network.CPU_MEMORY)
    monkeypatch.setattr(network, "MOST_PRODUCTS", 0)
    fresh = Products(query, frames, config, network.CPU_MEMORY)
    torch.testing.assert_close(kept.around(0, flow), fresh.around(0, flow), atol=0, rtol=0)
    assert (len(kept._kept), len(fresh._kept)) == (3, 0)


def test_a_convolution_to_few_channels_is_that_of_torch():
    convolution, x = torch.nn.Conv2d(6, 2, 3, padding=1).double(), normal(2, 5, 7, 6)
    theirs = convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(few_outputs(x, convolution), theirs)


@pytest.mark.parametrize(
    ("frames", "window", "stride", "starts"),
    [
        (3, 16, 8, [0]),
        (16, 16, 8, [0]),
        (17, 16, 8, [0, 8]),
        (29, 16, 8, [0, 8, 16]),
        (11, 8, 4, [0, 4]),
        (9, 8, 3, [0, 3]),
    ],
)
def test_windows_begin_as_long_as_frames_are_left(frames, window, stride, starts):
    assert list(window_starts(frames, window, stride)) == starts


def test_a_place_between_pixels_is_read_between_them():
    maps = torch.stack(
        torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="xy"), -1
    ).repeat(1, 1, 2)
    assert maps.shape == (5, 4, 4)  # value (x, y, x, y) at (x, y)
    seen = read(maps, torch.tensor([[1.25, 2.5], [-0.5, -0.5], [3.5, 4.5]]))
    torch.testing.assert_close(
        seen, torch.tensor([[1.25, 2.5, 1, 2], [0, 0, 0, 0], [3, 4, 3, 4]], dtype=torch.float32)
    )


# --- the mini network

CLIP = {"seed": 6, "T": 20, "H": 64, "W": 80, "vx": 1.0, "vy": -0.5}


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    queries = parity.queries(6, 6, CLIP["T"], CLIP["H"], CLIP["W"])
    queries[:, 0] = [0, 0, 0, 7, 7, 19]
    return queries


def teacher_of(**settings: Any) -> AllTrackerTeacher:
    """Its layers are scaled so that an untrained network moves points by some pixels."""
    teacher = mini(AllTrackerTeacher, **settings)
    with torch.no_grad():
        for name, parameter in teacher.model.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(0.3)
            elif "flow_head.2.weight" in name:
                parameter.mul_(10)
    return teacher


@pytest.mark.parametrize("variant", [{}, TINY])
def test_mini_is_small_and_every_weight_learns(variant, frames):
    torch.manual_seed(0)
    model = AllTracker(AllTrackerConfig.mini(**variant))
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    video = torch.from_numpy(frames[:3]).permute(0, 3, 1, 2)
    features = model.encode(video, Padding.of((64, 80)))
    (window,) = model.windows(lambda first, n: features[first : first + n], 3)
    model.upsample(window.state, slice(0, 3)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_block_sizes_do_not_change_the_result(frames, queries):
    small, large = (teacher_of(memory=memory) for memory in (Memory(3, 50), LARGE_BLOCKS))
    one, other = small.track(frames, queries), large.track(frames, queries)
    np.testing.assert_allclose(one.xy, other.xy, atol=NOISE_PX)
    assert np.abs(one.xy - queries[:, None, 1:]).max() > 100 * NOISE_PX


@pytest.mark.slow
def test_features_that_are_not_held_are_the_same(frames, queries):
    held, walked = teacher_of(), teacher_of(max_frames=1)
    np.testing.assert_allclose(
        held.track(frames, queries).xy, walked.track(frames, queries).xy, atol=NOISE_PX
    )


def test_a_group_of_queries_is_tracked_as_in_the_clip_that_begins_with_it(frames, queries):
    later = queries[queries[:, 0] == 7]
    ahead = teacher_of().track(frames[7:], later * [0, 1, 1])
    whole = teacher_of().track(frames, queries)
    np.testing.assert_allclose(whole.xy[queries[:, 0] == 7, 7:], ahead.xy, atol=NOISE_PX)


def test_frames_before_a_query_are_those_of_the_reversed_clip(frames, queries):
    there = teacher_of(mode="label").track(frames, queries)
    back = teacher_of(mode="label").track(frames[::-1], queries * [-1, 1, 1] + [19, 0, 0])
    own = np.arange(20) == queries[:, :1]  # answered by the pass ahead
    np.testing.assert_allclose(there.xy, back.xy[:, ::-1], atol=NOISE_PX)
    np.testing.assert_allclose(there.visibility[~own], back.visibility[:, ::-1][~own], atol=1e-3)
    at_query = np.arange(6), queries[:, 0].astype(int)
    np.testing.assert_array_equal(there.xy[at_query], queries[:, 1:])


def test_without_a_way_back_frames_before_a_query_are_unknown(frames, queries):
    tracks = teacher_of(backward=False).track(frames, queries)
    before = np.arange(20) < queries[:, :1]
    np.testing.assert_array_equal(np.isnan(tracks.xy).any(-1), before)
    np.testing.assert_array_equal(np.isnan(tracks.confidence), before)


def test_which_of_two_windows_counts_can_be_chosen(frames, queries):
    first, last = (
        teacher_of(counts=counts).track(frames, queries[:3]).xy for counts in ("first", "last")
    )
    np.testing.assert_allclose(first[:, :8], last[:, :8], atol=NOISE_PX)
    assert np.abs(first[:, 8:16] - last[:, 8:16]).max() > NOISE_PX
    np.testing.assert_allclose(first[:, 16:], last[:, 16:], atol=NOISE_PX)


def test_sparse_tracks_are_the_dense_flow_at_their_pixels(frames):
    teacher = teacher_of()
    dense = teacher.flow(frames, 7)
    assert dense.flow.shape == (20, 64, 80, 2)
    assert dense.visibility.shape == dense.confidence.shape == (20, 64, 80)
    queries = np.array([[7, 12, 30], [7, 79, 63]], np.float32)
    tracks = teacher.track(frames, queries)
    x, y = queries[:, 1:].astype(int).T
    np.testing.assert_allclose(
        tracks.xy - queries[:, None, 1:], dense.flow[:, y, x].swapaxes(0, 1), atol=1e-4
    )
    np.testing.assert_allclose(tracks.visibility, dense.visibility[:, y, x].T, atol=1e-6)


def test_dense_flow_of_a_resized_clip_is_in_px_of_the_clip(frames):
    """Every pixel twice: resized to its own size again, the clip is the same."""
    small = teacher_of(resolution=(64, 80)).flow(frames[:4], 1)
    large = teacher_of(resolution=(64, 80)).flow(frames[:4].repeat(2, axis=1).repeat(2, axis=2), 1)
    middle = (
        large.flow[:, 1:-1, 1:-1].reshape(4, 63, 2, 79, 2, 2).mean((2, 4)) / 2
    )  # between four pixels
    four = (small.flow[:, :-1] + small.flow[:, 1:]) / 2
    np.testing.assert_allclose(middle, (four[:, :, :-1] + four[:, :, 1:]) / 2, atol=NOISE_PX)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips_are_tracked(frames, count):
    queries = np.array([[t, 20.25, 30] for t in range(count)])
    tracks = teacher_of(mode="label").track(frames[:count], queries)
    assert np.isfinite(tracks.xy).all()
    np.testing.assert_array_equal(tracks.xy[np.arange(count), np.arange(count)], queries[:, 1:])
    assert teacher_of().flow(frames[:count], count - 1).flow.shape == (count, 64, 80, 2)


def test_a_long_clip_holds_no_more_than_a_window(frames):
    clip, teacher = np.concatenate([frames] * 3), teacher_of(max_frames=20)
    held = []
    encode = teacher._encode
    teacher._encode = lambda part: held.append(len(part)) or encode(part)
    tracks = teacher.track(clip, np.array([[0, 20, 30]]))
    assert np.isfinite(tracks.xy).all()
    assert max(held) == 16
    assert sum(held) == 60


def test_large_frames_are_made_smaller():
    teacher = teacher_of(resolution="own")
    assert teacher._raster((600, 2048)) == (300, 1024)
    assert teacher._raster((600, 1024)) == (600, 1024)


def test_a_frame_that_is_not_in_the_clip_is_refused(frames):
    with pytest.raises(ConfigError, match=r"t = 20: must be a frame of the clip, 0\.\.19"):
        teacher_of().flow(frames, 20)


def test_frames_that_are_too_small_for_the_pyramid_are_refused_by_the_network():
    model = AllTracker(AllTrackerConfig.mini(levels=5))
    with pytest.raises(
        ConfigError, match="frames of 64 x 64 px with their padding: the network needs at least 128"
    ):
        model.encode(torch.zeros(1, 3, 60, 60), Padding.of((60, 60)))


def test_weights_of_the_other_size_are_refused(tmp_path):
    model = AllTracker(AllTrackerConfig(**TINY))
    path = check_refused(AllTrackerTeacher, "alltracker", model, "alltracker-tiny", tmp_path)
    tiny = AllTrackerTinyTeacher(name="alltracker-tiny", checkpoint=path, device="cpu")
    assert tiny.info.architecture == "AllTracker-Tiny"
