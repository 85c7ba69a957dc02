"""The middle of the positions around the most trusted one."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.labels.blend import blend

NO_POSITION = (np.nan, np.nan)


def of(*positions: tuple[float, float], right: list[float], within: float = 2.0) -> np.ndarray:
    """The middle of some positions, each trusted as far as `right` says."""
    return blend(np.float32(positions)[:, None], np.float32(right)[:, None], within)[0][0]


def test_of_four_corners_it_is_where_the_diagonals_cross():
    """Fermat: so of any convex quadrilateral, whose mean is elsewhere."""
    corners = (0.0, 0.0), (1.4, 0.2), (1.0, 1.0), (0.1, 0.9)
    # the diagonals (0, 0) + s (1, 1) and (1.4, 0.2) + t (-1.3, 0.7) meet at s = 1.24 / 2
    np.testing.assert_allclose(of(*corners, right=[0.8] * 4), [0.62, 0.62], atol=0.02)


def test_one_that_outweighs_all_others_is_the_middle():
    places = (50.0, 50.0), (51.0, 50.0), (50.0, 51.0)
    np.testing.assert_allclose(of(*places, right=[1.0, 0.5, 0.5]), (50, 50), atol=0.02)


def test_it_is_nearer_to_the_truth_than_a_teacher_is():
    """Five teachers that err by half a pixel, and in a tenth of the frames by more."""
    rng = np.random.default_rng(0)
    off = rng.normal(0, 0.5, (5, 4000, 2)) + rng.normal(0, 2, (5, 4000, 2)) * (
        rng.random((5, 4000, 1)) < 0.1
    )
    right = rng.uniform(0.8, 0.9, off.shape[:2])
    best = np.take_along_axis(off, right.argmax(0)[None, :, None], 0)[0]
    error, before = (np.hypot(*each.T) for each in (blend(off, right, 2.0)[0], best))
    assert np.median(error) < 0.65 * np.median(before)
    assert (error < 1).mean() > (before < 1).mean() + 0.1


def test_what_is_farther_off_has_no_part_in_it():
    near = [(10.0, 10.0), (10.5, 10.0), (10.0, 10.5)]
    alone = of(*near, right=[0.9, 0.8, 0.8])
    with_more = of(*near, (12.1, 10.0), NO_POSITION, right=[0.9, 0.8, 0.8, 0.89, 0.0])
    np.testing.assert_array_equal(alone, with_more)


@pytest.mark.parametrize("others", [[], [(7.0, 5.5)], [(7.0, 5.5), (30.0, 30.0)]])
def test_without_three_it_is_the_most_trusted_one(others):
    trust = [0.9, 0.85, 0.88][: 1 + len(others)]
    np.testing.assert_array_equal(of((6.0, 5.0), *others, right=trust), (6, 5))


def test_the_order_does_not_matter_and_what_it_is_given_stays():
    rng = np.random.default_rng(1)
    xy, right = rng.normal(0, 1, (5, 50, 2)), rng.uniform(0.2, 1, (5, 50))
    kept = xy.copy(), right.copy()
    order = rng.permutation(5)
    one, other = blend(xy, right, 2), blend(xy[order], right[order], 2)
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
    np.testing.assert_array_equal(one[1], other[1])
    for now, then in zip((xy, right), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_no_position_at_all():
    middle, blended = blend(np.empty((3, 0, 2)), np.empty((3, 0)), 2.0)
    assert (middle.shape, blended.shape) == ((0, 2), (0,))
