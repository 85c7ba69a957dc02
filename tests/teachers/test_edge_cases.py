"""Edge cases: what every teacher answers, or refuses, at the borders of what it can be asked. Never
a silent wrong answer.

Learnt teachers run with random weights and their mini networks: places then mean nothing, but
whether there are any does.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

import teachers
from teachers.info import MODES
from teachers.tracks import checked_answer
from tests.support.slow import fast_where
from tests.support.waves import translating

NOISE_PX = 0.02
"""Float32 noise, which the iterations of untrained weights enlarge: 0.007 px in PIPs++."""

ENTRIES = {
    entry.name: entry for entry in teachers.entries() if not entry.name.endswith("-baseline")
}
"""The baselines are the same classes with other weights."""


def teacher_class(name: str) -> type:
    module, _, attribute = ENTRIES[name].factory.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load(name: str, mode: str = "label") -> teachers.Teacher:
    settings = {"preset": "mini"} if hasattr(teacher_class(name), "presets") else {}
    if ENTRIES[name].weights != "none needed":
        settings["checkpoint"] = "random"
    return teachers.load(name, device="cpu", mode=mode, **settings)


FIRST_OF_CLASS = {teacher_class(name): name for name in reversed(ENTRIES)}.values()
"""As mini networks, which all are here, others of the class differ in little."""
ALL = fast_where(lambda name: name in FIRST_OF_CLASS, ENTRIES)


@pytest.fixture(params=ALL, scope="module")
def teacher(request: pytest.FixtureRequest) -> teachers.Teacher:
    """In mode `label`, where every frame is answered and every track goes through its query."""
    return load(request.param)


def clip(frames: int, height: int, width: int) -> np.ndarray:
    return translating(frames=frames, height=height, width=width, velocity=(0.5, 0.25))


def corners(frames: int, height: int, width: int) -> np.ndarray:
    """[3, 3]: the first and the last corner, in the first and the last frame, and a place
    between."""
    return np.array(
        [
            [0, -0.5, -0.5],
            [frames - 1, width - 0.5, height - 0.5],
            [frames // 2, width // 2, height // 2],
        ]
    )


def answered(tracks: teachers.Tracks, queries: np.ndarray) -> bool:
    """Every frame has a place, and each query's frame that of the query."""
    at_query = tracks.xy[np.arange(len(queries)), queries[:, 0].astype(int)]
    return bool(
        np.isfinite(tracks.xy).all() and (at_query == queries[:, 1:].astype(np.float32)).all()
    )


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (16, 600)], ids=["17 x 23", "1 x 1", "wide"])
def test_small_and_long_frames_are_tracked(teacher, size):
    queries = corners(3, *size)
    assert answered(teacher.track(clip(3, *size), queries), queries)


def test_a_clip_of_one_frame_gives_the_queries_back(teacher):
    queries = corners(1, 20, 30)
    assert answered(teacher.track(clip(1, 20, 30), queries), queries)


def test_no_query_gives_no_track(teacher):
    tracks = teacher.track(clip(3, 20, 30), np.zeros((0, 3)))
    assert (tracks.xy.shape, tracks.visibility.shape, tracks.confidence.shape) == (
        (0, 3, 2),
        (0, 3),
        (0, 3),
    )


def test_black_frames_are_tracked(teacher):
    queries = corners(3, 20, 30)
    assert answered(teacher.track(np.zeros((3, 20, 30, 3), np.uint8), queries), queries)


def test_a_query_given_twice_is_answered_twice_alike(teacher):
    queries = np.repeat(corners(3, 20, 30), 2, 0)
    tracks = teacher.track(clip(3, 20, 30), queries)
    for value in (tracks.xy, tracks.visibility, tracks.confidence):
        np.testing.assert_allclose(value[::2], value[1::2], atol=NOISE_PX)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    fast_where(lambda name: name in FIRST_OF_CLASS and not name.startswith("alltracker"), ENTRIES),
)
def test_in_every_mode_the_frames_from_the_query_on_are_answered(name, mode):
    queries = corners(3, 17, 23)
    tracks = load(name, mode).track(clip(3, 17, 23), queries)
    assert np.isfinite(tracks.xy[np.arange(3) >= queries[:, :1]]).all()


@pytest.mark.parametrize(
    "name", fast_where(lambda name: ENTRIES[name].weights == "none needed", ENTRIES)
)
def test_five_thousand_queries_are_tracked(name):
    rng = np.random.default_rng(0)
    queries = np.stack(
        [rng.integers(2, size=5000), rng.uniform(0, 31, 5000), rng.uniform(0, 31, 5000)], 1
    )
    assert answered(load(name).track(clip(2, 32, 32), queries), queries)


@pytest.mark.parametrize(
    "frames",
    [clip(2, 16, 16).astype(np.float32), np.full((2, 16, 16, 3), np.nan)],
    ids=["float", "NaN"],
)
def test_frames_that_are_no_bytes_are_refused(teacher, frames):
    with pytest.raises(teachers.ConfigError, match=r"frames must be a uint8 array .* not float"):
        teacher.track(frames, np.array([[0, 1, 1]]))


@pytest.mark.parametrize(
    "wrong",
    [(2, 1, 1), (0, 15.6, 1), (0, np.nan, 1)],
    ids=["after the clip", "beside the frame", "NaN"],
)
def test_a_query_outside_is_refused_by_its_number(teacher, wrong):
    with pytest.raises(teachers.ConfigError, match=r"query 1 is \(t, x, y\)"):
        teacher.track(clip(2, 16, 16), np.array([(0, 1, 1), wrong]))


@pytest.mark.parametrize("mode", ["label", "predictor"])
@pytest.mark.parametrize(
    "name",
    fast_where(
        lambda name: name in FIRST_OF_CLASS,
        (name for name in ENTRIES if ENTRIES[name].weights != "none needed"),
    ),
)
def test_a_network_with_broken_weights_is_found_out(name, mode):
    teacher = load(name, mode)
    with torch.no_grad():
        next(teacher.model.parameters()).fill_(torch.nan)
    with pytest.raises(
        teachers.TeacherError,
        match=f"the network of teacher '{name}' computed NaN or infinity for .* weights are broken",
    ):
        teacher.track(clip(2, 17, 23), corners(2, 17, 23))


# --- whatever the teacher: an answer that cannot be right is not passed on


def good() -> teachers.Tracks:
    return teachers.Tracks(np.zeros((2, 3, 2)), np.full((2, 3), 0.5), np.full((2, 3), np.nan))


def test_a_right_answer_passes_as_float32():
    tracks = checked_answer(good(), 2, 3, "mine")
    assert {value.dtype for value in vars(tracks).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("field", "at", "value", "message"),
    [
        ("xy", (1, 2), np.nan, "visibility of a point without a position, to query 1 in frame 2"),
        (
            "xy",
            (1, 2, 0),
            np.nan,
            "position that is infinite, or NaN in one of x and y, to query 1 in frame 2",
        ),
        ("xy", (0, 1, 1), np.inf, "position that is infinite"),
        ("visibility", (1, 0), 1.5, "visibility outside 0..1, to query 1 in frame 0"),
        ("confidence", (1, 0), -0.5, "confidence outside 0..1"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(field, at, value, message):
    tracks = good()
    getattr(tracks, field)[at] = value
    with pytest.raises(teachers.TeacherError, match=f"teacher 'mine' gave a {message}"):
        checked_answer(tracks, 2, 3, "mine")


def test_an_answer_of_another_shape_is_refused():
    with pytest.raises(
        teachers.TeacherError, match=r"teacher 'mine' returned xy .* for 2 queries in 4 frames"
    ):
        checked_answer(good(), 2, 4, "mine")
