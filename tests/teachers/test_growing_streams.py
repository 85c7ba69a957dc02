"""Streams that take and drop points on the way: `lk` and the TAPIRs, whose points do not see each
other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import teachers
from teachers import ConfigError
from teachers.stream import RECENT_FRAMES

GROWING = ("lk", "tapir-mini")
FRAMES = 14
NOISE_PX = 0.02


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """uint8 [T, 96, 128, 3]: a texture that moves by (2, 1) px a frame."""
    noise = np.random.default_rng(3).integers(0, 256, (140, 180, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 2.0)
    noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([noise[t : t + 96, 2 * t : 2 * t + 128] for t in range(FRAMES)])


QUERIES = np.array([[0, 70, 40], [2, 90, 50], [5, 60, 60]], np.float32)


@pytest.fixture(scope="module", params=GROWING)
def teacher(request):
    # one resolution, so that the network is quick
    settings = {"resolutions": ((256, 256),)} if request.param == "tapir-mini" else {}
    return teachers.load(request.param, device="cpu", **settings)


def test_of_the_first_frames_the_stream_says_what_track_says_of_the_last(teacher, frames):
    stream = teacher.stream(QUERIES)
    for t in range(RECENT_FRAMES):
        answer = stream.push(frames[t : t + 1])
        there = QUERIES[:, 0] <= t
        whole = teacher.track(frames[: t + 1], QUERIES[there])
        np.testing.assert_allclose(answer.xy[there, 0], whole.xy[:, t], atol=NOISE_PX)
        np.testing.assert_allclose(answer.visibility[there, 0], whole.visibility[:, t], atol=0.01)
        assert np.isnan(answer.xy[~there]).all()


def test_points_of_a_moving_picture_are_followed(teacher, frames):
    stream = teacher.stream(QUERIES)
    tracks = stream.push(frames)
    assert stream.finish().xy.shape == (len(QUERIES), 0, 2)
    for query, xy in zip(QUERIES, tracks.xy, strict=True):
        t = np.arange(int(query[0]), FRAMES)
        truth = query[1:] - (t - query[0])[:, None] * np.array([2, 1])
        assert np.isnan(xy[: int(query[0])]).all()
        inside = truth.min(1) > 8
        assert np.linalg.norm(xy[t] - truth, axis=1)[inside].max() < 1.5


def test_how_frames_are_grouped_changes_nothing(teacher, frames):
    one, many = teacher.stream(QUERIES), teacher.stream(QUERIES)
    single = np.concatenate([one.push(frame[None]).xy for frame in frames], 1)
    grouped = np.concatenate([many.push(frames[:5]).xy, many.push(frames[5:]).xy], 1)
    np.testing.assert_allclose(single, grouped, atol=1e-4)


@pytest.mark.parametrize("late", [0, 3])
def test_a_point_that_is_added_later_is_followed_as_if_it_had_been_there(teacher, frames, late):
    before, more = QUERIES[:1], np.array([[5, 60, 60], [6, 40, 70]], np.float32)
    known = teacher.stream(np.concatenate([before, more])).push(frames)
    stream = teacher.stream(before)
    stream.push(frames[: 7 + late])  # the frame of the last query has just come, or is 3 ago
    stream.add(more)
    tracks = stream.push(frames[7 + late :])
    np.testing.assert_allclose(tracks.xy, known.xy[:, 7 + late :], atol=NOISE_PX)
    np.testing.assert_allclose(tracks.visibility, known.visibility[:, 7 + late :], atol=0.01)


def test_rows_that_are_kept_go_on_and_others_are_gone(teacher, frames):
    known = teacher.stream(QUERIES).push(frames)
    stream = teacher.stream(QUERIES)
    stream.push(frames[:4])  # the last point has not come yet
    stream.keep(np.array([2, 0]))
    tracks = stream.push(frames[4:])
    np.testing.assert_allclose(tracks.xy, known.xy[[2, 0], 4:], atol=NOISE_PX)
    stream.keep(np.array([], int))
    assert stream.push(frames[:1]).xy.shape == (0, 1, 2)
    stream.add(np.array([[FRAMES, 30, 30]], np.float32))
    assert np.isfinite(stream.push(frames[1:2]).xy).all()


def test_a_point_too_far_back_is_refused(teacher, frames):
    stream = teacher.stream(QUERIES[:1])
    stream.push(frames)
    with pytest.raises(ConfigError, match=f"frame 2 .*the last {RECENT_FRAMES} are held"):
        stream.add(np.array([[2, 30, 30]], np.float32))


def test_what_a_stream_holds_does_not_grow(frames):
    stream = teachers.load("tapir-mini", mode="benchmark").stream(QUERIES[:1])
    for _ in range(2):
        stream.push(frames)
    assert {grid.shape[1] for level in stream._recent for grid in level.grids} == {RECENT_FRAMES}
    assert stream._matched.shape[2] == RECENT_FRAMES
