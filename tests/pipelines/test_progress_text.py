"""What the progress line of a labelling job says before there is a rate."""

from __future__ import annotations

import dataclasses
import inspect

from labeler.unit import TeachersReady
from pipelines.commands.eval import EvalCommand
from pipelines.commands.track import TrackCommand
from pipelines.jobs.progress import JobProgress
from pipelines.terminal.labelling import counts
from pipelines.wording import data_size
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
