"""Policies that believe the verifier: each on a verdict that is written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import Candidates, chosen, weights
from labeler.labels.policy import Target
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError, Tracks, VisibleRule

FRAMES = 10
SIZE = 128, 512
SEEN = VisibleRule("v", 0.5)
PLACES = {"a": 100.0, "b": 200.0, "c": 300.0, "d": 400.0}


def still(x: float, n: int) -> Tracks:
    xy = np.broadcast_to(np.float32([x, 40]), (n, FRAMES, 2)).copy()
    unknown = np.full((n, FRAMES), np.nan, np.float32)
    return Tracks(xy, np.ones((n, FRAMES), np.float32), unknown)


def a_clip(
    right: dict[str, object], hidden: object = 0.0, n: int = 1, least: int = 1, **trust: float
) -> Candidates:
    """N points of which the teachers named in `right` say that they stand still, each elsewhere."""
    each = [np.broadcast_to(np.float32(right[name]), (n, FRAMES)) for name in sorted(right)]
    return Candidates(
        tracks={name: still(PLACES[name], n) for name in right},
        rules=dict.fromkeys(right, SEEN),
        queries=np.tile(np.float32([0, 100, 40]), (n, 1)),
        size_hw=SIZE,
        agreement=AgreementConfig(min_visible_frames=least),
        trust=TrustConfig(**trust),
        verdict=ClipVerdict(
            tuple(sorted(right)),
            np.stack(each),
            np.broadcast_to(np.float32(hidden), (n, FRAMES)),
            "by hand",
        ),
    )


def of(policy: str, clip: Candidates, seed: int = 0) -> Target:
    return chosen(policy, clip, np.random.default_rng(seed))


def test_verified_takes_the_most_trusted_place_of_each_frame():
    clip = a_clip({"a": [0.9] * 4 + [0.3] * 6, "b": [0.8] * 8 + [0.6] * 2}, min_right=0.7)
    target = of("verified", clip)
    assert target.teacher.tolist() == [[0] * 4 + [1] * 4 + [-1] * 2]
    np.testing.assert_allclose(target.xy[0, :8, 0], [100] * 4 + [200] * 4, atol=1e-4)
    assert target.used.tolist() == target.visible.tolist() == [[True] * 8 + [False] * 2]
    assert np.isnan(target.xy[0, 8:]).all()


def test_three_that_found_the_same_point_share_a_label():
    """Raster px are half as wide as those of the clip here, and twice as high."""
    clip = a_clip({"a": 0.9, "b": 0.8, "c": 0.8, "d": 0.85}, n=2)
    for name, (x, y) in {"a": (100, 40), "b": (101, 40), "c": (100, 40.25)}.items():
        clip.tracks[name].xy[...] = x, y
    clip.tracks["c"].xy[:, 5:, 0] = 105
    target = of("verified", clip)
    assert target.teacher.tolist() == [[-1] * 5 + [0] * 5] * 2
    np.testing.assert_allclose(weights(target, clip), 0.9)
    shared, alone = target.xy[:, :5], target.xy[:, 5:]
    assert ((shared > (100, 40)) & (shared < (101, 40.25))).all()
    np.testing.assert_allclose(alone, np.broadcast_to(np.float32([100, 40]), alone.shape))
    single = Candidates(**{**vars_of(clip), "trust": TrustConfig(blend_px=0)})
    np.testing.assert_allclose(of("verified", single).xy, clip.tracks["a"].xy, rtol=1e-6)


def test_a_place_is_used_from_the_threshold_on():
    shares = np.float32(np.arange(FRAMES)) / 10
    for least in (0.3, 0.7, 1.0):
        used = of("verified", a_clip({"a": shares}, min_right=least)).used[0]
        assert used.tolist() == [p >= np.float32(least) for p in shares]


def test_hidden_frames_are_used_without_a_place():
    clip = a_clip({"a": [0.9] * 5 + [0.0] * 5}, [0.0] * 7 + [0.95] * 3, min_hidden=0.9)
    for policy in ("verified", "random-verified"):
        target = of(policy, clip)
        assert target.visible.tolist() == [[True] * 5 + [False] * 5]
        assert target.used.tolist() == [[True] * 5 + [False] * 2 + [True] * 3]
        assert target.called_occluded.tolist() == [[False] * 7 + [True] * 3]
        assert np.isfinite(target.xy).all(-1).tolist() == target.visible.tolist()
        assert (target.teacher[~target.visible] == -1).all()


def test_where_both_seem_likely_the_likelier_counts():
    clip = a_clip({"a": 0.8}, [0.75] * 5 + [0.9] * 5, min_right=0.7, min_hidden=0.7)
    target = of("verified", clip)
    assert target.used.all()
    assert target.visible.tolist() == [[True] * 5 + [False] * 5]


def test_a_teacher_with_too_few_trusted_frames_is_not_drawn():
    clip = a_clip({"a": [0.9] * 7 + [0.1] * 3, "b": 0.1}, 0.95 * (np.arange(FRAMES) > 8))
    assert of("random-verified", clip).used.any()
    few = Candidates(**{**vars_of(clip), "agreement": AgreementConfig(min_visible_frames=8)})
    target = of("random-verified", few)
    assert not target.used.any()
    assert not target.visible.any()


def test_one_trusted_frame_is_a_label_whatever_agreement_asks_for():
    """Each frame is judged by itself; a query that is trusted in none is not used."""
    hidden = 0.95 * (np.arange(FRAMES) > 8)
    for trusted in (0, 1):
        clip = a_clip({"a": [0.9] * trusted + [0.1] * (FRAMES - trusted)}, hidden)
        strict = Candidates(**{**vars_of(clip), "agreement": AgreementConfig(min_visible_frames=8)})
        target = of("verified", strict)
        assert target.visible.sum() == trusted
        assert target.used.sum() == 2 * trusted  # with the frame that is hidden


@pytest.mark.parametrize("policy", ["verified", "random-verified"])
def test_still_points_are_left_out_where_motion_is_asked_for(policy):
    clip = a_clip({"a": 0.9})
    moving = Candidates(**{**vars_of(clip), "agreement": AgreementConfig(min_motion_px=1)})
    assert of(policy, clip).used.all()
    assert not of(policy, moving).used.any()


def test_random_verified_draws_evenly_from_those_that_are_trusted_long_enough():
    n = 3000
    clip = a_clip({"a": 0.9, "b": [0.9] * 8 + [0.2] * 2, "c": [0.9] * 7 + [0.2] * 3}, n=n, least=8)
    target = of("random-verified", clip)
    drawn = target.teacher[:, 0]
    assert set(drawn) == {0, 1}
    assert abs((drawn == 0).sum() - n / 2) < 5 * np.sqrt(n / 4)  # five standard deviations
    assert target.used[drawn == 0].all()
    np.testing.assert_array_equal(target.used[drawn == 1], clip.right()[1][drawn == 1] > 0.5)
    np.testing.assert_allclose(target.xy[:, 0, 0], np.float32([100, 200])[drawn], atol=1e-4)


def test_a_teacher_without_a_place_is_never_taken_whatever_the_verdict_says():
    clip = a_clip({"a": 0.95, "b": 0.9})
    clip.tracks["a"].xy[:, 3:] = np.nan
    assert of("verified", clip).teacher.tolist() == [[0] * 3 + [1] * 7]


@pytest.mark.parametrize("policy", ["verified", "random-verified"])
def test_without_a_verdict_the_message_says_who_makes_one(policy):
    clip = Candidates(**{**vars_of(a_clip({"a": 0.9})), "verdict": None})
    with pytest.raises(ConfigError, match=f"policy '{policy}'.*`tapdistill relabel URL`"):
        of(policy, clip)
    with pytest.raises(ConfigError, match="`tapdistill relabel URL`"):
        weights(of("random", clip), clip)


def test_a_verdict_on_other_teachers_is_refused():
    clip = a_clip({"a": 0.9})
    other = Candidates(**{**vars_of(clip), "verdict": a_clip({"b": 0.9}).verdict})
    with pytest.raises(ConfigError, match="did not judge teacher 'a', only b"):
        of("verified", other)


def test_the_order_of_teachers_does_not_matter():
    right = {"c": [0.9] * 10, "a": [0.8] * 5 + [0.95] * 5}
    there = a_clip(right)
    back = Candidates(**{**vars_of(there), "tracks": dict(reversed(there.tracks.items()))})
    np.testing.assert_array_equal(of("verified", there).xy, of("verified", back).xy)


def test_no_query_gives_no_label():
    for policy in ("verified", "random-verified"):
        target = of(policy, a_clip({"a": 0.9, "b": 0.8}, n=0))
        assert target.xy.shape == (0, FRAMES, 2)
        assert weights(target, a_clip({"a": 0.9, "b": 0.8}, n=0)).shape == (0, FRAMES)


def test_a_label_weighs_what_its_teacher_is_worth_there():
    clip = a_clip({"a": [0.9] * 5 + [0.8] * 5, "b": 0.85}, 0.25)
    np.testing.assert_allclose(
        weights(of("verified", clip), clip), [[0.9] * 5 + [0.85] * 5], rtol=1e-6
    )
    oracle = Candidates(
        **{
            **vars_of(clip),
            "truth_xy": clip.tracks["b"].xy,
            "truth_visible": np.ones((1, FRAMES), bool),
        }
    )
    np.testing.assert_allclose(weights(of("oracle", oracle), oracle), 0.85)
    # a blend is no teacher's place: the most trusted one says what it is worth
    np.testing.assert_allclose(weights(of("mean", clip), clip)[0, 0], 0.9)
    clip.tracks["a"].visibility[:] = 0
    clip.tracks["b"].visibility[:] = 0
    clip = Candidates(**vars_of(clip))  # a new one: it stacks its tracks once
    said_hidden = of("random", clip)
    assert not said_hidden.visible.any()
    np.testing.assert_allclose(weights(said_hidden, clip), 0.25)


@pytest.mark.parametrize("trust", [{"min_right": 0.0}, {"min_right": 1.1}, {"min_hidden": -1.0}])
def test_a_threshold_is_a_probability(trust):
    with pytest.raises(ConfigError, match=r"a probability in \(0, 1\]"):
        TrustConfig(**trust)


@pytest.mark.parametrize("px", [-1.0, 9.0, float("nan")])
def test_a_blend_is_of_one_place(px):
    with pytest.raises(ConfigError, match=r"blend_px = .*: a distance from 0 to 8 px"):
        TrustConfig(blend_px=px)


def vars_of(clip: Candidates) -> dict[str, object]:
    return {name: getattr(clip, name) for name in Candidates.__dataclass_fields__}


def test_no_point_is_hidden_in_its_own_frame():
    last = [[False] * 9 + [True]]
    clip = a_clip({"a": [0.1] + [0.9] * 8 + [0.1]}, [0.95] + [0.0] * 8 + [0.95])
    for policy in ("verified", "random-verified"):
        assert of(policy, clip).called_occluded.tolist() == last
