"""What is no video's fault is never a video's row: a broken installation, code that does not fit
its packages, a full disk; and a job in which nothing is labelled says so."""

from __future__ import annotations

import errno

import pytest

from benchmarks.harness.jobs import config, moving_videos, write_moving
from labeler.clips import process
from labeler.io.storage import Storage
from labeler.shards.records import latest_records
from labeler.shards.tar import ShardWriter
from pipelines import cli
from pipelines.jobs.labelling import label
from teachers import FullStorageError, InstallationError

FEW = [
    *("--engine", "local", "--teachers", "lk", "match", "--queries.count", "8"),
    *("--clips.frames", "8", "--clips.clips-per-video", "1"),
]


def host(monkeypatch, name: str) -> None:
    """Let a class of `tests.support.broken_sources` live in the decoding process."""
    monkeypatch.setattr(process, "HOSTED", f"tests.support.broken_sources:{name}")


def test_an_installation_that_cannot_decode_stops_the_job_before_the_first_video(
    tmp_path, monkeypatch
):
    videos = moving_videos(tmp_path / "videos", 3)
    host(monkeypatch, "NewerPyAV")
    with pytest.raises(InstallationError, match=r"cannot decode the clip.*TypeError.*keyword"):
        label(config(videos, tmp_path / "out"))
    assert latest_records(Storage(str(tmp_path / "out"))) == []


def test_code_that_does_not_fit_leaves_videos_open_and_stops_the_job(tmp_path, monkeypatch):
    videos = moving_videos(tmp_path / "videos", 8)
    host(monkeypatch, "MisfitInVideos")
    seen = []
    with pytest.raises(InstallationError, match=r"the job stops: .*AttributeError.*not of this"):
        label(config(videos, tmp_path / "out", videos_per_unit=1), seen.append)
    assert latest_records(Storage(str(tmp_path / "out"))) == []
    monkeypatch.undo()
    assert label(config(videos, tmp_path / "out", videos_per_unit=1)).accounts.done == 8


def test_the_command_ends_with_1_where_a_video_stays_open_by_our_own_fault(
    tmp_path, monkeypatch, capfd
):
    write_moving(tmp_path / "a.mp4", seed=1)
    host(monkeypatch, "MisfitInVideos")
    assert cli.run(["label", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), *FEW]) == 1
    assert "That is a fault of tapdistill or of a package" in " ".join(
        capfd.readouterr().err.split()
    )


def test_a_full_scratch_disk_stops_the_job_once(tmp_path, monkeypatch):
    videos = moving_videos(tmp_path / "videos", 4)
    host(monkeypatch, "FullScratch")
    with pytest.raises(FullStorageError, match=r"No space left on device.*TMPDIR sets"):
        label(config(videos, tmp_path / "out"))


def test_a_disk_that_fills_while_a_shard_is_written_stops_the_job_after_one_clip(
    tmp_path, monkeypatch
):
    videos, written = moving_videos(tmp_path / "videos", 4), []

    def full(self, key, parts):
        written.append(key)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(FullStorageError, match="could not do unit 0"):
        label(config(videos, tmp_path / "out"))
    assert len(written) == 1
    monkeypatch.undo()
    assert label(config(videos, tmp_path / "out")).accounts.labelled == 4


def test_a_job_in_which_nothing_is_labelled_does_not_end_with_0(tmp_path, capfd):
    (tmp_path / "a.mp4").write_text("no video\n" * 99)
    command = ["label", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), *FEW]
    assert cli.run(command) == 1
    assert "nothing is labelled (1 video not-a-video)" in capfd.readouterr().err
    assert cli.run(command) == 1  # nothing is left to do, and there is still no label
