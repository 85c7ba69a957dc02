"""Choosing among teachers by the published verifier's scores."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.verifier import Judged, judge, majority
from teachers.verifier import TrackOnVerifier
from tests.support import parity
from tests.support.verifier import file_of

NAN = np.nan


@pytest.fixture(scope="module")
def case() -> parity.Case:
    return parity.case("verifier_predictor")


def test_choice_and_vote_equal_the_published_predictor(case, tmp_path):
    verifier = TrackOnVerifier(name="own", checkpoint=str(file_of(case, tmp_path)), device="cpu")
    xy = case["candidates"].transpose(2, 1, 0, 3)
    judged = judge(verifier, case.frames, case["queries"], xy)
    sure = case["sure"].T
    assert sure.mean() > 0.9
    np.testing.assert_allclose(
        judged.scores.transpose(2, 1, 0), case["logits"], atol=case.meta["tolerance_logit"], rtol=0
    )
    np.testing.assert_array_equal(judged.best[sure], case["index"].T[sure])
    np.testing.assert_array_equal(
        judged.positions(xy)[sure], case["tracks"].transpose(1, 0, 2)[sure]
    )
    np.testing.assert_array_equal(majority(case["votes"].transpose(2, 1, 0), xy), case["visible"].T)


def test_the_best_is_the_first_of_equals_and_never_one_without_a_score():
    scores = np.float32([[[1, NAN, NAN, 2]], [[1, -3, NAN, 3]], [[0, -2, NAN, NAN]]])  # K, 1, T
    assert Judged.of(scores).best.tolist() == [[0, 2, -1, 1]]


def test_reliability_is_a_share_among_those_with_a_score():
    scores = np.float32([[[0, NAN, NAN]], [[np.log(3), 7, NAN]]])
    reliability = Judged.of(scores).reliability
    np.testing.assert_allclose(reliability, [[[0.25, 0, 0]], [[0.75, 1, 0]]], rtol=1e-6)


def test_the_position_is_that_of_the_best_and_nan_where_there_is_none():
    xy = np.float32([[[[1, 2], [3, 4], [NAN, NAN]]], [[[5, 6], [NAN, NAN], [NAN, NAN]]]])
    judged = Judged.of(np.float32([[[0, 1, NAN]], [[2, NAN, NAN]]]))
    np.testing.assert_array_equal(judged.positions(xy), [[[5, 6], [3, 4], [NAN, NAN]]])
    assert judged.positions(xy).dtype == np.float32


def test_half_of_the_votes_is_not_enough_and_who_has_no_position_has_none():
    visible = np.array([[[1, 1, 1, 0]], [[0, 1, 1, 1]], [[0, 0, 1, 1]]], bool)  # K, 1, T
    xy = np.zeros((3, 1, 4, 2), np.float32)
    assert majority(visible, xy).tolist() == [[False, True, True, True]]
    xy[2] = NAN
    assert majority(visible, xy).tolist() == [[False, True, True, False]]
    xy[:] = NAN
    assert not majority(visible, xy).any()
