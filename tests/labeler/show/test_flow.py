"""The picture of a dense flow."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.show.flow import HIDDEN, SHOWN, draw_flow, flow_colours
from teachers import ConfigError


def test_direction_is_the_hue_and_length_the_depth_of_a_colour():
    flow = np.array([[0, 0], [4, 0], [2, 0], [9, 0], [-4, 0]], np.float32)
    white, red, pale, longer, cyan = flow_colours(flow, full=4).tolist()
    assert (white, red, cyan) == ([255, 255, 255], [255, 0, 0], [0, 255, 255])
    assert pale == [255, 128, 128]
    assert longer == red


def test_frames_from_the_first_to_the_last_stand_above_the_flow_to_them():
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), np.uint8)
    flow = np.zeros((20, 8, 12, 2), np.float32)
    visible = np.ones((20, 8, 12), bool)
    visible[19, 3, 5] = False
    picture = draw_flow(frames, flow, visible)
    assert picture.shape == (16, SHOWN * 12, 3)
    np.testing.assert_array_equal(picture[:8, :12], frames[0])
    np.testing.assert_array_equal(picture[:8, -12:], frames[19])
    below = picture[8:, -12:]
    assert below[3, 5].tolist() == [int(255 * HIDDEN)] * 3
    assert (below == 255).all(-1).sum() == 8 * 12 - 1


def test_wide_frames_are_made_smaller():
    frames, flow = np.zeros((1, 100, 960, 3), np.uint8), np.zeros((1, 100, 960, 2))
    picture = draw_flow(frames, flow, np.ones((1, 100, 960), bool))
    assert picture.shape == (100, 480, 3)


def test_flow_that_does_not_fit_is_refused():
    frames, flow = np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 8, 2))
    with pytest.raises(ConfigError, match=r"frames \(2, 8, 9, 3\), it must be \(2, 8, 9, 2\)"):
        draw_flow(frames, flow, np.ones((2, 8, 9), bool))
