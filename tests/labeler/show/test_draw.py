"""Drawing: pixels at places that are known by hand."""

import cv2
import numpy as np
import pytest

from labeler.show.draw import (
    TITLE_HEIGHT_PX,
    colour_by,
    draw_tracks,
    enlargement,
    rainbow,
    side_by_side,
)
from teachers import ConfigError

WHITE, RED = np.full((1, 3), 255, np.uint8), np.array([[255, 0, 0]], np.uint8)


def grey(t=1, height=60, width=80, level=100):
    return np.full((t, height, width, 3), level, np.uint8)


def one_point(*places):
    """xy [1, T, 2]"""
    return np.array(places, np.float32)[None]


def draw_frame(frames, t, xy, visible, colours, **how):
    """Frame t alone."""
    return draw_tracks(frames, xy, visible, colours, only=[t], **how)[0]


def drawn(picture, level=100):
    return (picture != level).any(-1)


def centroid(picture):
    """Centre of brightness of a marker on black, px."""
    weight = picture[..., 0].astype(float)
    y, x = np.indices(weight.shape)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_a_visible_point_is_a_disc_of_its_colour():
    picture = draw_frame(grey(), 0, one_point((30, 20)), np.ones((1, 1), bool), RED, scale=1)
    assert picture[20, 30].tolist() == [255, 0, 0]
    assert picture[20, 33].tolist() == [255, 0, 0]
    assert not drawn(picture)[20, 40]


def test_an_occluded_point_is_a_ring_around_the_untouched_frame():
    picture = draw_frame(grey(), 0, one_point((30, 20)), np.zeros((1, 1), bool), RED, scale=1)
    assert picture[20, 30].tolist() == [100, 100, 100]
    assert picture[20, 34].tolist() == picture[16, 30].tolist() == [255, 0, 0]


def test_the_inside_of_a_ring_shows_the_frame_and_not_the_trail():
    xy = one_point(*[(10 + 2 * t, 20) for t in range(11)])
    # its fresh trail lies below the ring
    crossing = one_point(*[(40 - 2 * t, 20) for t in range(11)])
    visible = np.ones((2, 11), bool)
    visible[0, 10] = False
    crossing[0, 10] = np.nan
    picture = draw_frame(
        grey(11), 10, np.concatenate([xy, crossing]), visible, np.repeat(RED, 2, axis=0), scale=1
    )
    assert picture[20, 30].tolist() == [100, 100, 100]
    assert drawn(picture)[20, 22]


def test_frames_in_which_a_point_is_occluded_leave_no_trail():
    xy = one_point((10, 30), (20, 30), (30, 30), (40, 30), (50, 30))
    visible = np.array([[True, True, False, True, True]])
    row = drawn(draw_frame(grey(5), 4, xy, visible, WHITE, scale=1))[30]
    assert row[12:18].all()
    assert not row[23:37].any()
    assert row[41:49].all()


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("place", [(30, 20), (30.5, 20.25), (12.3, 40.8)])
def test_a_marker_lies_at_its_sub_pixel_place(place, scale):
    picture = draw_frame(
        grey(level=0), 0, one_point(place), np.ones((1, 1), bool), WHITE, scale=scale
    )
    expected = (np.array(place) + 0.5) * scale - 0.5  # pixel centres, as cv2.resize has them
    np.testing.assert_allclose(centroid(picture), expected, atol=0.1)


def test_an_enlarged_marker_lies_on_the_enlarged_pixel():
    frames = grey(level=0)
    frames[0, 20, 30] = 255
    bare = draw_frame(frames, 0, one_point((np.nan, np.nan)), np.ones((1, 1), bool), WHITE, scale=3)
    marked = draw_frame(
        grey(level=0), 0, one_point((30, 20)), np.ones((1, 1), bool), WHITE, scale=3
    )
    np.testing.assert_allclose(centroid(marked), centroid(bare), atol=0.1)


def test_a_trail_fades_with_age_and_ends():
    xy = one_point(*[(10 + 3 * t, 30) for t in range(20)])
    picture = draw_frame(
        grey(20, level=0), 19, xy, np.ones((1, 20), bool), WHITE, trail_frames=12, scale=1
    )
    # between the places of frames t - 1 and t
    brightness = [int(picture[30, 10 + 3 * t - 1, 0]) for t in range(8, 18)]
    assert brightness == sorted(brightness)
    assert brightness[0] < 60 < 160 < brightness[-1]
    assert not drawn(picture, 0)[30, : 10 + 3 * 6].any()


def test_no_trail_is_drawn_if_none_is_wanted():
    xy = one_point((10, 30), (60, 30))
    picture = draw_frame(grey(2), 1, xy, np.ones((1, 2), bool), WHITE, trail_frames=0, scale=1)
    assert not drawn(picture)[:, :50].any()


def test_a_point_that_is_not_tracked_is_not_drawn():
    xy = one_point((np.nan, np.nan))
    np.testing.assert_array_equal(
        draw_frame(grey(), 0, xy, np.ones((1, 1), bool), RED, scale=1), grey()[0]
    )


def test_a_trail_breaks_where_the_point_is_not_tracked():
    xy = one_point((10, 30), (20, 30), (np.nan, np.nan), (40, 30), (50, 30))
    row = drawn(draw_frame(grey(5), 4, xy, np.ones((1, 5), bool), WHITE, scale=1))[30]
    assert row[12:18].all()
    assert not row[23:37].any()
    assert row[41:49].all()


def test_a_point_far_outside_the_frame_does_no_harm():
    xy = one_point((1e9, -1e9))
    np.testing.assert_array_equal(
        draw_frame(grey(), 0, xy, np.ones((1, 1), bool), RED, scale=1), grey()[0]
    )


def test_the_query_frame_is_marked_with_a_white_ring():
    xy, visible = one_point((30, 20), (30, 20)), np.ones((1, 2), bool)
    pictures = draw_tracks(
        grey(2), xy, visible, RED, query_frames=np.array([1]), trail_frames=0, scale=1
    )
    assert pictures[1, 20, 36].tolist() == [255, 255, 255]
    assert pictures[0, 20, 36].max() <= 100


def test_every_frame_is_drawn_and_the_input_stays_as_it_was():
    rng = np.random.default_rng(0)
    frames, xy = grey(4), rng.uniform(0, 60, (5, 4, 2)).astype(np.float32)
    frames.setflags(write=False)
    before = xy.copy()
    pictures = draw_tracks(frames, xy, np.ones((5, 4), bool), rainbow(np.ones((5, 3))), scale=2)
    assert pictures.shape == (4, 120, 160, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(xy, before)


def test_no_point_at_all_gives_the_frames():
    pictures = draw_tracks(
        grey(2), np.zeros((0, 2, 2)), np.zeros((0, 2), bool), np.zeros((0, 3), np.uint8), scale=1
    )
    np.testing.assert_array_equal(pictures, grey(2))


@pytest.mark.parametrize(
    ("size", "factor"), [((144, 176), 3), ((64, 64), 4), ((360, 640), 1), ((1080, 1920), 1)]
)
def test_small_frames_are_enlarged(size, factor):
    assert enlargement(*size) == factor


def test_tracks_that_do_not_fit_the_frames_are_refused():
    with pytest.raises(ConfigError, match=r"xy must be \[N, 3, 2\].*they are \(1, 2, 2\)"):
        draw_tracks(grey(3), one_point((1, 1), (2, 2)), np.ones((1, 2), bool), RED)


def test_support_gets_lighter_colours_the_higher_it_is():
    lightness = cv2.cvtColor(colour_by(np.linspace(0, 1, 20))[None], cv2.COLOR_RGB2LAB)[
        0, :, 0
    ].astype(int)
    assert (np.diff(lightness) > 0).all()
    assert colour_by(np.array([np.nan])).tolist() == [[128, 128, 128]]


def test_the_rainbow_goes_from_blue_above_to_red_below():
    top, middle, bottom = rainbow(
        np.array([[0, 5, 0], [0, 9, 50], [3, 1, 100]], np.float32)
    ).astype(int)
    assert top.argmax() == 2
    assert middle.argmax() == 1
    assert bottom.argmax() == 0
    assert rainbow(np.zeros((0, 3))).shape == (0, 3)


def test_panels_stand_beside_each_other_below_their_titles():
    both = side_by_side(
        [("before", grey(2, width=80, level=0)), ("after", grey(2, width=60, level=200))]
    )
    assert both.shape == (2, TITLE_HEIGHT_PX + 60, 140, 3)
    assert (both[:, TITLE_HEIGHT_PX:, :80] == 0).all()
    assert (both[:, TITLE_HEIGHT_PX:, 80:] == 200).all()
    assert both[:, :TITLE_HEIGHT_PX, :80].max() > 150
    assert both[:, :TITLE_HEIGHT_PX, 80:].max() > 150


def test_panels_of_different_length_are_refused():
    with pytest.raises(
        ConfigError, match=r"one length and one height.*'a' \(2, 60, 80, 3\), 'b' \(3, 60, 80, 3\)"
    ):
        side_by_side([("a", grey(2)), ("b", grey(3))])
