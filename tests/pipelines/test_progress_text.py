"""What the progress line of a labelling job says before there is a rate."""

from __future__ import annotations

import dataclasses
import inspect

from pipelines.commands.eval import EvalCommand
from pipelines.commands.track import TrackCommand
from pipelines.jobs.progress import JobProgress
from pipelines.terminal.labelling import counts
from tests.support.jobs import ROOT


def test_before_the_first_clip_there_is_no_rate():
    nothing = JobProgress(3).snapshot()
    assert counts(nothing) == "no clip is done yet"
    one = dataclasses.replace(nothing, clips=1, clips_per_s=0.25, tracks_per_s=12.0)
    assert counts(one) == "1 clip, 0.25 clips/s, 12 tracks/s"


def test_the_page_that_the_help_of_mode_names_says_what_modes_do():
    for command in (TrackCommand, EvalCommand):
        assert "docs/teachers.md" in inspect.getsource(command)
    page = (ROOT / "docs" / "teachers.md").read_text()
    assert all(mode in page for mode in ("predictor", "label", "benchmark", "recipe"))
