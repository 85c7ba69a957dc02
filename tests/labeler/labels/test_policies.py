"""Label policies: each on a case that can be worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import POLICIES, Target, choose
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError, Tracks, VisibleRule

SIZE = 128, 512
"""Height and width of the clip: neither axis is the 256 raster's."""
FRAMES = 10
SEEN = VisibleRule("v", 0.5)
LENIENT = AgreementConfig(min_visible_frames=1)


def still(x: float, n: int = 1, visible: object = 1.0, y: float = 40.0) -> Tracks:
    """N points at (x, y) in every frame."""
    xy = np.broadcast_to(np.float32([x, y]), (n, FRAMES, 2)).copy()
    return Tracks(
        xy,
        np.broadcast_to(np.float32(visible), (n, FRAMES)).copy(),
        np.full((n, FRAMES), np.nan, np.float32),
    )


def chosen(
    policy: str,
    tracks: dict[str, Tracks],
    seed: int = 0,
    config: AgreementConfig | None = None,
    hidden: float = 0.0,
    **truth,
) -> Target:
    n = len(next(iter(tracks.values())).xy)
    queries = np.tile(np.float32([0, 100, 40]), (n, 1))
    return choose(
        policy,
        tracks,
        dict.fromkeys(tracks, SEEN),
        queries,
        SIZE,
        np.random.default_rng(seed),
        config,
        verdict=ClipVerdict(
            tuple(sorted(tracks)),
            np.ones((len(tracks), n, FRAMES), np.float32),
            np.full((n, FRAMES), hidden, np.float32),
            "trusts everything",
        ),
        **truth,
    )


def drawn(target: Target) -> np.ndarray:
    """[N]: the one teacher of each query, in the frames that are used; -1 without any."""
    one = target.teacher.max(1)
    assert (target.teacher == np.where(target.used, one[:, None], -1)).all()
    return one


def test_random_draws_every_teacher_about_as_often():
    n = 3000
    target = chosen("random", {"a": still(100, n), "b": still(200, n), "c": still(300, n)})
    counts = np.bincount(drawn(target), minlength=3)
    assert abs(counts - n / 3).max() < 5 * np.sqrt(n * 2 / 9)  # five standard deviations
    np.testing.assert_allclose(
        target.xy[:, 0, 0], np.float32([100, 200, 300])[drawn(target)], atol=1e-4
    )
    assert target.used.all()


def test_random_is_decided_by_the_generator():
    tracks = {"a": still(100, 50), "b": still(200, 50)}
    draws = [drawn(chosen("random", tracks, seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("policy", ["random", "random-agreeing"])
def test_a_teacher_that_failed_is_never_drawn(policy):
    n = 300
    tracks = {"a": Tracks.nan(n, FRAMES), "b": still(100, n), "c": still(100, n)}
    assert set(drawn(chosen(policy, tracks)).tolist()) == {1, 2}


def test_random_ignores_whether_teachers_agree():
    target = chosen("random", {"a": still(100, 100), "b": still(300, 100)})
    assert set(drawn(target).tolist()) == {0, 1}
    assert target.used.all()


def test_random_trains_on_occluded_frames_too():
    target = chosen("random", {"a": still(100, visible=[1] * 5 + [0] * 5)})
    assert target.used.all()
    assert target.visible.tolist() == [[True] * 5 + [False] * 5]
    assert np.isfinite(target.xy).all()


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "oracle"])
def test_no_policy_invents_a_track_where_every_teacher_failed(policy):
    target = chosen(policy, {"a": Tracks.nan(3, FRAMES), "b": Tracks.nan(3, FRAMES)})
    assert not target.used.any()
    assert not target.visible[target.used].any()
    assert np.isnan(target.xy).all()
    assert (target.teacher == -1).all()


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "oracle"])
def test_every_policy_takes_a_clip_without_queries(policy):
    target = chosen(policy, {"a": still(1, 0), "b": still(1, 0)})
    assert target.xy.shape == (0, FRAMES, 2)
    assert target.teacher.shape == (0, FRAMES)


def test_random_agreeing_never_draws_the_one_that_disagrees():
    n = 200
    target = chosen(
        "random-agreeing", {"a": still(100, n), "b": still(101, n), "odd": still(300, n)}
    )
    assert set(drawn(target).tolist()) == {0, 1}


def test_random_agreeing_uses_a_teacher_only_where_it_agrees_itself():
    """b strays in frames 5-9, where a and c still agree: drawn, b is used in frames 0-4 only."""
    stray = still(100, 100)
    stray.xy[:, 5:, 0] = 400
    target = chosen(
        "random-agreeing", {"a": still(100, 100), "b": stray, "c": still(100, 100)}, config=LENIENT
    )
    assert set(drawn(target).tolist()) == {0, 1, 2}
    for row, teacher in enumerate(drawn(target)):
        assert target.used[row].tolist() == (
            [True] * 5 + [False] * 5 if teacher == 1 else [True] * 10
        )


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_random_agreeing_learns_an_agreed_occlusion_on_evidence_but_not_from_who_still_sees(hidden):
    seen = [1] * 5 + [0] * 5
    target = chosen(
        "random-agreeing",
        {"a": still(100, 60, seen), "b": still(100, 60, seen), "c": still(100, 60)},
        config=LENIENT,
        hidden=hidden,
    )
    for row, teacher in enumerate(drawn(target)):
        assert target.visible[row, :5].all()
        assert target.used[row, :5].all()
        # c sees the point within tau of the medoid, which is c itself
        assert target.visible[row, 5:].tolist() == [teacher == 2 and hidden == 1] * 5
        assert target.used[row, 5:].tolist() == [hidden == 1] * 5


@pytest.mark.parametrize("policy", ["medoid", "mean", "median"])
def test_blends_call_a_point_occluded_on_evidence_only(policy):
    seen = [1] * 5 + [0] * 5
    tracks = {name: still(100, 3, seen) for name in "abc"}
    for hidden in (0.0, 1.0):
        target = chosen(policy, tracks, config=LENIENT, hidden=hidden)
        occluded = target.called_occluded
        assert not occluded[:, :5].any()
        assert (occluded[:, 5:] == (hidden == 1)).all()


def test_random_agreeing_needs_min_visible_frames_of_the_teacher():
    short = still(100, 50, [1] * 7 + [0] * 3)
    target = chosen("random-agreeing", {"a": still(100, 50), "b": still(100, 50), "c": short})
    assert set(drawn(target).tolist()) == {0, 1}


def test_the_medoid_is_one_of_the_tracks_frame_by_frame():
    target = chosen("medoid", {"a": still(100), "b": still(101), "c": still(103)})
    np.testing.assert_allclose(target.xy[0], np.broadcast_to([101, 40], (FRAMES, 2)), atol=1e-4)
    assert target.teacher.tolist() == [[1] * FRAMES]


def five(hidden_at: float) -> dict[str, Tracks]:
    """Three teachers that see the point, one that calls it hidden, and one that failed."""
    seen = {"a": still(100), "b": still(100.5), "c": still(102.5)}
    return {**seen, "hidden": still(hidden_at, visible=0), "failed": Tracks.nan(1, FRAMES)}


@pytest.mark.parametrize(("policy", "x"), [("mean", 101.0), ("median", 100.5)])
def test_mean_and_median_are_of_the_teachers_that_see(policy, x):
    tracks = five(hidden_at=400)
    np.testing.assert_allclose(chosen(policy, tracks).xy[0, :, 0], x, atol=1e-4)


@pytest.mark.parametrize("policy", ["medoid", "mean", "median"])
def test_blends_are_used_where_the_labels_are_valid_visible_and_kept(policy):
    hidden = [1] * 8 + [0] * 2
    target = chosen(policy, {"a": still(100, visible=hidden), "b": still(100, visible=hidden)})
    assert target.used.tolist() == [[True] * 8 + [False] * 2]
    assert np.isfinite(target.xy).all(-1).tolist() == target.used.tolist()
    assert not chosen(policy, {"a": still(100), "b": still(300)}).used.any()


def test_the_oracle_takes_the_teacher_nearest_to_the_truth():
    truth = np.broadcast_to(np.float32([100, 40]), (2, FRAMES, 2)).copy()
    truth[1] = [300, 40]
    target = chosen(
        "oracle",
        {"a": still(299, 2), "b": still(104, 2), "c": Tracks.nan(2, FRAMES)},
        truth_xy=truth,
        truth_visible=np.ones((2, FRAMES), bool),
    )
    assert drawn(target).tolist() == [1, 0]
    np.testing.assert_allclose(target.xy[:, 0, 0], [104, 299], atol=1e-3)


def test_the_oracle_does_not_look_at_occluded_frames():
    truth, visible = (
        np.broadcast_to(np.float32([100, 40]), (1, FRAMES, 2)).copy(),
        np.ones((1, FRAMES), bool),
    )
    visible[:, 5:] = False
    good_when_seen = still(101)
    good_when_seen.xy[:, 5:] = 400
    target = chosen(
        "oracle", {"a": still(103), "b": good_when_seen}, truth_xy=truth, truth_visible=visible
    )
    assert drawn(target).tolist() == [1]


def test_the_oracle_needs_a_truth():
    with pytest.raises(ConfigError, match="'oracle' needs exact tracks"):
        chosen("oracle", {"a": still(1)})


def test_a_policy_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(
        ConfigError, match="no label policy 'best': there are random, random-agreeing"
    ):
        chosen("best", {"a": still(1)})


@pytest.mark.parametrize(("policy", "x"), [("mean-all", 151.0), ("median-all", 101.5)])
def test_the_blends_of_the_paper_are_of_all_teachers_in_every_frame(policy, x):
    """By hand: 100, 100.5, 102.5, and 301, which alone does not see the point."""
    tracks = five(hidden_at=301)
    target = chosen(policy, tracks)
    np.testing.assert_allclose(target.xy[0, :, 0], x, atol=1e-4)
    assert target.used.all()
    assert target.visible.all()
    few = chosen(policy, {"a": still(100), "b": still(300, visible=0), "c": still(500, visible=0)})
    assert few.used.all()
    assert not few.visible.any()
