"""What the progress line of a labelling job says before there is a rate."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from labeler.reasons import LeftOut
from labeler.unit import TeachersReady, UnitDone, VideoDone
from pipelines.commands.eval import EvalCommand
from pipelines.commands.track import TrackCommand
from pipelines.engines.common import UnitOpen
from pipelines.jobs.labelling import TooManyFailures, _Failures
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


def done(unit: int, uri: str, seconds: float, *reasons: str) -> VideoDone:
    rows = [LeftOut(uri=uri, what="video", stage="open", reason=reason) for reason in reasons]
    return VideoDone(unit, uri, tuple(rows), {"teachers": seconds, "waiting for frames": 1.0})


def test_a_unit_that_begins_again_counts_once():
    progress = JobProgress(4)
    for seconds in (3.0, 1.0):  # its worker is lost after two videos of three
        progress.count(done(0, "a", seconds, "empty"))
        progress.count(done(0, "b", seconds + 1))
    again = progress.snapshot()
    assert (again.videos_done, again.reasons) == (2, {"empty": 1})
    assert again.teachers_busy == (4 + 2) / (4 + 2 + 1 + 1)
    progress.count(done(0, "c", 5.0))
    progress.count(UnitDone(0, 0))
    progress.count(done(1, "d", 1.0, "timeout"))
    assert progress.snapshot().videos_done == 4
    progress.count(UnitOpen(1, "the disk is gone."))
    last = progress.snapshot()
    assert (last.videos_done, last.reasons) == (3, {"empty": 1})


def test_the_share_that_fails_is_that_of_videos_not_of_attempts():
    failures = _Failures(0.5)
    for _ in range(4):
        for i in range(10):
            failures.count(done(0, f"{i}", 1.0, *(["timeout"] if i < 8 else [])))
    failures.count(UnitDone(0, 0))
    for i in range(8):
        failures.count(done(1, f"more {i}", 1.0))
    failures.count(done(2, "last 0", 1.0, "empty"))
    failures.count(done(2, "last 1", 1.0, "empty"))
    with pytest.raises(TooManyFailures, match=r"11 of 21 videos failed \(8 timeout, 3 empty\)"):
        failures.count(done(2, "last 2", 1.0, "empty"))


def test_a_video_of_which_no_clip_could_be_labelled_counts_as_failed():
    failures = _Failures(0.5)
    for i in range(19):
        clips = [LeftOut(uri=f"{i}", what="clip", stage="clip", reason="timeout")] * 2
        failures.count(VideoDone(0, f"{i}", tuple(clips), {}, int(i < 9)))
    clip = LeftOut(uri="x", what="clip", stage="clip", reason="static")  # not a failure
    failures.count(VideoDone(0, "x", (clip,), {}, 0))
    last = LeftOut(uri="y", what="clip", stage="clip", reason="decode-error")
    with pytest.raises(TooManyFailures, match=r"11 of 21 videos failed \(10 timeout, 1 decode-err"):
        failures.count(VideoDone(0, "y", (last,), {}, 0))


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
