"""What speaks for and against a position."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.labels.appearance import SIDES
from labeler.labels.evidence import OWN, SHARED, beyond, gather, mean_so_far, so_far
from labeler.labels.neighbours import expect
from teachers import Tracks, VisibleRule

SEES = VisibleRule("none")


def tracks(xy):
    nan = np.full(xy.shape[:2], np.nan, np.float32)
    return Tracks(xy.astype(np.float32), nan, nan)


@pytest.mark.parametrize("what", [np.minimum, np.maximum])
def test_so_far_looks_from_the_query_to_each_frame_and_no_farther(what):
    rng = np.random.default_rng(0)
    value, query_t = rng.normal(size=(2, 5, 9)), np.array([0, 3, 8, 4, 1])
    found = so_far(value, np.arange(9) - query_t[:, None], what)
    mean = mean_so_far(value, np.arange(9) - query_t[:, None])
    for k, n, t in np.ndindex(value.shape):
        part = value[k, n, min(t, query_t[n]) : max(t, query_t[n]) + 1]
        assert found[k, n, t] == what.reduce(part)
        assert mean[k, n, t] == pytest.approx(part.mean())


def test_beyond_looks_from_each_frame_away_from_the_query():
    rng = np.random.default_rng(0)
    value, query_t = rng.random((5, 9)), np.array([0, 3, 8, 4, 1])
    found = beyond(value, np.arange(9) - query_t[:, None])
    for n, t in np.ndindex(value.shape):
        part = value[n, t + 1 :] if t >= query_t[n] else value[n, :t]
        assert found[n, t] == max(part, default=0)


def turning(n=60, t=12, seed=0):
    """Points of a plane that turns, grows, and moves on: [N, T, 2]."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(80, 176, (n, 2)) - 128
    angle, scale = np.linspace(0, 0.5, t), np.linspace(1, 1.3, t)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return np.einsum("tij,nj->nti", turn, start) + 128 + np.linspace(0, 20, t)[:, None], turn


def test_a_lost_point_is_expected_where_the_points_around_it_carry_it():
    xy, turn = turning()
    centre = xy.copy()
    centre[7, 6:] = np.nan  # nobody knows the seventh any more
    trust = np.isfinite(centre[..., 0]).astype(float)
    found = expect(centre, trust, trust, np.zeros(60, int), xy[:, 0])
    assert np.hypot(*(found.xy[7] - xy[7]).T).max() < 1
    assert found.known[7].all()
    assert np.abs(found.affine[7, -1] - turn[-1]).max() < 0.15
    assert found.strangers[7].max() < 0.15


def test_points_that_came_from_elsewhere_are_strangers():
    still = np.repeat(np.random.default_rng(0).uniform(40, 216, (80, 1, 2)), 12, 1)
    passing = np.repeat(np.random.default_rng(1).uniform(0, 16, (40, 1, 2)), 12, 1)
    xy = np.concatenate([still, passing])
    at = still[3, 0]
    xy[80:, 8] = at + np.random.default_rng(2).uniform(-8, 8, (40, 2))  # right over the fourth
    trust = np.ones((120, 12))
    trust[3, 8] = 0
    found = expect(xy, trust, trust, np.zeros(120, int), xy[:, 0])
    assert np.abs(found.xy[3, 8] - at).max() < 1
    assert found.strangers[3, 8] > 0.5 > 4 * found.strangers[3, 7]


def test_a_patch_is_alike_to_itself_and_seems_off_by_as_much_as_it_is():
    rng = np.random.default_rng(0)
    import cv2

    picture = cv2.GaussianBlur(rng.uniform(0, 255, (256, 256, 3)).astype(np.float32), (0, 0), 3)
    picture = np.clip((picture - picture.mean()) * 8 + 128, 0, 255).astype(np.uint8)
    frames = np.stack([picture, picture])
    queries = np.column_stack([np.zeros(50), rng.uniform(30, 226, (50, 2))])
    there = np.repeat(queries[:, None, 1:], 2, 1)
    off = there.copy()
    off[:, 1] += (1, 0)
    far = there.copy()
    far[:, 1] += 60 * np.sign(128 - there[:, 1])
    found = gather(
        frames,
        queries,
        {"a": tracks(there), "b": tracks(off), "c": tracks(far)},
        dict.fromkeys("abc", SEES),
    )
    alike, seems_off = (found.own[:, :, 1, OWN.index(name)] for name in ("alike", "seems off"))
    assert alike[0].min() > 0.97  # the noise floor takes what is missing
    assert np.median(alike[1]) < np.median(alike[0])
    assert np.median(alike[2]) < 0.4
    assert np.median(np.expm1(seems_off[0])) < 0.1
    assert 0.6 < np.median(np.expm1(seems_off[1])) < 1.4


def test_evidence_has_no_gap_and_is_0_where_there_is_no_place():
    xy, _ = turning()
    frames = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), np.uint8)
    lost = xy.copy()
    lost[3, 4:] = np.nan
    queries = np.column_stack([np.zeros(60), xy[:, 0] / 4])
    found = gather(
        frames, queries, {"a": tracks(xy / 4), "b": tracks(lost / 4)}, {"a": SEES, "b": SEES}
    )
    assert found.own.shape == (2, 60, 12, len(OWN))
    assert found.shared.shape == (60, 12, len(SHARED))
    assert np.isfinite(found.own).all()
    assert np.isfinite(found.shared).all()
    assert not found.own[1, 3, 4:].any()
    assert not found.placed[1, 3, 4:].any()


@pytest.mark.parametrize(("n", "t"), [(1, 1), (1, 5), (2, 2), (13, 3)])
def test_few_points_and_frames_are_enough(n, t):
    frames = np.random.default_rng(0).integers(0, 255, (t, 48, 40, 3), np.uint8)
    queries = np.column_stack([np.zeros(n), np.random.default_rng(1).uniform(5, 30, (n, 2))])
    xy = np.repeat(queries[:, None, 1:], t, 1)
    found = gather(frames, queries, {"a": tracks(xy)}, {"a": SEES})
    assert np.isfinite(found.own).all()
    assert np.isfinite(found.shared).all()


def test_numbers_have_names():
    assert len(set(OWN)) == len(OWN)
    assert len(set(SHARED)) == len(SHARED)
    assert all(side % 2 for side in SIDES)
