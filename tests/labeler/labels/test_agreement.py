"""Agreement: the rule on cases worked by hand, and the fast version against the plain one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labeler.labels import agreement
from labeler.labels.agreement import (
    DISPUTED,
    OCCLUDED,
    VISIBLE,
    AgreementConfig,
    Labels,
    agree,
    agree_plain,
    agreeing,
    medoids,
    run_through,
)
from labeler.shards.members import stored, tracks_from_npz, tracks_to_npz
from teachers import ConfigError, Tracks, VisibleRule

ANY_LENGTH = AgreementConfig(min_visible_frames=1)
NAN = np.nan


def on_a_line(x: list[list[float]], seen: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """One query: x [K][T] at y = 0 and the flags [K][T], as xy [K, 1, T, 2] and sees [K, 1, T]."""
    xs = np.array(x, np.float32)[:, None]
    return np.stack([xs, xs * 0], -1), np.array(seen, bool)[:, None] & np.isfinite(xs)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, AgreementConfig]:
    """Tracks that scatter about tau, with teachers and frames that are NaN, on a coarse grid so
    that ties are common."""
    rng = np.random.default_rng(seed)
    k, n, t = rng.integers(1, 6), rng.integers(0, 7), rng.integers(1, 15)
    xy = (
        rng.integers(0, 4, (k, n, t, 2)) + rng.integers(0, 2) * rng.normal(0, 0.3, (k, n, t, 2))
    ).astype(np.float32)
    xy[rng.random((k, n, t)) < 0.1] = NAN
    xy[rng.random(k) < 0.15] = NAN
    sees = (rng.random((k, n, t)) < rng.choice([0.5, 0.9])) & np.isfinite(xy).all(-1)
    config = AgreementConfig(
        tau_px=float(rng.choice([0.5, 1.0, 2.0])),
        min_support=float(rng.choice([0.3, 0.5, 0.6, 2 / 3, 1.0])),
        min_visible_frames=int(rng.integers(1, 4)),
        min_motion_px=float(rng.choice([0.0, 1.5])),
    )
    return xy, sees, rng.integers(0, t, n), config


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_version_equals_the_plain_one(seed):
    xy, sees, frames, config = random_case(seed)
    families = (None, ["a", "b", "a", "b", "a"][: len(xy)], ["a"] * len(xy))[seed % 3]
    fast = agree(xy, sees, frames, config, families)
    plain = agree_plain(xy, sees, frames, config, families)
    for name in ("state", "valid", "keep"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), err_msg=name)
        assert getattr(fast, name).dtype == getattr(plain, name).dtype
    np.testing.assert_allclose(fast.support, plain.support, atol=1e-6)
    np.testing.assert_allclose(fast.spread, plain.spread, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_queries_does_not_matter(seed):
    xy, sees, frames, config = random_case(seed)
    there, back = (
        agree(xy, sees, frames, config),
        agree(xy[:, ::-1], sees[:, ::-1], frames[::-1], config),
    )
    for name in ("support", "spread", "state", "valid", "keep"):
        np.testing.assert_array_equal(getattr(there, name), getattr(back, name)[::-1], err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_a_teacher_that_failed_changes_nothing(seed):
    xy, sees, frames, config = random_case(seed)
    more = (
        np.concatenate([xy, np.full_like(xy[:1], NAN)]),
        np.concatenate([sees, np.zeros_like(sees[:1])]),
    )
    without, with_it = agree(xy, sees, frames, config), agree(*more, frames, config)
    for name in ("support", "spread", "state", "valid", "keep"):
        np.testing.assert_array_equal(getattr(without, name), getattr(with_it, name), err_msg=name)


def test_a_dispute_ends_the_run_and_the_part_before_it_is_kept():
    xy, sees = on_a_line([[0] * 6, [0] * 6], [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]])
    labels = agree(xy, sees, np.array([1]), replace(ANY_LENGTH, min_visible_frames=3))
    assert labels.state.tolist() == [[VISIBLE, VISIBLE, VISIBLE, DISPUTED, VISIBLE, VISIBLE]]
    assert labels.valid.tolist() == [[True, True, True, False, False, False]]
    assert labels.keep.tolist() == [True]


def test_an_agreed_occlusion_does_not_cut_a_track():
    xy, sees = on_a_line([[0] * 5, [0] * 5], [[1, 1, 0, 1, 1], [1, 1, 0, 1, 1]])
    labels = agree(xy, sees, np.array([4]), ANY_LENGTH)
    assert labels.state.tolist() == [[VISIBLE, VISIBLE, OCCLUDED, VISIBLE, VISIBLE]]
    assert labels.valid.all()
    assert labels.support[0, 2] == 0
    assert np.isnan(labels.spread[0, 2])


def test_an_occluded_frame_is_no_visible_frame():
    xy, sees = on_a_line([[0] * 4, [0] * 4], [[1, 0, 0, 1], [1, 0, 0, 1]])
    assert agree(xy, sees, np.array([0]), replace(ANY_LENGTH, min_visible_frames=2)).keep.all()
    assert not agree(xy, sees, np.array([0]), replace(ANY_LENGTH, min_visible_frames=3)).keep.any()


@pytest.mark.parametrize(
    ("near", "of", "good"), [(3, 5, True), (2, 5, False), (2, 3, True), (1, 2, False), (1, 1, True)]
)
def test_the_share_that_agrees_must_reach_min_support(near, of, good):
    xy, sees = on_a_line(
        [[0]] * near + [[away] for away in (100, -100, 200)[: of - near]], [[1]] * of
    )
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH)
    np.testing.assert_allclose(labels.support, near / of, rtol=1e-6)
    assert labels.valid.item() is good


def test_teachers_of_one_evidence_are_one_opinion():
    """Three that fail together at 50, and two of other kinds that are right, at 0 and 1."""
    xy, sees = on_a_line([[50], [50], [50], [0], [1]], [[1]] * 5)
    alone = agree(xy, sees, np.array([0]), ANY_LENGTH)
    assert (alone.support.item(), alone.valid.item()) == (pytest.approx(3 / 5), True)
    families = ["patch", "patch", "patch", "flow", "network"]
    medoid, _ = medoids(xy, sees, families)
    assert medoid.item() == 4  # 49 from the three, 1 from the other
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH, families)
    assert labels.support.item() == pytest.approx(2 / 3)


def test_a_family_that_disagrees_counts_by_the_share_of_its_teachers():
    xy, sees = on_a_line([[0], [90], [0], [0]], [[1], [1], [1], [0]])
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH, ["a", "a", "b", "c"])
    assert labels.support.item() == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert labels.state.item() == VISIBLE
    hidden = agree(xy, sees & False, np.array([0]), ANY_LENGTH, ["a", "a", "b", "c"])
    assert hidden.state.item() == OCCLUDED


def test_a_family_outvotes_nobody_on_what_is_hidden():
    """Three of one family lose the point, two others see it."""
    xy, sees = on_a_line([[0]] * 5, [[0], [0], [0], [1], [1]])
    assert agree(xy, sees, np.array([0]), ANY_LENGTH).state.item() == OCCLUDED
    families = ["a", "a", "a", "b", "c"]
    assert agree(xy, sees, np.array([0]), ANY_LENGTH, families).state.item() == VISIBLE


def test_parts_of_opinions_that_add_up_to_one_are_one():
    xy, sees = on_a_line([[0]] * 4, [[1], [1], [1], [0]])
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH, ["a", "a", "a", "b"])
    assert labels.state.item() == DISPUTED  # three thirds against one


def test_of_a_family_only_those_that_track_the_frame_share_its_opinion():
    xy, sees = on_a_line([[0], [NAN], [NAN], [0], [70]], [[1]] * 5)
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH, ["a", "a", "a", "b", "c"])
    assert labels.support.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_families_of_one_and_one_family_of_all_count_teachers(seed):
    xy, sees, frames, config = random_case(seed)
    plain = agree(xy, sees, frames, config)
    for families in ([f"own-{i}" for i in range(len(xy))], ["all"] * len(xy)):
        labels = agree(xy, sees, frames, config, families)
        np.testing.assert_array_equal(labels.state, plain.state)
        np.testing.assert_array_equal(labels.valid, plain.valid)
        np.testing.assert_allclose(labels.support, plain.support, atol=1e-6)


def test_a_point_exactly_tau_away_agrees():
    xy, sees = on_a_line([[0], [2]], [[1], [1]])
    assert agree(xy, sees, np.array([0]), ANY_LENGTH).support.item() == 1
    xy, sees = on_a_line([[0], [2.001]], [[1], [1]])
    assert agree(xy, sees, np.array([0]), ANY_LENGTH).support.item() == 0.5


def test_only_teachers_that_track_the_frame_count():
    xy, sees = on_a_line([[0], [0], [NAN], [NAN], [NAN]], [[1], [1], [1], [1], [1]])
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH)
    assert labels.support.item() == 1
    assert labels.state.item() == VISIBLE


def test_a_frame_that_no_teacher_tracks_is_disputed():
    xy, sees = on_a_line([[NAN], [NAN]], [[0], [0]])
    labels = agree(xy, sees, np.array([0]), ANY_LENGTH)
    assert (
        labels.state.item(),
        labels.support.item(),
        labels.valid.item(),
        labels.keep.item(),
    ) == (DISPUTED, 0, False, False)
    assert np.isnan(labels.spread).all()


def test_the_medoid_is_the_middle_one_and_the_first_of_equals():
    xy, sees = on_a_line([[10, 0], [0, 4], [3, NAN]], [[1, 1], [1, 1], [1, 0]])
    medoid, distance = medoids(xy, sees)
    assert medoid.tolist() == [[2, 0]]  # sums 17, 13, 10; then a tie of 4 and 4
    np.testing.assert_array_equal(distance[:, 0, 0], [7, 3, 0])
    np.testing.assert_array_equal(distance[:, 0, 1], [0, 4, NAN])


def test_a_teacher_that_says_occluded_is_no_medoid():
    xy, sees = on_a_line([[0], [5], [9]], [[0], [1], [1]])
    medoid, distance = medoids(xy, sees)
    assert medoid.item() == 1
    assert distance[:, 0, 0].tolist() == [5, 0, 4]


def test_spread_is_the_median_distance_of_those_that_see():
    xy, sees = on_a_line([[0], [1], [7], [50]], [[1], [1], [1], [0]])
    assert agree(xy, sees, np.array([0]), ANY_LENGTH).spread.item() == 1  # of 1, 0, 6


def test_motion_is_the_diagonal_of_the_box_around_the_visible_track():
    xy, sees = on_a_line([[0, 3, 100]], [[1, 1, 0]])
    assert agree(xy, sees, np.array([0]), replace(ANY_LENGTH, min_motion_px=3)).keep.item()
    assert not agree(xy, sees, np.array([0]), replace(ANY_LENGTH, min_motion_px=3.1)).keep.item()


def test_a_teacher_agrees_where_it_sees_near_the_medoid_or_says_occluded_as_most_do():
    xy, sees = on_a_line([[0, 0], [0, 0], [90, 0]], [[1, 0], [1, 0], [1, 1]])
    state = agree(xy, sees, np.array([0]), ANY_LENGTH).state
    assert state.tolist() == [[VISIBLE, OCCLUDED]]
    assert agreeing(xy, sees, state, tau_px=2)[:, 0].tolist() == [
        [True, True],
        [True, True],
        [False, True],
    ]


def test_the_run_through_a_frame_that_is_not_good_is_empty():
    good = np.array([[1, 1, 0, 1, 1]] * 3, bool)
    assert run_through(good, np.array([2, 0, 4])).astype(int).tolist() == [
        [0] * 5,
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
    ]


def tracks_at(xy: np.ndarray, visibility: float = 1.0) -> Tracks:
    return Tracks(
        xy.astype(np.float32),
        np.full(xy.shape[:2], visibility, np.float32),
        np.full(xy.shape[:2], NAN, np.float32),
    )


def test_distances_are_in_the_256_raster_on_each_axis():
    """In a clip of 512 x 128 px, 3 px along x are 1.5 of the raster, and 3 px along y are 6."""
    base = np.full((1, 1, 2), 60.0)
    rules = {"a": VisibleRule("v", 0.5), "b": VisibleRule("v", 0.5)}
    queries = np.float32([[0, 60, 60]])
    support = [
        agreement.label(
            {"a": tracks_at(base), "b": tracks_at(base + step)},
            rules,
            queries,
            (128, 512),
            ANY_LENGTH,
        ).support.item()
        for step in ([3, 0], [0, 3])
    ]
    assert support == [1, 0.5]


def test_each_teacher_is_read_by_its_own_rule():
    base = np.full((1, 1, 2), 60.0)
    rules = {"a": VisibleRule("v", 0.9), "b": VisibleRule("v", 0.5)}
    labels = agreement.label(
        {"b": tracks_at(base, 0.8), "a": tracks_at(base, 0.8)},
        rules,
        np.float32([[0, 60, 60]]),
        (128, 128),
        ANY_LENGTH,
    )
    assert labels.state.item() == DISPUTED
    assert labels.settings["teachers"] == {"a": "v > 0.9", "b": "v > 0.5"}
    assert labels.settings["tau_px"] == 2.0


def test_labels_of_stored_tracks_are_labels_of_read_tracks():
    rng = np.random.default_rng(0)
    queries = np.float32([[int(t), 50, 50] for t in rng.integers(0, 10, 20)])
    tracks = {
        name: stored(
            Tracks(
                rng.normal(50, 3, (20, 10, 2)).astype(np.float32),
                rng.random((20, 10), np.float32),
                np.full((20, 10), NAN, np.float32),
            )
        )
        for name in "abc"
    }
    rules = {name: VisibleRule("v", 0.5) for name in "abc"}
    read = {name: tracks_from_npz(tracks_to_npz(one), name) for name, one in tracks.items()}
    first = agreement.label(tracks, rules, queries, (100, 200), AgreementConfig())
    again = agreement.label(read, rules, queries, (100, 200), AgreementConfig())
    for name in ("support", "spread", "state", "valid", "keep"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name), err_msg=name)


def test_a_clip_without_queries_has_labels_without_rows():
    labels = agree(
        np.zeros((2, 0, 5, 2), np.float32),
        np.zeros((2, 0, 5), bool),
        np.zeros(0, int),
        AgreementConfig(min_motion_px=1),
    )
    assert isinstance(labels, Labels)
    assert (labels.support.shape, labels.keep.shape) == ((0, 5), (0,))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tau_px": 0}, "tau_px = 0: must be above 0"),
        ({"tau_px": NAN}, "tau_px = nan: must be above 0"),
        ({"min_support": 0}, "min_support = 0: must be in"),
        ({"min_support": 1.1}, r"min_support = 1\.1: must be in"),
        ({"min_visible_frames": 0}, "at least 1"),
        ({"min_motion_px": -1}, "must not be negative"),
        ({"min_motion_px": NAN}, "min_motion_px = nan"),
        ({"min_motion_px": np.inf}, "min_motion_px = inf"),
        ({"tau_px": np.inf}, "tau_px = inf: must be above 0"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        AgreementConfig(**settings)
