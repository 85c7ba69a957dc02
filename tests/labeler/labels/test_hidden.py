"""Where a label may say that a point is hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labeler.labels.agreement import DISPUTED, OCCLUDED, RASTER, VISIBLE, AgreementConfig, label
from labeler.labels.hidden import is_hidden, proven
from labeler.labels.sample import Sample
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import Tracks, VisibleRule

T, SIDE = 12, 256


def tracks(xy, sees):
    nan = np.full(sees.shape, np.nan, np.float32)
    return Tracks(xy.astype(np.float32), np.where(sees, 0.9, 0.1).astype(np.float32), nan)


@pytest.fixture(scope="module")
def scene():
    """200 points that slide to the left by 3 px a frame, and a board of 60 points that jumps in
    front of them in frame 6; queries in frame 0: truth [N, T, 2], visible [N, T], and which are
    covered."""
    rng = np.random.default_rng(0)
    back = rng.uniform((2, 2), (254, 254), (200, 1, 2)) - np.arange(T)[:, None] * (3.0, 0.0)
    board = rng.uniform((0, 0), (60, 60), (60, 2))
    at = np.where(np.arange(T)[:, None] < 6, (0.0, 190.0), (100.0, 100.0))
    front = board[:, None] + at
    x, y = back[..., 0], back[..., 1]
    left, top = at[:, 0], at[:, 1]
    covered = (x > left) & (x < left + 60) & (y > top) & (y < top + 60)
    covered[covered[:, 0], :] &= False  # its query would lie on the board
    xy = np.concatenate([back, front])
    out = np.concatenate([x < 0, np.zeros((60, T), bool)])
    covered = np.concatenate([covered, np.zeros((60, T), bool)])
    return xy, ~(covered | out), covered, out


def three(xy, sees):
    rng = np.random.default_rng(1)
    return {name: tracks(xy + rng.normal(0, 0.3, xy.shape), sees) for name in "abc"}


RULES = dict.fromkeys("abc", VisibleRule("v", 0.5))


def test_by_rule_a_point_is_hidden_outside_the_frame_and_behind_others(scene):
    xy, visible, covered, _ = scene
    queries = np.column_stack([np.zeros(len(xy)), xy[:, 0]])
    found = is_hidden(three(xy, visible), RULES, queries, (SIDE, SIDE))
    assert found[xy[..., 0] < -3].mean() > 0.3  # of many the neighbours are out as well
    assert found[covered & (np.arange(T) >= 7)].mean() > 0.3
    assert (found & ~visible).sum() > 0.95 * found.sum()


def test_by_rule_a_point_that_all_lose_is_not_hidden(scene):
    """The same, but a third of the visible points are lost by all: they are not called hidden."""
    xy, visible, _, _ = scene
    queries = np.column_stack([np.zeros(len(xy)), xy[:, 0]])
    lost = np.zeros_like(visible)
    lost[::3, 4:8] = visible[::3, 4:8]
    wrong = xy + 40 * lost[..., None]
    found = is_hidden(three(wrong, visible & ~lost), RULES, queries, (SIDE, SIDE))
    assert lost.sum() > 200
    assert (found & lost).sum() < 0.05 * lost.sum()


def test_a_verdict_is_taken_at_its_word_but_in_the_query_frame(scene):
    xy, visible, _, _ = scene
    queries = np.column_stack([np.full(len(xy), 3), xy[:, 3]])
    said = np.random.default_rng(0).random(visible.shape).astype(np.float32)
    found = is_hidden(three(xy, visible), RULES, queries, (SIDE, SIDE), said)
    others = np.arange(T) != 3
    np.testing.assert_array_equal(found[:, others], said[:, others] >= TrustConfig.min_hidden)
    assert not found[:, 3].any()
    least = is_hidden(three(xy, visible), RULES, queries, (SIDE, SIDE), said, min_hidden=0.5)
    assert least.sum() > found.sum()


def test_the_size_of_the_clip_and_the_order_of_teachers_do_not_matter(scene):
    xy, visible, _, _ = scene
    queries = np.column_stack([np.zeros(len(xy)), xy[:, 0]])
    small = is_hidden(three(xy, visible), RULES, queries, (SIDE, SIDE))
    wide = np.array([4.0, 2.0])
    moved = (wide - 1) / 2  # the middle of a pixel is that of four pixels now
    large = {
        name: tracks(each.xy * wide + moved, visible) for name, each in three(xy, visible).items()
    }
    large = dict(reversed(large.items()))
    queries[:, 1:] = queries[:, 1:] * wide + moved
    found = is_hidden(large, RULES, queries, (2 * SIDE, 4 * SIDE))
    assert (found != small).mean() < 0.002


def test_a_failed_teacher_has_no_say_and_none_at_all_calls_nothing_hidden(scene):
    xy, visible, _, _ = scene
    queries = np.column_stack([np.zeros(len(xy)), xy[:, 0]])
    told, rules = three(xy, visible), RULES | {"failed": VisibleRule("v", 0.9)}
    failed = {"failed": Tracks.nan(len(xy), T)}
    with_it = is_hidden(told | failed, rules, queries, (SIDE, SIDE))
    np.testing.assert_array_equal(with_it, is_hidden(told, RULES, queries, (SIDE, SIDE)))
    assert not is_hidden(failed, rules, queries, (SIDE, SIDE)).any()
    assert is_hidden({}, {}, queries[:0], (SIDE, SIDE)).shape == (0, 0)
    none = {"a": Tracks.nan(0, T)}
    assert is_hidden(none, RULES, queries[:0], (SIDE, SIDE)).shape == (0, T)


def test_one_point_alone_is_never_hidden_by_rule():
    xy = np.full((1, T, 2), 50.0)
    seen = np.arange(T)[None] < 4
    found = is_hidden(three(xy, seen), RULES, np.array([[0.0, 50, 50]]), (SIDE, SIDE))
    assert not found.any()


def test_a_stored_label_says_occluded_only_with_evidence():
    """Nobody sees the point in frames 3 to 6; of 3 and 4 the verifier says that it is hidden."""
    sure = TrustConfig().min_hidden
    xy = np.full((1, 10, 2), 50.0)
    sees = np.ones((1, 10), bool)
    sees[0, 3:7] = False
    given = {"a": tracks(xy, sees), "b": tracks(xy, sees)}
    rules = dict.fromkeys(given, VisibleRule("v", 0.5))
    queries = np.float32([[0, 50, 50]])
    labels = label(given, rules, queries, (SIDE, SIDE), AgreementConfig(min_visible_frames=6))
    assert labels.state[0].tolist() == [VISIBLE] * 3 + [OCCLUDED] * 4 + [VISIBLE] * 3
    hidden = np.float32([[0, 0.99, 0, sure, 0.99, sure - 0.01, 0, 0, 0, 0]])
    right = np.zeros((2, 1, 10), np.float32)
    infos = {name: {"visible_rule": "v > 0.5"} for name in given}
    sample = Sample(
        "key",
        b"",
        queries,
        np.array(["sift"]),
        given,
        labels,
        {"height": SIDE, "width": SIDE, "teachers": infos},
        ClipVerdict(("a", "b"), right, hidden, "1"),
    )
    said = proven(sample).labels
    assert said.state[0].tolist() == [VISIBLE] * 3 + [OCCLUDED] * 2 + [DISPUTED] * 2 + [VISIBLE] * 3
    assert said.valid[0].tolist() == [True] * 5 + [False] * 2 + [True] * 3  # the run goes on
    assert said.keep.all()
    assert (proven(proven(sample)).labels.state == said.state).all()
    # without a verdict, one point has no neighbours that could carry it out of sight
    alone = proven(replace(sample, verdict=None)).labels
    assert alone.state[0].tolist() == [VISIBLE] * 3 + [DISPUTED] * 4 + [VISIBLE] * 3


@pytest.mark.parametrize("width", [64, 256, 1024])
@pytest.mark.parametrize("way", [1.0, -1.0])
def test_by_rule_the_frame_ends_at_the_edge_of_its_outer_pixels(width, way):
    """A hundred points that all go the same way, and are lost 3 px before they leave: in clips of
    any width it is the same part of the picture that counts as outside."""
    scale = width / RASTER
    start = np.stack(np.meshgrid(np.arange(60, 200, 15), np.arange(60, 200, 15)), -1).reshape(-1, 2)
    step = np.linspace(0, way * 120, 25)
    raster = start[:, None] + step[:, None] * np.array([1.0, 0.0])  # pixel centres are whole
    beyond = np.maximum(raster[..., 0] - 255.5, -0.5 - raster[..., 0])
    xy = (raster + 0.5) * scale - 0.5
    queries = np.column_stack([np.zeros(len(xy)), xy[:, 0]])
    made = {name: tracks(xy, beyond < -3) for name in "abc"}
    found = is_hidden(made, RULES, queries, (width, width))
    assert not found[beyond < 0.4].any()
    assert found[beyond > 0.6].mean() > 0.3
