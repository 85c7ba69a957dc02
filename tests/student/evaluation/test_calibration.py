"""The visible rule that fits a tracker, on cases where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from student.clip import TestClip
from student.evaluation.calibration import calibrated
from teachers import Tracks, VisibleRule

FRAMES = 41
HEIGHT, WIDTH = 64, 512


def case(visible, off_px, visibility, confidence=np.nan) -> tuple[list[Tracks], list[TestClip]]:
    """One point that stands still, asked for in frame 0; `off_px` px of the raster off."""
    frames = len(visible)
    xy = np.broadcast_to(np.float32([100, 30]), (1, frames, 2)).copy()
    clip = TestClip(
        "clip",
        np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8),
        np.float32([[0, 100, 30]]),
        xy,
        np.array([visible], bool),
    )
    found = xy.copy()
    found[0, :, 0] += np.asarray(off_px) * WIDTH / 256
    full = np.ones((1, frames), np.float32)
    return [Tracks(found, full * visibility, full * confidence)], [clip]


def test_the_rule_parts_what_is_seen_from_what_is_hidden():
    """Truly visible above 0.31, and well tracked there: the published 0.9 hides most of it."""
    value = np.linspace(0, 1, FRAMES)
    tracks, clips = case(value > 0.31, 0, value)
    found = calibrated(tracks, clips, VisibleRule("v", 0.9))
    assert found.changed
    assert 0.3 <= found.rule.threshold < 0.325  # the next higher value
    assert (found.jaccard, found.jaccard_before) == (1, pytest.approx(4 / 28))
    assert str(found).startswith(f"visible where {found.rule}: AJ 100.0 ")


def test_a_point_that_is_lost_is_better_called_hidden_though_it_is_visible():
    """All frames are visible; below 0.61 the tracker is somewhere else. The share of right flags
    would ask for a threshold of 0."""
    value = np.linspace(0, 1, FRAMES)
    tracks, clips = case(np.ones(FRAMES, bool), np.where(value > 0.61, 0, 50), value)
    found = calibrated(tracks, clips, VisibleRule("v", 0.9))
    assert 0.6 <= found.rule.threshold < 0.625


def test_confidence_is_used_where_it_tells_more():
    rng = np.random.default_rng(0)
    visible = rng.random(400) < 0.7
    sure = np.where(visible, 0.8, 0.2)
    tracks, clips = case(visible, 0, rng.uniform(0.8, 1, 400), sure)
    found = calibrated(tracks, clips, VisibleRule("v", 0.9))
    assert found.rule.quantity == "v*c"
    assert found.jaccard == 1


def test_the_published_rule_stays_where_none_is_better():
    value = np.linspace(0, 1, FRAMES)
    tracks, clips = case(value > 0.51, 0, value)
    found = calibrated(tracks, clips, VisibleRule("v", 0.51))
    assert not found.changed
    assert found.rule == VisibleRule("v", 0.51)
    assert "no other rule" in str(found)


def test_a_rule_that_is_better_by_less_than_half_a_point_is_not_taken_but_told():
    """One hidden frame of 301 is called visible by the published rule, and by no rule above 0.6."""
    visible = np.arange(302) > 0
    visible[1] = False
    tracks, clips = case(visible, 0, np.where(visible, 1.0, 0.6))
    found = calibrated(tracks, clips, VisibleRule("v", 0.5))
    assert not found.changed
    assert found.jaccard == pytest.approx(300 / 301)
    assert found.highest == 1


def test_a_tracker_that_knows_no_visibility_keeps_its_rule():
    tracks, clips = case(np.ones(FRAMES, bool), 0, np.nan)
    assert calibrated(tracks, clips, VisibleRule("none")).rule == VisibleRule("none")


def test_the_query_and_frames_without_a_position_are_no_evidence():
    value = np.linspace(0, 1, FRAMES)
    tracks, clips = case(value > 0.31, np.where(value > 0.81, np.nan, 0), value)
    found = calibrated(tracks, clips, VisibleRule("v", 0.31))
    # 20 of the 28 truly visible frames are found, whatever the rule says of the others
    assert found.jaccard == pytest.approx(20 / 28)


def test_a_frame_of_which_nothing_is_known_does_not_count():
    """Below 0.61 it is not known whether the point is visible; taken for hidden, it would ask for a
    threshold there."""
    value = np.linspace(0, 1, FRAMES)
    tracks, clips = case(value > 0.61, 0, value)
    known = [np.broadcast_to(value > 0.61, clips[0].visible.shape)]
    published = VisibleRule("v", 0.3)
    assert calibrated(tracks, clips, published).changed
    found = calibrated(tracks, clips, published, known)
    assert not found.changed
    assert found.jaccard == 1
