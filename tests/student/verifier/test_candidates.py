"""Candidates that go wrong as the published generator's do: compared by statistics over draws."""

from __future__ import annotations

import numpy as np
import pytest

from student.verifier.candidates import KINDS, perturbed_tracks, running_mean
from tests.support import parity

MEDIAN = 2
"""Its place among the quantiles of the case."""


@pytest.fixture(scope="module")
def case() -> parity.Case:
    return parity.case("verifier_perturb")


@pytest.fixture(scope="module")
def truth(case) -> np.ndarray:
    return case["truth"].swapaxes(0, 1)


@pytest.fixture(scope="module")
def visible(case) -> np.ndarray:
    return case["visible"].T


def distances(truth, visible, kind: str, seed: int) -> np.ndarray:  # [draws, N, T] px
    """As many draws as in the case: one kind alone, "none" of them, or "mixed" as published."""
    rng = np.random.default_rng(seed)
    alone = None if kind == "mixed" else {kind: 1.0}
    calls = 240 if kind == "mixed" else 60
    made = [perturbed_tracks(truth, visible, 4, rng, alone) for _ in range(calls)]
    return np.linalg.norm(np.concatenate(made) - truth, axis=-1)


@pytest.mark.parametrize("kind", ["none", *KINDS, "mixed"])
def test_errors_are_as_large_as_the_published_ones(case, truth, visible, kind):
    """Within 10 % in the median of each frame, within 20 % in the mean over all.

    In one frame of `catastrophic_jump` half of the points have jumped, so its median is anything
    between 5 and 12 px, by chance: there it is the share of points below the published median that
    must be a half.
    """
    errors = distances(truth, visible, kind, seed=0)
    theirs = case[f"quantiles_by_frame/{kind}"][:, MEDIAN]
    ours = np.median(errors, axis=(0, 1))
    below = (errors < theirs).mean((0, 1))
    assert np.all((np.abs(ours / theirs - 1) < 0.1) | (np.abs(below - 0.5) < 0.02))
    np.testing.assert_allclose(errors.mean(), case[f"mean_by_frame/{kind}"].mean(), rtol=0.2)


def test_each_kind_is_told_from_the_others_by_its_medians(case):
    """So that the test above can fail: no kind passes for another."""
    medians = {kind: case[f"quantiles_by_frame/{kind}"][:, MEDIAN] for kind in KINDS}
    for one in medians:
        for other in medians.keys() - {one}:
            assert np.abs(medians[one] / medians[other] - 1).max() > 0.1


@pytest.mark.parametrize("frames", [3, 5])
def test_the_running_mean_equals_the_published_one(case, frames):
    ours = running_mean(case["smooth_in"].swapaxes(0, 1), frames)
    np.testing.assert_allclose(ours.swapaxes(0, 1), case[f"smooth{frames}"], atol=1e-12)


def test_equal_seeds_give_equal_candidates(truth, visible):
    made = [perturbed_tracks(truth, visible, 6, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*made)
    assert made[0].shape == (6, 48, 24, 2)
    assert made[0].dtype == np.float32


def test_points_that_are_never_hidden_do_not_switch(truth, visible):
    always = visible.all(1)
    assert 0 < always.sum() < len(always)
    made = perturbed_tracks(
        truth, visible, 30, np.random.default_rng(0), {"catastrophic_jump": 1.0}
    )
    worst = np.linalg.norm(made - truth, axis=-1).max((0, 2))
    assert worst[always].max() < 6  # white noise of 1 px alone
    assert worst[~always].max() > 30


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (3, 1), (3, 2)], ids=str)
def test_few_points_and_short_clips_are_perturbed_too(shape):
    truth, visible = np.zeros((*shape, 2)), np.zeros(shape, bool)
    visible[:, ::2] = True
    for seed in range(20):
        made = perturbed_tracks(truth, visible, 3, np.random.default_rng(seed))
        assert made.shape == (3, *shape, 2)
        assert np.isfinite(made).all()
