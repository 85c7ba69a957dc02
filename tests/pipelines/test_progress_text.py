"""What the progress line of a labelling job says before there is a rate."""

from __future__ import annotations

import dataclasses
import inspect

from labeler.unit import TeachersReady
from pipelines.commands.eval import EvalCommand
from pipelines.commands.track import TrackCommand
from pipelines.jobs.progress import JobProgress
from pipelines.terminal.labelling import counts
from pipelines.terminal.training import TrainProgress
from pipelines.wording import data_size
from student.training.events import Measuring, Started
from tests.support.jobs import ROOT


def test_before_the_first_clip_there_is_no_rate():
    progress = JobProgress(3)
    assert counts(progress.snapshot()) == "the teachers are being started"
    progress.count(TeachersReady({}))
    nothing = progress.snapshot()
    assert counts(nothing) == "no clip is done yet"
    one = dataclasses.replace(nothing, clips=1, clips_per_s=0.25, tracks_per_s=12.0)
    assert counts(one) == "1 clip, 0.25 clips/s, 12 tracks/s"


def test_a_size_is_written_in_the_unit_that_it_has():
    sizes = [0, 9_400, 1_370_000, 15_700_000, 999_499_000, 1_760e9, 250e12]
    said = ["0 kB", "9 kB", "1.37 MB", "15.7 MB", "999 MB", "1.76 TB", "250 TB"]
    assert [data_size(size) for size in sizes] == said


def test_the_page_that_the_help_of_mode_names_says_what_modes_do():
    for command in (TrackCommand, EvalCommand):
        assert "docs/teachers.md" in inspect.getsource(command)
    page = (ROOT / "docs" / "teachers.md").read_text()
    assert all(mode in page for mode in ("predictor", "label", "benchmark", "recipe"))


def test_what_takes_its_time_after_the_last_step_is_said_when_it_begins(capsys):
    scoring = Measuring(step=1, what="scoring on procedural test clips", done=0, total=6)
    with TrainProgress(2) as progress:
        progress.show(scoring)  # the line of the evaluation says enough
        progress.show(dataclasses.replace(scoring, step=2))
        progress.show(dataclasses.replace(scoring, step=2, done=1))
    assert capsys.readouterr().out == "scoring on procedural test clips: 0/6 clips\n"


def test_one_view_is_no_views(capsys):
    with TrainProgress(2) as progress:
        progress.show(Started(step=0, parts=1, left_out=(), views={1: 3}))
        progress.show(Started(step=0, parts=1, left_out=(), views={2: 1}))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("3 stored clips; each offers 1 view (")
    assert second.startswith("1 stored clip; each offers 2 views (")
