"""The contract: what every label policy keeps, whatever it chooses.

A new policy is tested by being listed, and so is the one of docs/add-a-policy.md.
`TAPDISTILL_CONTRACT_POLICY=module:Class` asks all of it of that policy alone.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import Candidates, Target, chosen, names, weights
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import Tracks, VisibleRule

NAMED = os.environ.get("TAPDISTILL_CONTRACT_POLICY")
POLICIES = [NAMED] if NAMED else [*names(), "tests.support.own_policy:MostTrusted"]
QUERIES, FRAMES = 40, 12
SIZE = 96, 128

pytestmark = pytest.mark.parametrize("policy", POLICIES)


def a_clip(teachers: tuple[str, ...] = ("a", "b", "broken", "c"), n: int = QUERIES) -> Candidates:
    """Points that go right; a and c are at most 0.2 px off, b at times 20 px, and "broken" failed.
    All say hidden in the last three frames."""
    rng = np.random.default_rng(0)
    queries = np.column_stack([rng.integers(0, 9, n), rng.uniform(20, 70, (n, 2))])
    right = queries[:, None, 1:] + np.stack([1.0 * np.arange(FRAMES), np.zeros(FRAMES)], -1)
    lost = rng.random((n, FRAMES)) < 0.3
    visible = np.broadcast_to(np.arange(FRAMES) < 9, (n, FRAMES))
    tracks, trusted = {}, {}
    for name in teachers:
        off = rng.uniform(-0.2, 0.2, right.shape) + 20.0 * (lost & (name == "b"))[..., None]
        tracks[name] = (
            Tracks.nan(n, FRAMES)
            if name == "broken"
            else Tracks(
                (right + off).astype(np.float32),
                np.where(visible, 0.9, 0.1).astype(np.float32),
                np.full((n, FRAMES), np.nan, np.float32),
            )
        )
        good = visible & ~(lost & (name == "b")) & (name != "broken")
        trusted[name] = np.where(good, rng.uniform(0.75, 1, good.shape), 0.1 * (name != "broken"))
    order = tuple(sorted(teachers))
    verdict = ClipVerdict(
        order,
        np.stack([trusted[name] for name in order]).astype(np.float32),
        np.where(visible, 0, 0.95).astype(np.float32),
        "by hand",
    )
    return Candidates(
        tracks=tracks,
        rules=dict.fromkeys(teachers, VisibleRule("v", 0.5)),
        queries=queries.astype(np.float32),
        size_hw=SIZE,
        agreement=AgreementConfig(min_visible_frames=4),
        trust=TrustConfig(),
        verdict=verdict,
        truth_xy=right.astype(np.float32),
        truth_visible=visible.copy(),
    )


def of(policy: str, clip: Candidates, seed: int = 0) -> Target:
    return chosen(policy, clip, np.random.default_rng(seed))


def test_it_gives_a_label_where_labels_are_easy(policy):
    target = of(policy, a_clip())
    shown = target.used & target.visible
    assert shown.any()
    assert np.isfinite(target.xy[shown]).all()
    assert target.xy.dtype == np.float32


def test_a_place_is_that_of_the_teacher_that_is_named(policy):
    clip = a_clip()
    target = of(policy, clip)
    assert target.teacher.min() >= -1
    assert target.teacher.max() < len(clip.names)
    for row, name in enumerate(clip.names):
        mine = target.teacher == row
        np.testing.assert_allclose(target.xy[mine], clip.tracks[name].xy[mine], atol=1e-3)
        assert np.isfinite(clip.tracks[name].xy[mine]).all()


def test_frames_that_are_not_used_have_no_place(policy):
    target = of(policy, a_clip())
    assert np.isnan(target.xy[~target.used]).all()


def test_equal_draws_give_equal_labels_and_the_clip_is_not_changed(policy):
    clip, same = a_clip(), a_clip()
    first, again = of(policy, clip, 7), of(policy, clip, 7)
    for name in ("xy", "visible", "used", "teacher"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for name in clip.names:
        for one, other in zip(
            vars(clip.tracks[name]).values(), vars(same.tracks[name]).values(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(clip.queries, same.queries)
    np.testing.assert_array_equal(clip.verdict.right, same.verdict.right)


def test_the_order_of_teachers_does_not_matter(policy):
    clip = a_clip()
    back = replace(clip, tracks=dict(reversed(clip.tracks.items())))
    np.testing.assert_array_equal(of(policy, clip).xy, of(policy, back).xy)


@pytest.mark.parametrize("teachers", [("a",), ("a", "broken"), ("broken",)], ids="+".join)
def test_one_teacher_and_one_that_failed_are_enough(policy, teachers):
    target = of(policy, a_clip(teachers))
    assert target.used.shape == (QUERIES, FRAMES)
    assert not (teachers == ("broken",) and (target.used & target.visible).any())


def test_a_clip_without_queries_has_no_labels(policy):
    target = of(policy, a_clip(n=0))
    assert target.xy.shape == (0, FRAMES, 2)


def test_its_labels_can_be_weighed(policy):
    clip = a_clip()
    weight = weights(of(policy, clip), clip)
    assert weight.shape == (QUERIES, FRAMES)
    assert (weight >= 0).all()
    assert (weight <= 1).all()
