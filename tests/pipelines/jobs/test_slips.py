"""Slips of a person who starts a job: they cost neither a file nor a night."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.harness.jobs import STILL, config, moving_videos
from labeler.io.storage import Storage
from labeler.unit import VideoDone
from pipelines.engines.common import DecodeLimits
from pipelines.jobs.estimate import dry_plan
from pipelines.jobs.events import LabelEvent
from pipelines.jobs.heartbeat import Heartbeat
from pipelines.jobs.labelling import label
from teachers import ConfigError
from tests.support import stub_teachers

NEEDS_LONG_CLIPS = "tests.support.stub_teachers:NeedsLongClips"


@pytest.fixture
def videos(tmp_path):
    return moving_videos(tmp_path / "videos", 4)


def test_a_video_all_of_whose_clips_fail_has_failed(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(stub_teachers, "FEW_FRAMES", 1000)

    def failures(out: str, teacher: str) -> list[str | None]:
        events: list[LabelEvent] = []
        label(config(videos, tmp_path / out, (teacher,)), watch=events.append)
        return [event.why_failed for event in events if isinstance(event, VideoDone)]

    assert failures("none", NEEDS_LONG_CLIPS) == ["teachers"] * 4
    assert failures("all", STILL) == [None] * 4


def test_metrics_go_into_no_other_file(videos, tmp_path):
    video = next(iter(sorted(videos.glob("*.mp4"))))
    before = video.read_bytes()
    with pytest.raises(ConfigError, match=r"--metrics .*: is another file"):
        label(config(videos, tmp_path / "out", metrics=video))
    assert video.read_bytes() == before


def test_a_path_to_nowhere_makes_no_data_set(videos, tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        label(config(tmp_path / "nowhere", tmp_path / "out"))
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        dry_plan(config(tmp_path / "nowhere", tmp_path / "out"))
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert label(config(videos, tmp_path / "out")).accounts.done == 4


@pytest.mark.parametrize("limit", ["deadline_s", "memory_gib"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_of_decoding_that_cannot_be_is_refused(limit, value):
    flag = f"--decoding.{limit.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{flag} {value}: must be above 0"):
        DecodeLimits(**{limit: value})


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="pipes have a name on Linux and macOS")
def test_metrics_go_into_a_pipe(tmp_path):
    read, write = os.pipe()
    Heartbeat(Storage(str(tmp_path)), Path(f"/dev/fd/{write}"))  # waits for nothing
    os.close(write)
    os.close(read)
