"""Paths: the likeliest one, against every path there is, and the network that matches along it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import teachers
from teachers.errors import ConfigError
from teachers.layers.overlapping import overlapping
from teachers.tapir.config import TapirConfig
from teachers.tapir.network import Tapir
from teachers.tapir.path import JUMP, STEP, at_once, likeliest_path, message_of

AT_ONCE = at_once(torch.zeros(1))


def best_of_all(maps: Tensor) -> tuple[list[int], float]:  # [T, h, w]
    """The likeliest of all paths, one by one, and its log probability."""
    frames, height, width = maps.shape
    places = list(itertools.product(range(height), range(width)))

    def worth(path: tuple[int, ...]) -> float:
        seen = sum(maps[t].flatten()[cell].item() for t, cell in enumerate(path))
        squares = (
            sum((a - b) ** 2 for a, b in zip(places[here], places[there], strict=True))
            for here, there in itertools.pairwise(path)
        )
        return seen - sum(min(STEP * square, JUMP) for square in squares)

    best = max(itertools.product(range(len(places)), repeat=frames), key=worth)
    return list(best), worth(best)


@pytest.mark.parametrize("size", [(1, 16), (13, 1), (3, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_the_path_is_the_likeliest_of_all(size, seed):
    """On a line of 16 cells, jumps are among them."""
    torch.manual_seed(seed)
    maps = 6 * torch.randn(2, 3, *size)
    for found, point in zip(likeliest_path(maps), maps, strict=True):
        assert found.tolist() == best_of_all(point)[0]


def test_a_place_that_looks_likelier_in_one_frame_is_no_reason_to_jump_and_one_that_stays_is():
    maps = torch.zeros(1, 9, 32, 32)
    maps[0, :, 5, 5] = 10  # nothing moves
    maps[0, 4, 20, 25] = 15  # for one frame
    assert likeliest_path(maps).tolist() == [[5 * 32 + 5] * 9]
    maps[0, 4:, 20, 25] = 15  # for good
    assert likeliest_path(maps).tolist() == [[5 * 32 + 5] * 4 + [20 * 32 + 25] * 5]


def test_steps_cost_what_they_say():
    """Along a row, along a column, both at once, and too far to walk."""
    there = torch.full((1, 1, 32, 32), -100.0)
    there[0, 0, 10, 10] = 3
    says = message_of(there)[0]
    assert says[10, 10] == 0
    assert says[10, 14].item() == pytest.approx(-STEP * 16)
    assert says[13, 10].item() == pytest.approx(-STEP * 9)
    assert says[7, 6].item() == pytest.approx(-STEP * 25)
    assert says[30, 10] == says[19, 19] == -JUMP


def test_without_a_later_frame_the_past_decides():
    torch.manual_seed(0)
    maps = 6 * torch.randn(5, 7, 8, 8)
    last = (message_of(maps[:, :-1]) + maps[:, -1]).flatten(1).argmax(1)
    torch.testing.assert_close(last, likeliest_path(maps)[:, -1])


def test_windows_that_are_told_what_was_before_them_have_the_path_of_the_whole_clip():
    """Two places look the same, but in the first frames, of which later windows have none."""
    maps = torch.zeros(1, 40, 16, 16)
    maps[0, :, 12, 12] = 10
    maps[0, 6:, 3, 3] = 10
    whole = likeliest_path(maps)
    assert whole.tolist() == [[12 * 16 + 12] * 40]
    found, before, first = [], None, 0
    for window, kept in overlapping(40, 16, 4):
        if window.start:
            before = message_of(maps[:, first : window.start], before)
        first = window.start
        found.append(likeliest_path(maps[:, window], before)[:, kept])
    assert torch.equal(torch.cat(found, 1), whole)
    alone = likeliest_path(maps[:, first:])
    assert alone.tolist() == [[3 * 16 + 3] * (40 - first)]


def network(**changes: object) -> Tapir:
    torch.manual_seed(0)
    return Tapir(TapirConfig.mini(raster=64, **changes)).eval().requires_grad_(False)


def test_one_frame_is_matched_as_without_a_path_and_many_are_not():
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (2, 6, 3, 64, 64))
    queries = torch.rand(2, AT_ONCE + 3, 3) * torch.tensor([0.0, 64, 64])

    def matched(model: Tapir, count: int) -> Tensor:
        return model(frames[:, :count], queries).steps[0, :, :, :, :2]

    alone, along = network(), network(path=True)
    torch.testing.assert_close(matched(along, 1), matched(alone, 1))
    assert (matched(along, 6) - matched(alone, 6)).abs().max() > 8


def test_points_have_the_same_path_in_any_company():
    torch.manual_seed(2)
    model = network(path=True)
    frames = torch.randint(0, 256, (1, 5, 3, 64, 64))
    queries = torch.rand(1, AT_ONCE + 3, 3) * torch.tensor([5.0, 64, 64])
    queries[..., 0] = queries[..., 0].floor()
    together = model(frames, queries).answer
    some = [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 2]
    torch.testing.assert_close(model(frames, queries[:, some]).answer, together[:, some])


def test_a_causal_network_has_no_path():
    with pytest.raises(ConfigError, match="no later frame"):
        TapirConfig(path=True, causal=True)


def test_the_mini_stays_on_its_point_where_another_looks_the_same_for_a_frame():
    """A patch on grey, and in one frame its copy far away, while it is half hidden itself."""
    rng = np.random.default_rng(0)
    patch = rng.integers(0, 256, (24, 24, 3), np.uint8).repeat(2, 0).repeat(2, 1)[:40, :40]
    frames = np.full((9, 192, 192, 3), 110, np.uint8)
    frames[:, 20:60, 20:60] = patch
    frames[4, 20:60, 40:60] = 110
    frames[4, 130:170, 130:170] = patch
    tracks = teachers.load("tapir-mini", device="cpu").track(frames, np.float32([[0, 39, 39]]))
    assert np.abs(tracks.xy[0] - 39).max() < 16


def test_the_mini_stays_on_its_point_through_the_windows_of_a_long_clip():
    """The same patch is at two places, but in the first frames; later windows have both."""
    patch = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    frames = np.full((30, 192, 192, 3), 110, np.uint8)
    frames[:, 122:162, 122:162] = patch.repeat(2, 0).repeat(2, 1)
    frames[4:, 26:66, 26:66] = frames[0, 122:162, 122:162]
    mini = teachers.load("tapir-mini", device="cpu", max_frames=12)
    tracks = mini.track(frames, np.float32([[0, 141, 141]]))
    assert np.abs(tracks.xy[0] - 141).max() < 16
