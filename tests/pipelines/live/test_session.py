"""The live session: points that come and go, trackers that answer late, agreement, what is kept."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

import teachers
from pipelines.live.recent import Recent, save_overlay, save_tracks_of
from pipelines.live.session import MOST_POINTS, MOST_WAITING, Session
from teachers import ConfigError, Stream, Teacher, TeacherInfo, Tracks, TransientError

MOVE = np.array([2, 1])
LATE = 5


class Late(Teacher):
    """Knows how the texture moves, is `off` px wrong in x, and answers `LATE` frames late. Its
    streams do not grow."""

    streams = True
    evidence = "late"

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.info = TeacherInfo(
            name="late", architecture="late", mode="predictor", visible_rule="v > 0.5"
        )

    def _track(self, frames, queries, seed):
        raise NotImplementedError

    def stream(self, queries):
        return LateStream(queries, self)


class LateStream(Stream):
    def __init__(self, queries, teacher):
        super().__init__(queries, teacher)
        self.off, self.answered = teacher.off, 0

    def _to(self, end):
        t = np.arange(self.answered, end)
        self.answered = end
        since = t - self._queries[:, :1]
        xy = self._queries[:, None, 1:] - since[..., None] * MOVE + np.array([self.off, 0])
        return Tracks(xy.astype(np.float32), np.ones_like(since), np.full_like(since, np.nan))

    def _advance(self, frames):
        return self._to(max(self.answered, self._frames + len(frames) - LATE))

    def _rest(self):
        return self._to(self._frames)


def session_of(**trackers) -> Session:
    return Session((96, 128), trackers, fps=10)


def pushed(session, frames) -> list:
    return [answer for frame in frames for answer in session.push(frame, b"jpeg")]


def place(answer, title, point) -> np.ndarray:
    (row,) = np.flatnonzero(answer.positions[title].ids == point)
    return answer.positions[title].xy[row]


def test_a_click_on_a_picture_that_is_old_by_now_is_meant_for_that_picture(moving):
    session = session_of(lk=teachers.load("lk"))
    assert [answer.frame for answer in pushed(session, moving[:8])] == list(range(8))
    session.add(4, [[90, 60]])
    for answer in pushed(session, moving[8:14]):
        truth = np.array([90, 60]) - (answer.frame - 4) * MOVE
        np.testing.assert_allclose(place(answer, "lk", 0), truth, atol=0.5)


def test_points_come_and_go_while_it_runs(moving):
    session = session_of(lk=teachers.load("lk"))
    pushed(session, moving[:2])
    session.add(1, [[90, 60], [70, 50]])
    pushed(session, moving[2:4])
    session.add(3, [[60, 70]])
    session.remove([0, 77])  # there is no point 77
    (answer,) = pushed(session, moving[4:5])
    assert answer.positions["lk"].ids.tolist() == [1, 2]
    assert set(session.points) == {1, 2}
    np.testing.assert_allclose(place(answer, "lk", 1), [64, 47], atol=0.5)
    np.testing.assert_allclose(place(answer, "lk", 2), [58, 69], atol=0.5)
    session.remove([1, 2])
    (answer,) = pushed(session, moving[5:6])
    assert answer.positions["lk"].ids.tolist() == []


def test_a_late_tracker_delays_answers_and_loses_none(moving):
    session = session_of(lk=teachers.load("lk"), late=Late())
    first = pushed(session, moving[:3])
    assert [answer.frame for answer in first] == [0, 1, 2]  # no point yet
    session.add(2, [[90, 60]])
    answers = pushed(session, moving[3:20])
    assert [answer.frame for answer in answers] == list(range(3, 20 - LATE))
    assert [answer.frame for answer in session.finish()] == list(range(20 - LATE, 20))
    for answer in answers:
        truth = np.array([90, 60]) - (answer.frame - 2) * MOVE
        np.testing.assert_allclose(place(answer, "late", 0), truth, atol=1e-4)
        np.testing.assert_allclose(place(answer, "lk", 0), truth, atol=0.5)


def test_points_put_later_join_a_tracker_whose_streams_do_not_grow(moving):
    session = session_of(late=Late())
    pushed(session, moving[:4])
    session.add(3, [[90, 60]])
    pushed(session, moving[4:12])
    session.add(9, [[50, 40], [60, 50]])
    answer = pushed(session, moving[12:30])[-1]
    assert answer.positions["late"].ids.tolist() == [0, 1, 2]
    np.testing.assert_allclose(
        place(answer, "late", 2), np.array([60, 50]) - (answer.frame - 9) * MOVE, atol=1e-4
    )
    session.add(29, [[1, 1]])
    session.add(29, [[2, 1]])
    with pytest.raises(ConfigError, match="has 4 such groups: remove points first"):
        session.add(29, [[3, 1]])


class Mute(Late):
    """Never answers."""

    def stream(self, queries):
        stream = super().stream(queries)
        stream._advance = lambda frames: Tracks.nan(1, 0)
        return stream


def test_a_tracker_that_never_answers_holds_up_so_many_frames_and_no_more(moving):
    session = session_of(mute=Mute())
    session.push(moving[0], b"")
    session.add(0, [[90, 60]])
    answers = [session.push(moving[0], b"") for _ in range(MOST_WAITING + 10)]
    assert sum(map(bool, answers)) == 10
    assert all(len(answer.positions["mute"].ids) == 0 for each in answers for answer in each)


@pytest.mark.parametrize(("off", "support"), [(1.0, 1.0), (20.0, 0.5)])
def test_what_trackers_agree_on(moving, off, support):
    # 1 px of 128 is 2 of the 256 raster, the threshold; 20 px are far above it
    session = session_of(exact=Late(), off=Late(off))
    session._trackers["off"].teacher.info = TeacherInfo(
        name="off", architecture="o", mode="predictor", visible_rule="v > 0.5", evidence="another"
    )
    pushed(session, moving[:1])
    session.add(0, [[90, 60]])
    answer = pushed(session, moving[1:10])[-1]
    agreed = answer.agreed
    assert (agreed.ids.tolist(), agreed.support.tolist(), agreed.state.tolist()) == (
        [0],
        [support],
        [1],
    )
    np.testing.assert_allclose(agreed.xy[0], place(answer, "exact", 0))
    told = json.loads(json.dumps(answer.to_json()))
    x, y = np.array([90, 60]) - answer.frame * MOVE
    assert told["tracks"]["exact"] == [[0, x, y, 1]]
    assert told["agreement"] == [[0, x, y, support, 1]]


def test_another_tracker_takes_over_where_points_were_seen_last(moving):
    session = session_of(lk=teachers.load("lk"))
    pushed(session, moving[:2])
    session.add(1, [[90, 60]])
    pushed(session, moving[2:10])
    session.change_trackers({"late": Late()})
    answer = pushed(session, moving[10:20])[-1]
    assert list(answer.positions) == ["late"]
    truth = np.array([90, 60]) - (answer.frame - 1) * MOVE
    np.testing.assert_allclose(place(answer, "late", 0), truth, atol=0.5)


def test_what_cannot_be_put_is_refused_and_changes_nothing(moving):
    session = session_of(lk=teachers.load("lk"))
    with pytest.raises(ConfigError, match="no frame yet"):
        session.add(0, [[1, 1]])
    pushed(session, moving[:1])
    for points, why in (
        ([[200, 10]], "200"),
        ([[float("nan"), 1]], "nan"),
        ([[1, 1]] * (MOST_POINTS + 1), f"at most {MOST_POINTS} points"),
    ):
        with pytest.raises(ConfigError, match=why):
            session.add(0, points)
    assert session.points == {}
    with pytest.raises(ConfigError, match=r"64 x 96 px in a session of 128 x 96 px"):
        session.push(moving[0, :, :64], b"")


class Moody(Late):
    """Refuses its first stream."""

    refused = False

    def stream(self, queries):
        if not self.refused:
            self.refused = True
            raise TransientError("the GPU is out of memory.")
        return super().stream(queries)


def test_a_point_that_one_tracker_refuses_is_followed_by_none(moving):
    session = session_of(lk=teachers.load("lk"), moody=Moody())
    pushed(session, moving[:2])
    with pytest.raises(TransientError, match="out of memory"):
        session.add(1, [[90, 60]])
    session.add(1, [[70, 50]])
    (new,) = session.points
    answer = pushed(session, moving[2:20])[-1]
    truth = np.array([70, 50]) - (answer.frame - 1) * MOVE
    for title in ("lk", "moody"):
        assert answer.positions[title].ids.tolist() == [new]
        np.testing.assert_allclose(place(answer, title, new), truth, atol=0.5)


def test_a_point_that_a_tracker_refuses_beside_others_is_followed_by_none(moving, monkeypatch):
    """In a stream that grows, after it has taken note of the point."""
    session = session_of(lk=teachers.load("lk"))
    pushed(session, moving[:2])
    session.add(1, [[90, 60]])
    (first,) = session.points
    stream = session._trackers["lk"]._following[0].stream

    def full(rows):
        raise TransientError("the GPU is out of memory.")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "_take_held", full)
        with pytest.raises(TransientError, match="out of memory"):
            session.add(1, [[80, 60]])
    session.add(1, [[70, 50]])
    new = max(session.points)
    answer = pushed(session, moving[2:20])[-1]
    assert answer.positions["lk"].ids.tolist() == [first, new]
    for point, xy in ((first, [90, 60]), (new, [70, 50])):
        truth = np.array(xy) - (answer.frame - 1) * MOVE
        np.testing.assert_allclose(place(answer, "lk", point), truth, atol=0.5)


def test_the_last_frames_are_saved_with_what_was_followed_in_them(moving, tmp_path):
    import cv2

    session = session_of(lk=teachers.load("lk"), late=Late())
    session.recent = Recent(most=12)

    def push(frames):
        for frame in frames:
            session.push(frame, cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())

    push(moving[:3])
    session.add(2, [[100, 60]])
    push(moving[3:14])
    session.add(13, [[50, 70]])
    push(moving[14:20])
    session.finish()
    excerpt = session.recent.excerpt()
    assert [kept.frame for kept in excerpt.kept] == list(range(8, 20))
    # t counts from the first frame that is kept, frame 8
    np.testing.assert_array_equal(excerpt.queries, [[-6, 100, 60], [5, 50, 70]])
    save_tracks_of(excerpt, "late", {"name": "late"}, tmp_path / "late.npz")
    with np.load(tmp_path / "late.npz") as saved:
        assert set(saved) == {"queries", "xy", "visibility", "confidence", "info"}
        t = np.arange(8, 20)[:, None]
        np.testing.assert_allclose(saved["xy"][0], [100, 60] - (t - 2) * MOVE, atol=1e-4)
        assert np.isnan(saved["xy"][1, :5]).all()
        np.testing.assert_allclose(saved["xy"][1, 5:], [50, 70] - (t[5:] - 13) * MOVE, atol=1e-4)
    save_overlay(excerpt, (96, 128), tmp_path / "live.mp4")
    with av.open(str(tmp_path / "live.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 12
    assert frames[0].shape[1] > 2 * 128  # two panels


def test_nothing_to_save_is_said(moving):
    session = session_of(lk=teachers.load("lk"))
    pushed(session, moving[:2])
    with pytest.raises(ConfigError, match="put a point first"):
        session.recent.excerpt()
