"""How right labels are, on cases that are counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import Target, choose
from labeler.labels.verdict import ClipVerdict
from student.clip import TestClip
from student.evaluation.labels import (
    LABEL_FIGURES,
    LABEL_SHARES,
    LabelScore,
    compare_policies,
    score_policy,
    without_hidden_positions,
)
from teachers import Teacher, TeacherInfo, Tracks, VisibleRule

HEIGHT, WIDTH = 128, 512
"""px; neither side is that of the 256 raster: 1 px of the clip is 2 px of it high, 1/2 wide."""


def clip_of(visible: list[int]) -> TestClip:
    """One point that stands still at (100, 50), asked for in frame 0."""
    frames = len(visible)
    xy = np.broadcast_to(np.float32([100, 50]), (1, frames, 2)).copy()
    return TestClip(
        "clip",
        np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8),
        np.float32([[0, 100, 50]]),
        xy,
        np.array([visible], bool),
    )


def target_of(
    visible: list[int], used: list[int], off_px: list[float], occluded: list[int] | None = None
) -> Target:
    """Labels whose places are `off_px` px of the clip below the truth."""
    xy = np.float32([[[100, 50 + off] for off in off_px]])
    return Target(
        np.where(np.array(used, bool)[None, :, None], xy, np.nan),
        np.array([visible], bool),
        np.array([used], bool),
        np.array([0]),
        None if occluded is None else np.array([occluded], bool),
    )


def test_every_figure_of_a_case_that_is_counted_by_hand():
    #                  query   visible    hidden   not used
    clip = clip_of(visible=[1, 1, 1, 1, 1, 0, 0, 1, 0])
    labels = target_of(
        visible=[1, 1, 1, 1, 0, 1, 0, 0, 0],
        used=[1, 1, 1, 1, 1, 1, 1, 0, 0],
        off_px=[9, 0, 0.75, 3, 5, 0, 10, 0, 0],  # twice as many of the raster
    )
    score = LabelScore()
    score.add(labels, clip)
    figures = score.figures()
    assert figures == {
        "used": 3 / 5,  # frames 1, 2, 3 of 1, 2, 3, 4, 7
        "delta_avg": pytest.approx((1 / 3 + 2 / 3 + 2 / 3 + 1 + 1) / 5),  # 0, 1.5, 6 px
        "median_px": 1.5,
        "off_4px": 1 / 3,
        "wrongly_visible": 1 / 4,  # frame 5 of 1, 2, 3, 5
        "wrongly_occluded": 1 / 5,  # frame 4
        "truly_hidden": 1 / 2,  # of frames 4 and 6, frame 6
        "occluded_px": 15,  # of 10 and 20
    }
    assert figures.keys() == LABEL_FIGURES.keys()


def test_frames_that_are_called_occluded_count_though_no_place_is_stored_for_them():
    labels = target_of([1, 0, 0], [1, 0, 0], [0, 0, 0], occluded=[0, 1, 1])
    score = LabelScore()
    score.add(labels, clip_of([1, 1, 0]))
    figures = score.figures()
    assert (figures["wrongly_occluded"], figures["truly_hidden"]) == (1, 0.5)
    assert math.isnan(figures["occluded_px"])


def test_clips_are_pooled_and_nothing_to_count_is_not_a_number():
    assert all(math.isnan(value) for value in LabelScore().figures().values())
    score = LabelScore()
    score.add(target_of([1, 1], [1, 1], [0, 0]), clip_of([1, 1]))
    score.add(target_of([1, 0, 0, 0], [1, 0, 0, 0], [0] * 4), clip_of([1, 1, 1, 1]))
    assert score.figures()["used"] == 1 / 4
    assert score.figures()["delta_avg"] == 1


def test_a_truth_that_says_not_where_hidden_points_are_gives_no_error_of_their_positions():
    clip = without_hidden_positions(clip_of([1, 1, 0]))
    score = LabelScore()
    score.add(target_of([1, 0, 0], [1, 1, 1], [0, 2, 40]), clip)
    assert score.figures()["truly_hidden"] == 0.5
    assert score.figures()["occluded_px"] == 4  # of the frame that is truly visible


def still(visible: list[float], off_px: float = 0) -> Tracks:
    xy = np.broadcast_to(np.float32([100, 50 + off_px]), (1, len(visible), 2)).copy()
    return Tracks(xy, np.float32([visible]), np.full((1, len(visible)), np.nan, np.float32))


def test_a_policy_is_scored_by_what_it_chooses():
    """Two of three teachers are right; the third is 8 px of the raster off, and sees no hiding."""
    clip = clip_of([1, 1, 1, 0, 0])
    tracks = {
        "a": [still([1, 1, 1, 0, 0])],
        "b": [still([1, 1, 0, 0, 0])],
        "c": [still([1, 1, 1, 1, 1], off_px=4)],
    }
    rules = dict.fromkeys(tracks, VisibleRule("v", 0.5))
    config = AgreementConfig(min_visible_frames=1)
    medoid = score_policy("medoid", tracks, rules, [clip], config)
    # in frame 2 only a and c see it, apart: no label, and the valid run ends there
    assert (medoid["used"], medoid["off_4px"], medoid["wrongly_visible"]) == (0.5, 0, 0)
    assert math.isnan(medoid["truly_hidden"])
    alone = score_policy("random", {"c": tracks["c"]}, rules, [clip], config)
    assert alone["used"] == alone["off_4px"] == 1
    assert alone["wrongly_visible"] == 0.5


@pytest.mark.parametrize("hidden", [0, 1])
def test_the_medoid_calls_occluded_what_is_agreed_to_be_on_evidence(hidden):
    tracks = {name: still([1, 1, 0, 0]) for name in "ab"} | {"c": still([1, 1, 1, 1])}
    said = np.full((1, 4), hidden, np.float32)
    target = choose(
        "medoid",
        tracks,
        dict.fromkeys(tracks, VisibleRule("v", 0.5)),
        np.float32([[0, 100, 50]]),
        (HEIGHT, WIDTH),
        np.random.default_rng(0),
        AgreementConfig(min_visible_frames=1),
        verdict=ClipVerdict(tuple("abc"), np.ones((3, 1, 4), np.float32), said, "test"),
    )
    assert target.used.tolist() == [[True, True, False, False]]
    assert target.called_occluded.tolist() == [[False, False, hidden == 1, hidden == 1]]


class Fixed(Teacher):
    """Says the same of every clip."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self.info = TeacherInfo(
            name="fixed", architecture="fixed", mode="label", visible_rule="v > 0.5"
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        return self._tracks


def test_policies_are_put_beside_each_teacher_alone():
    clips = [clip_of([1, 1, 0]), clip_of([1, 1, 1])]
    teachers = {"right": Fixed(still([1, 1, 0])), "far": Fixed(still([1, 1, 1], off_px=4))}
    scores, rows = compare_policies(
        ["oracle", "medoid"], teachers, iter(clips), AgreementConfig(min_visible_frames=1)
    )
    assert list(scores) == ["right", "far", "oracle", "medoid"]
    assert scores["right"].figures()["used"] == 2 / 3
    assert scores["far"].figures()["off_4px"] == 1
    assert scores["oracle"].figures() == scores["right"].figures()
    assert list(zip(rows["labels"], rows["clip"], rows["points"], strict=True))[:2] == [
        ("right", "clip", 1),
        ("far", "clip", 1),
    ]
    assert len(rows) == 8
    assert set(LABEL_SHARES) < set(rows.columns)


def test_teachers_of_one_evidence_are_one_opinion_for_a_policy():
    """Two of one kind repeat an error; two others are right."""
    tracks = {name: [still([1] * 4, off_px=10)] for name in "ab"}
    tracks |= {name: [still([1] * 4)] for name in "cd"}
    rules = dict.fromkeys(tracks, VisibleRule("v", 0.5))
    config = AgreementConfig(min_visible_frames=1)
    given = tracks, rules, [clip_of([1] * 4)], config, 0
    assert score_policy("medoid", *given)["used"] == 0  # two against two
    found = score_policy("medoid", *given, {"a": "patch", "b": "patch"})
    assert (found["used"], found["off_4px"]) == (1, 0)


class AtTheQuery(Teacher):
    """Stands still where it is asked; notes how many points it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.info = TeacherInfo(
            name="still", architecture="still", mode="label", visible_rule="none"
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        self.asked.append(len(queries))
        xy = np.repeat(queries[:, None, 1:], len(frames), 1)
        unknown = np.full(xy.shape[:2], np.nan, np.float32)
        return Tracks(xy.astype(np.float32), unknown, unknown)


def test_neighbours_are_tracked_and_judged_but_do_not_count():
    teacher, config = AtTheQuery(), AgreementConfig(min_visible_frames=1)
    clip = clip_of([1, 1, 0])
    scores, rows = compare_policies(
        ["medoid", "verified"], {"still": teacher}, [clip], config, least_queries=40
    )
    assert teacher.asked == [40]
    assert set(rows["points"]) == {1}
    assert scores["still"].figures()["used"] == scores["medoid"].figures()["used"] == 1
    assert (scores["medoid"].visible, scores["verified"].visible) == (1, 1)
    compare_policies(["medoid"], {"still": teacher}, [clip], config)
    assert teacher.asked == [40, 1]
