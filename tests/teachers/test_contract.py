"""The contract: what every teacher that can be named keeps, whatever tracker is behind it.

A new teacher is tested by being listed, and so is the one of docs/add-a-teacher.md. One that needs
weights is tested without training (`checkpoint="random"`, `preset="mini"`): what only a tracker
that works, or one whose queries don't see each other, can keep is asked of those without weights.
Clips are drawn from plane waves at moved coordinates, so that motion is exact.

`TAPDISTILL_CONTRACT=module:Class` asks all of it of that teacher alone, made from the file in
`TAPDISTILL_CONTRACT_CHECKPOINT`.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import teachers
from teachers.info import MODES
from teachers.interface import checked_name
from tests.support.slow import fast_where
from tests.support.waves import translating

NOISE_PX = 0.01
"""Tracks that should be equal may differ by what float32 sums in another order differ by."""

VELOCITY = (1.3, -0.7)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """uint8 [8, 96, 128, 3]: a texture that moves by VELOCITY px a frame."""
    return translating(frames=8, height=96, width=128, velocity=VELOCITY)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    """[12, 3]: at every frame, at whole pixels and between them, away from the border."""
    places = [
        (t, 30 + 6.25 * i, 28 + 3.5 * i) for i, t in enumerate([0, 3, 7, 5, 0, 2, 7, 1, 4, 6, 3, 0])
    ]
    return np.array(places, np.float32)


DOCUMENTED = "tests.support.own_teacher:FarnebackTeacher"
ENTRIES = {entry.name: entry for entry in teachers.entries()}
NAMED = os.environ.get("TAPDISTILL_CONTRACT")
NAMES = [NAMED] if NAMED else [*ENTRIES, DOCUMENTED]
CHECKPOINT = os.environ.get("TAPDISTILL_CONTRACT_CHECKPOINT")
"""Of the teacher that is named."""


def works(name: str) -> bool:
    """Whether it tracks: it needs no weights, or has them."""
    return (
        CHECKPOINT != "random"
        if NAMED
        else name == DOCUMENTED or ENTRIES[name].weights == "none needed"
    )


WORKING = [name for name in NAMES if works(name)]
EVERY_TEACHER = fast_where(WORKING.__contains__, NAMES)


def load(name: str) -> teachers.Teacher:
    untrained = (
        {"checkpoint": "random", "preset": "mini"} if name in ENTRIES and ENTRIES[name].file else {}
    )
    given = {"checkpoint": CHECKPOINT} if NAMED else untrained
    return teachers.load(name, device="cpu", mode="label", **given)


@pytest.fixture(params=EVERY_TEACHER, scope="module")
def teacher(request: pytest.FixtureRequest) -> teachers.Teacher:
    return load(request.param)


@pytest.fixture(params=WORKING, scope="module")
def working_teacher(request: pytest.FixtureRequest) -> teachers.Teacher:
    return load(request.param)


def same(a: teachers.Tracks, b: teachers.Tracks, atol: float = NOISE_PX) -> None:
    np.testing.assert_allclose(a.xy, b.xy, atol=atol)
    np.testing.assert_allclose(a.visibility, b.visibility, atol=atol)
    np.testing.assert_allclose(a.confidence, b.confidence, atol=atol)


def test_tracks_have_a_row_a_query_and_a_column_a_frame(teacher, frames, queries):
    tracks = teacher.track(frames, queries)
    assert tracks.xy.shape == (12, 8, 2)
    assert tracks.visibility.shape == tracks.confidence.shape == (12, 8)
    assert tracks.xy.dtype == tracks.visibility.dtype == tracks.confidence.dtype == np.float32


def test_probabilities_lie_between_0_and_1_or_are_nan(teacher, frames, queries):
    tracks = teacher.track(frames, queries)
    for value in (tracks.visibility, tracks.confidence):
        assert np.all(np.isnan(value) | ((value >= 0) & (value <= 1)))


def test_the_track_goes_through_its_query(teacher, frames, queries):
    tracks = teacher.track(frames, queries)
    at_query = np.arange(12), queries[:, 0].astype(int)
    np.testing.assert_array_equal(tracks.xy[at_query], queries[:, 1:])


def test_a_moving_texture_is_followed_forwards_and_backwards(working_teacher, frames, queries):
    tracks = working_teacher.track(frames, queries)
    truth = queries[:, None, 1:] + (np.arange(8) - queries[:, :1])[..., None] * np.array(VELOCITY)
    tracked = np.isfinite(tracks.xy).all(-1)
    assert tracked[np.arange(8) >= queries[:, :1]].all()
    assert np.linalg.norm(tracks.xy - truth, axis=-1)[tracked].max() < 0.5
    assert teachers.VisibleRule.parse(working_teacher.info.visible_rule)(tracks)[tracked].all()


def test_the_order_of_queries_does_not_matter(teacher, frames, queries):
    there, back = teacher.track(frames, queries), teacher.track(frames, queries[::-1])
    same(there, teachers.Tracks(back.xy[::-1], back.visibility[::-1], back.confidence[::-1]))


def test_a_query_does_not_depend_on_the_others(working_teacher, frames, queries):
    whole, part = (
        working_teacher.track(frames, queries),
        working_teacher.track(frames, queries[3:5]),
    )
    same(teachers.Tracks(whole.xy[3:5], whole.visibility[3:5], whole.confidence[3:5]), part)


def test_the_same_call_gives_the_same_bytes(teacher, frames, queries):
    first, second = teacher.track(frames, queries, seed=5), teacher.track(frames, queries, seed=5)
    np.testing.assert_array_equal(first.xy, second.xy)
    np.testing.assert_array_equal(first.visibility, second.visibility)


def test_a_clip_shown_backwards_is_tracked_backwards(working_teacher, frames, queries):
    reversed_queries = queries * [-1, 1, 1] + [7, 0, 0]
    there, back = (
        working_teacher.track(frames, queries),
        working_teacher.track(frames[::-1], reversed_queries),
    )
    both = np.isfinite(there.xy).all(-1) & np.isfinite(back.xy[:, ::-1]).all(-1)
    np.testing.assert_allclose(there.xy[both], back.xy[:, ::-1][both], atol=0.25)


def test_read_only_input_is_accepted_and_no_input_is_changed(teacher, frames, queries):
    frames, queries = frames.copy(), queries.copy()
    before = frames.copy(), queries.copy()
    writable = teacher.track(frames, queries)
    np.testing.assert_array_equal(frames, before[0])
    np.testing.assert_array_equal(queries, before[1])
    frames.flags.writeable = queries.flags.writeable = False
    same(teacher.track(frames, queries), writable, atol=0)


def test_a_view_of_a_larger_array_is_tracked_like_its_copy(working_teacher, frames, queries):
    wide = np.repeat(frames[..., ::-1], 2, axis=2)
    view = wide[:, :, ::2, ::-1]
    assert not view.flags.c_contiguous
    same(working_teacher.track(view, queries), working_teacher.track(frames, queries), atol=0)


def test_no_query_gives_no_track(teacher, frames):
    tracks = teacher.track(frames, np.zeros((0, 3)))
    assert tracks.xy.shape == (0, 8, 2)
    assert tracks.visibility.shape == (0, 8)


def test_a_single_frame_gives_the_queries_back(teacher, frames):
    tracks = teacher.track(frames[:1], np.array([[0, 10.5, 20.25]]))
    np.testing.assert_array_equal(tracks.xy, [[[10.5, 20.25]]])


@pytest.mark.parametrize("size", [(17, 23), (8, 5), (1, 1)])
def test_a_tiny_clip_is_tracked(teacher, size):
    height, width = size
    frames = translating(frames=4, height=height, width=width, velocity=(0.5, 0.25))
    corners = np.array(
        [[0, -0.5, -0.5], [2, width - 0.5, height - 0.5], [3, width // 2, height // 2]]
    )
    tracks = teacher.track(frames, corners)
    np.testing.assert_array_equal(tracks.xy[np.arange(3), [0, 2, 3]], corners[:, 1:])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 16, 16, 3), np.float32),
        np.full((2, 16, 16, 3), np.nan),
        np.zeros((2, 16, 16), np.uint8),
        np.zeros((2, 3, 16, 16), np.uint8),
    ],
    ids=["float", "nan", "grey", "channels first"],
)
def test_frames_that_are_not_rgb_bytes_are_refused(teacher, wrong):
    with pytest.raises(
        teachers.ConfigError, match=r"frames must be a uint8 array \[T, H, W, 3\] in RGB, not"
    ):
        teacher.track(wrong, np.array([[0, 1, 1]]))


def test_a_clip_without_frames_is_refused(teacher):
    with pytest.raises(teachers.ConfigError, match="are empty: at least one frame"):
        teacher.track(np.zeros((0, 16, 16, 3), np.uint8), np.array([[0, 1, 1]]))


@pytest.mark.parametrize(
    "wrong",
    [
        (8, 1, 1),
        (-1, 1, 1),
        (0.5, 1, 1),
        (0, 127.6, 1),
        (0, 1, -0.6),
        (0, np.nan, 1),
        (np.inf, 1, 1),
    ],
    ids=[
        "after the clip",
        "before the clip",
        "between frames",
        "right of the frame",
        "above the frame",
        "nan",
        "inf",
    ],
)
def test_a_query_outside_the_clip_or_the_frame_is_refused(teacher, frames, wrong):
    with pytest.raises(
        teachers.ConfigError,
        match=(
            r"query 1 is \(t, x, y\) = .*: t must be a whole number in 0\.\.7, x in "
            r"-0\.5\.\.127\.5"
        ),
    ):
        teacher.track(frames, np.array([(0, 1, 1), wrong]))


def test_its_name_can_be_a_member_of_a_shard(teacher):
    assert checked_name(teacher.info.name) == teacher.info.name


def test_its_info_is_complete_and_survives_json(teacher):
    info = teacher.info
    assert info.architecture
    assert info.licence
    assert info.mode in MODES
    stored = json.dumps(info.to_json(), allow_nan=False)
    assert json.dumps(json.loads(stored)) == stored


def test_its_visible_rule_is_read_back_as_written(teacher):
    assert str(teachers.VisibleRule.parse(teacher.info.visible_rule)) == teacher.info.visible_rule


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_it_does_not_have_is_refused(name):
    with pytest.raises(teachers.ConfigError, match=f"teacher '{name}': .*no_such_setting"):
        teachers.load(name, no_such_setting=1)


@pytest.mark.parametrize("threshold", [0.5, 0.1234567, 1e-05, 0.99999999, 0.0, 1.0])
def test_a_visible_rule_is_read_as_it_was_written(threshold):
    rule = teachers.VisibleRule("v*c", threshold)
    assert teachers.VisibleRule.parse(str(rule)) == rule


@pytest.mark.parametrize("text", ["v > 0.9.1", "v > .", "v > nan", "v > -1", "v >= 0.5", "c > 0.5"])
def test_what_is_no_visible_rule_is_refused(text):
    with pytest.raises(teachers.ConfigError, match="is not a visible rule"):
        teachers.VisibleRule.parse(text)
