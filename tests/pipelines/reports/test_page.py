"""Parts of a report: tables, statistics, and what is shown beside the teachers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from labeler import open_dataset
from labeler.labels.agreement import stack
from pipelines.reports.dataset import write_report
from pipelines.reports.measures import measure
from pipelines.reports.page import ScoreTable, most_central, statistics_of
from teachers import Tracks, VisibleRule
from tests.support.grey_clip import WIDTH, grey_clip
from tests.support.html_page import Page

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def sample():
    return grey_clip()


def test_the_statistics_are_those_worked_by_hand(sample):
    statistics = statistics_of(sample, stack(sample.tracks, sample.rules, sample.size_hw))
    # a and b, within 2 px; c is 60 px away
    np.testing.assert_allclose(statistics.support[1:20], 2 / 3, atol=1e-6)
    assert statistics.distance_px[0, 1] == pytest.approx(0.5 * 256 / WIDTH)
    assert statistics.distance_px[0, 2] == pytest.approx(30 * 256 / WIDTH)
    assert statistics.histogram.sum() == pytest.approx(1)
    assert {name: drawn for name, (_, drawn) in statistics.kept.items()} == {
        "sift": 6,
        "uniform": 2,
    }


def test_the_most_central_teacher_is_the_one_nearest_to_all(sample):
    # b lies 0.5 px from a and 29.5 px from c: 30 in all, a has 30.5, c has 59.5
    statistics = statistics_of(sample, stack(sample.tracks, sample.rules, sample.size_hw))
    assert most_central(statistics, sample.tracks) == "b"
    assert most_central(statistics, ["c", "a"]) == "a"


def test_a_teacher_that_sees_nothing_comes_last():
    sample = grey_clip()
    sample.tracks["a"].visibility[:] = 0
    two = {name: sample.tracks[name] for name in "ab"}
    statistics = statistics_of(sample, stack(two, sample.rules, sample.size_hw))
    assert most_central(statistics, two) == "b"
    assert np.isnan(statistics.distance_px[0]).all()


@pytest.fixture(scope="module")
def with_more(dataset, tmp_path_factory):
    """The page of a data set with a table of scores, and a student of a hostile name beside the
    teachers."""
    opened = open_dataset(str(dataset.folder))
    clips = opened[:2]
    scores = pd.DataFrame(
        {"name": ["a", HOSTILE, "student"], "AJ": [60.04, float("nan"), 64.5], "ms": [3, 41, 41]}
    )
    index = tmp_path_factory.mktemp("page") / "index.html"
    write_report(
        index,
        opened,
        clips,
        opened.teachers,
        measure(clips, opened),
        "two of them",
        tables=[ScoreTable(title="Scores", frame=scores, best={"AJ": "max", "ms": "min"})],
        extra=lambda clip: {HOSTILE: (moved(clip.tracks["near"]), VisibleRule("none"))},
    )
    return index.read_text()


def moved(tracks: Tracks) -> Tracks:
    return Tracks(tracks.xy + np.float32(8), tracks.visibility, tracks.confidence)


def test_the_best_of_each_column_of_a_table_is_bold(with_more):
    table = with_more[with_more.index("<h2>Scores</h2>") :]
    table = table[: table.index("</table>")]
    assert re.findall(r"<b>(.*?)</b>", table) == ["3", "64.5"]
    assert "60.0" in table
    assert "–" in table  # the missing score


def test_a_tracker_beside_the_teachers_is_in_players_and_charts_but_gives_no_label(with_more):
    assert with_more.count('"trackers": ["near", "still", "\\u003c/script') == 2
    page = Page(with_more)
    assert page.text.count(HOSTILE) >= 1 + 2  # in the table of scores, and in each clip's distances
    teachers = with_more[with_more.index("<h2>Teachers</h2>") :]
    assert "alert(1)" not in teachers[: teachers.index("</table>")]


def test_a_hostile_name_of_a_tracker_cannot_leave_the_data_of_the_player(with_more):
    assert Page(with_more).tags.count("script") == 1 + 2  # ours, and the data of each player
