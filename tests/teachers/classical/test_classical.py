"""The teachers without weights on motion that is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

import teachers
from tests.support.waves import grid, texture, to_bytes, translating, turning

CLASSICAL = ("lk", "flow", "match")


def seen(teacher: teachers.Teacher, tracks: teachers.Tracks) -> np.ndarray:
    return teachers.VisibleRule.parse(teacher.info.visible_rule)(tracks)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("velocity", [(0.3, 0.15), (-2.6, 1.9), (5.5, -0.25)])
def test_sub_pixel_translation_is_followed(name, velocity):
    frames = translating(frames=8, height=128, width=160, velocity=velocity)
    queries = np.array([(4, x, y) for x in (60.0, 80.25, 95.5) for y in (50.0, 65.75)])
    tracks = teachers.load(name).track(frames, queries)
    truth = queries[:, None, 1:] + (np.arange(8) - 4)[:, None] * np.array(velocity)
    assert np.abs(tracks.xy - truth).max() < 0.25


# flow drifts by 0.1 px a frame
@pytest.mark.parametrize(("name", "limit_px"), [("lk", 0.25), ("match", 0.25), ("flow", 1.5)])
def test_slow_turning_and_growing_is_followed(name, limit_px):
    frames, maps = turning(frames=12, side=128, radians=np.deg2rad(3), growth=1.015)
    offsets = np.array([(20.0, 5), (-15.5, 18), (8, -24.25), (-25, -10)])
    tracks = teachers.load(name).track(frames, np.insert(offsets + 63.5, 0, 0, axis=1))
    truth = np.einsum("tij,nj->nti", maps, offsets) + 63.5
    assert np.linalg.norm(tracks.xy - truth, axis=-1).max() < limit_px


@pytest.fixture(scope="module")
def bar_passes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A still texture that a bar 40 px wide crosses: frames uint8 [36, 96, 160, 3], 25 queries at
    frame 0, and bool [25, 36]: which are covered by 8 px or more."""
    places = grid(96, 160)
    back = texture(places)
    left = -52.0 + 6 * np.arange(36)
    on_bar = [(places[..., :1] >= x) & (places[..., :1] < x + 40) for x in left]
    frames = [
        np.where(bar, texture(places - [x, 0], seed=1), back)
        for bar, x in zip(on_bar, left, strict=True)
    ]
    queries = np.array([(0, x, y) for x in (60, 70, 80, 90, 100) for y in (20, 30, 48, 60, 75)])
    return to_bytes(np.stack(frames)), queries, np.abs(left + 20 - queries[:, 1:2]) <= 12


# smooth flow carries a few points along
@pytest.mark.parametrize(("name", "limit"), [("lk", 0), ("match", 0), ("flow", 0.1)])
def test_a_point_behind_a_bar_is_not_visible(name, limit, bar_passes):
    frames, queries, covered = bar_passes
    teacher = teachers.load(name)
    assert seen(teacher, teacher.track(frames, queries))[covered].mean() <= limit


# lk looks only where the point has coasted to
@pytest.mark.parametrize(("name", "least"), [("match", 1), ("lk", 0.5)])
def test_points_are_found_again_behind_the_bar(name, least, bar_passes):
    frames, queries, _ = bar_passes
    teacher = teachers.load(name)
    tracks = teacher.track(frames, queries)
    again = seen(teacher, tracks)[:, -4:].all(1)
    assert again.mean() >= least
    assert np.abs(tracks.xy[again, -4:] - queries[again, None, 1:]).max() < 0.25


def test_matching_finds_a_point_that_comes_back_elsewhere():
    texture_then_grey_then_moved = translating(frames=12, height=128, width=160, velocity=(3, 1))
    texture_then_grey_then_moved[3:9] = 127
    teacher = teachers.load("match")
    tracks = teacher.track(texture_then_grey_then_moved, np.array([(0, 60, 50)]))
    np.testing.assert_array_equal(seen(teacher, tracks)[0], [True] * 3 + [False] * 6 + [True] * 3)
    np.testing.assert_allclose(tracks.xy[0], [(60 + 3 * t, 50 + t) for t in range(12)], atol=0.25)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_point_that_leaves_the_frame_is_not_visible_there(name):
    frames = translating(frames=10, height=96, width=128, velocity=(4, 0))
    teacher = teachers.load(name)
    tracks = teacher.track(frames, np.array([(0, 110, 48)]))
    assert not seen(teacher, tracks)[0, 6:].any()
    assert np.isfinite(tracks.xy).all()


@pytest.mark.parametrize("name", ["lk", "match"])
def test_nothing_is_visible_where_there_is_no_texture(name):
    frames = np.full((5, 48, 64, 3), 90, np.uint8)
    tracks = teachers.load(name).track(frames, np.array([(1, 20, 20), (4, 50, 30)]))
    off_query = np.arange(5) != [[1], [4]]
    assert tracks.visibility[off_query].max() < 0.1


def test_flow_keeps_points_where_they_are_where_there_is_no_texture():
    tracks = teachers.load("flow").track(
        np.full((5, 48, 64, 3), 90, np.uint8), np.array([(1, 20, 20)])
    )
    np.testing.assert_allclose(tracks.xy, np.broadcast_to([20, 20], (1, 5, 2)), atol=0.01)


@pytest.mark.parametrize("name", CLASSICAL)
def test_every_mode_covers_every_frame_alike(name):
    frames = translating(frames=5, height=64, width=64, velocity=(1, 0.5))
    queries = np.array([(0, 30, 30), (4, 40, 25.5)])
    usual = teachers.load(name).track(frames, queries)
    assert np.isfinite(usual.xy).all()
    assert np.isfinite(usual.visibility).all()
    for mode in ("label", "recipe", "benchmark"):
        np.testing.assert_array_equal(
            teachers.load(name, mode=mode).track(frames, queries).xy, usual.xy
        )


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_checkpoint_is_refused(name):
    with pytest.raises(
        teachers.ConfigError,
        match=rf"x\.pt: teacher '{name}' .* has no weights: leave `checkpoint` out",
    ):
        teachers.load(name, checkpoint="x.pt")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lk", {"window_px": 2}, "window_px = 2: must be at least 3"),
        ("lk", {"similar": 1.0}, "similar = 1.0: must be in"),
        ("flow", {"patch_stride_px": 0}, "patch_stride_px = 0: must be a whole number, at least 1"),
        ("flow", {"error_share": 0}, "error_share = 0: must be above 0"),
        ("lk", {"iterations": 2.5}, "iterations = 2.5: must be a whole number"),
        ("lk", {"levels": "x"}, "levels = x: must be a whole number"),
        ("lk", {"similar": "x"}, "similar = x: must be above 0"),
        ("match", {"similar": 1.5}, "similar = 1.5: must be in"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(name, settings, message):
    with pytest.raises(teachers.ConfigError, match=message):
        teachers.load(name, **settings)


@pytest.mark.parametrize("name", CLASSICAL)
def test_settings_are_recorded_defaults_included(name):
    one, other = (
        teachers.load(name).info.settings,
        teachers.load(name, **{"lk": {"levels": 2}}.get(name, {})).info.settings,
    )
    assert one
    assert one.keys() == other.keys()
    assert (one != other) == (name == "lk")
