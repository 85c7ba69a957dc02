"""What is written twice, for a CPU and for a GPU, is the same: compared here on one device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import teachers
from teachers.cotracker.cotracker2 import CoTracker2, CoTracker2Config
from teachers.cotracker.cotracker3 import ONLINE_PRESETS, CoTracker3, CoTracker3Config
from teachers.cotracker.cotracker3 import CoTracker3Online as Online
from teachers.layers.branch import for_gpu, going
from teachers.layers.correlation import correlate_templates
from teachers.layers.sampling import (
    WindowOffsets,
    blend_cells,
    gather_cells,
    sample_products,
    sample_windows,
)
from teachers.pips.pips import Pips, PipsConfig
from teachers.pips.pips2 import Pips2, Pips2Config
from teachers.tapir.mixer import REACH, MixerBlock, Past
from teachers.tapir.network import Tapir, TapirConfig
from tests.support.slow import fast_where, slow

DRAW = torch.Generator()


@pytest.fixture(autouse=True)
def _seeded():
    DRAW.manual_seed(0)


def both_ways(compute):
    """What the CPU's way gives, and what the GPU's way gives."""
    with torch.inference_mode():
        with going(gpu=False):
            plain = compute()
        with going(gpu=True):
            return plain, compute()


def rand(*shape):
    return torch.rand(*shape, generator=DRAW, dtype=torch.float64)


def some_weights(network: nn.Module) -> nn.Module:
    """In float64, with heads that move points by pixels: untrained ones move nothing."""
    for parameter in network.parameters():
        parameter.data = parameter.data + 0.01 * torch.randn(parameter.shape, generator=DRAW)
    return network.double().eval()


def test_the_way_goes_back_to_that_of_the_device():
    x = torch.zeros(1)
    with going(gpu=True):
        assert for_gpu(x)
        with going(gpu=False):
            assert not for_gpu(x)
        assert for_gpu(x)
    assert not for_gpu(x)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_windows_are_sampled_as_they_are_gathered_and_blended(radius):
    grid = rand(2, 3, 6, 9, 5)
    xy = 20 * rand(2, 4, 3, 2) - 5  # far outside too
    xy[0, 0, 0] = torch.tensor([2.0, 5.0])  # on a cell
    frame = torch.tensor([[[2, 0, 1]]])
    gathered = blend_cells(gather_cells(grid, frame, xy, radius), xy, radius)
    _, sampled = both_ways(lambda: sample_windows(grid, frame, xy, radius))
    torch.testing.assert_close(sampled, gathered)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1)])
def test_grids_of_one_cell_are_sampled_too(size):
    grid, xy = rand(1, 1, *size, 3), 4 * rand(1, 5, 1, 2) - 1
    frame = torch.zeros(1, 1, 1, dtype=torch.long)
    gathered, sampled = both_ways(lambda: sample_windows(grid, frame, xy, 1))
    torch.testing.assert_close(sampled, gathered)


def test_products_with_every_cell_are_sampled_as_those_with_samples():
    grid, features, xy = rand(2, 3, 6, 9, 5), rand(2, 4, 3, 5), 20 * rand(2, 4, 3, 2) - 5
    windows = sample_windows(grid, torch.arange(3)[None, None], xy, 2)
    found = sample_products(grid, features, 2 * xy, WindowOffsets.around(grid, xy, 2, cells=0.5))
    torch.testing.assert_close(found, (windows @ features[..., None])[..., 0])


def test_templates_are_correlated_alike_and_with_nothing_beyond_the_grid():
    grid, templates, xy = rand(1, 4, 6, 9, 5), rand(1, 7, 3, 2, 5), 16 * rand(1, 7, 3, 2) - 4
    frame = torch.randint(4, (1, 7, 3), generator=DRAW)
    plain, sampled = both_ways(lambda: correlate_templates(grid, templates, frame, xy, 2))
    torch.testing.assert_close(sampled, plain)


@pytest.mark.parametrize("causal", [False, True])
def test_convolutions_over_time_are_weighted_shifts(causal):
    block, x = some_weights(MixerBlock(6, 4, causal)), rand(3, 7, 6)
    plain, convolved = both_ways(lambda: block(x, None))
    torch.testing.assert_close(convolved, plain)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_mixer_remembers_alike(parts):
    block, x = some_weights(MixerBlock(6, 4, causal=True)), rand(3, 7, 6)

    def in_parts():
        kinds = torch.zeros(3, REACH, 1, 6), torch.zeros(3, REACH, 4, 6)
        past = Past(*(part.double() for part in kinds))
        return torch.cat([block(part, past) for part in x.split(parts, 1)], 1)

    plain, convolved = both_ways(in_parts)
    torch.testing.assert_close(convolved, plain)
    torch.testing.assert_close(convolved, both_ways(lambda: block(x, None))[0])


NETWORKS = {
    "cotracker3 offline": lambda: CoTracker3(CoTracker3Config.mini()),
    "cotracker3 online": lambda: Online(ONLINE_PRESETS["mini"]()),
    "cotracker2": lambda: CoTracker2(CoTracker2Config.mini()),
    "tapir": lambda: Tapir(TapirConfig.mini()),
    "bootstapir, causal": lambda: Tapir(
        TapirConfig.mini(causal=True, pyramid_levels=1, extra_blocks=1)
    ),
}


@pytest.mark.parametrize("name", fast_where(lambda name: name != "bootstapir, causal", NETWORKS))
def test_networks_track_alike_both_ways(name):
    """Two clips at once, several windows where there are any, points outside of the picture, and
    large moves."""
    torch.manual_seed(0)
    network = some_weights(NETWORKS[name]())
    length = 8 if isinstance(network, Tapir) else 20
    frames = torch.randint(256, (2, length, 3, 64, 96), generator=DRAW, dtype=torch.uint8)
    queries = rand(2, 5, 3) * torch.tensor([length - 1, 110, 80])
    queries[..., 0] = queries[..., 0].floor()

    def tracks():
        if isinstance(network, Tapir):
            return network(frames, queries, [(64, 96)]).steps
        found = network(frames, queries, 2)
        parts = found if isinstance(found, list) else [found]
        answers = [torch.cat([part.xy[-1], part.visibility[-1, ..., None]], -1) for part in parts]
        return torch.cat(answers, 2)

    plain, other = both_ways(tracks)
    assert (plain[..., 1:, :2] - plain[..., :-1, :2]).abs().max() > 0.1
    torch.testing.assert_close(other, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda: Pips(PipsConfig.mini()), lambda: Pips2(Pips2Config.mini())]
)
def test_pips_track_alike_both_ways(make):
    torch.manual_seed(0)
    network = some_weights(make())
    frames = torch.randint(256, (1, 8, 3, 64, 96), generator=DRAW, dtype=torch.uint8)
    start = (rand(1, 5, 1, 2) * torch.tensor([110, 80])).expand(-1, -1, 8, -1)

    def tracks():
        found = network(frames, start, 2)
        return found if isinstance(network, Pips) else found.xy

    plain, other = both_ways(tracks)
    torch.testing.assert_close(other, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pips", {}),
        pytest.param("pips", {"max_frames": 10}, marks=pytest.mark.slow),
        pytest.param("pips2", {}, marks=pytest.mark.slow),
        ("pips2", {"window": 9}),
    ],
)
def test_points_in_windows_of_their_own_go_through_a_clip_alike(name, settings):
    """PIPs without being asked after each window, PIPs++ with points of many query frames."""
    given = {"checkpoint": "random", "device": "cpu", "mode": "label", "preset": "mini"}
    teacher = teachers.load(name, **given, **settings)
    for parameter in teacher.model.parameters():
        parameter.data += 0.003 * torch.randn(parameter.shape, generator=DRAW)
    frames = torch.randint(256, (27, 64, 96, 3), generator=DRAW, dtype=torch.uint8).numpy()
    queries = (rand(9, 3) * torch.tensor([26, 90, 60])).float().numpy()
    queries[:, 0] = [26, 3, 11, 0, 19, 11, 22, 20, 18]

    def tracks():
        found = teacher.track(frames, queries)
        seen = np.nan_to_num(found.visibility[..., None])
        return torch.from_numpy(np.concatenate([found.xy, seen], -1))

    plain, other = both_ways(tracks)
    assert (plain[:, 1:, :2] - plain[:, :-1, :2]).abs().amax((1, 2)).min() > 0.5
    torch.testing.assert_close(other, plain, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", [*slow("cotracker3-online"), "cotracker2"])
def test_both_passes_at_once_are_those_one_after_the_other(name):
    """With queries all over the clip, in no order, and frames that end inside a window."""
    teacher = teachers.load(name, checkpoint="random", device="cpu", mode="label", preset="mini")
    for parameter in teacher.model.parameters():
        parameter.data += 0.003 * torch.randn(parameter.shape, generator=DRAW)
    frames = torch.randint(256, (27, 64, 96, 3), generator=DRAW, dtype=torch.uint8).numpy()
    queries = (rand(7, 3) * torch.tensor([26, 90, 60])).float().numpy()
    queries[:, 0] = [26, 3, 11, 0, 19, 11, 24]

    def tracks():
        found = teacher.track(frames, queries, seed=0)
        return torch.from_numpy(np.concatenate([found.xy, found.visibility[..., None]], -1))

    plain, other = both_ways(tracks)
    assert (plain[:, 1:, :2] - plain[:, :-1, :2]).abs().amax((1, 2)).min() > 0.5
    # weights that move points so far multiply the rounding of each window in the next
    torch.testing.assert_close(other, plain, atol=0.1, rtol=0)
