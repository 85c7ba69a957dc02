"""What the progress line of a labelling job says before there is a rate."""

from __future__ import annotations

import dataclasses
import inspect

from pipelines.commands.eval import EvalCommand
from pipelines.commands.track import TrackCommand
from pipelines.jobs.progress import Snapshot
from pipelines.terminal.labelling import counts
from tests.support.jobs import ROOT

NOTHING = Snapshot(
    host="h",
    pid=1,
    started=0.0,
    now=60.0,
    videos=3,
    videos_done=0,
    clips=0,
    clips_per_s=0.0,
    tracks_per_s=0.0,
    teachers_busy=None,
    waiting_for_frames=None,
    oldest_s=1.0,
    oldest="",
)


def test_before_the_first_clip_there_is_no_rate():
    assert counts(NOTHING) == "no clip is done yet"
    one = dataclasses.replace(NOTHING, clips=1, clips_per_s=0.25, tracks_per_s=12.0)
    assert counts(one) == "1 clips, 0.25 clips/s, 12 tracks/s"


def test_the_page_that_the_help_of_mode_names_says_what_modes_do():
    for command in (TrackCommand, EvalCommand):
        assert "docs/teachers.md" in inspect.getsource(command)
    page = (ROOT / "docs" / "teachers.md").read_text()
    assert all(mode in page for mode in ("predictor", "label", "benchmark", "recipe"))
