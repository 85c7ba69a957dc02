"""What a person does with a job that runs for a week: retry, share it out, stop it in time, ask how
it stands."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness.jobs import NEAR, STILL, config, moving_videos, write_moving
from benchmarks.harness.processes import FLAGS
from labeler.clips import process
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards import tables
from labeler.shards.plan import read_plans
from labeler.shards.records import latest_records
from labeler.sources.filters import WordFilter
from labeler.unit import ClipDone, ClipStarted, TeachersReady, UnitDone, VideoDone
from pipelines.cli import run
from pipelines.commands.label import print_estimate
from pipelines.engines import local as engine_local
from pipelines.jobs import labelling as label_module
from pipelines.jobs.estimate import dry_plan
from pipelines.jobs.events import LabelEvent, Note, Planned
from pipelines.jobs.heartbeat import FOLDER, Heartbeat, jobs
from pipelines.jobs.labelling import LabelResult, TooManyFailures, label, labelling
from pipelines.jobs.progress import JobProgress
from pipelines.terminal import labelling as terminal_module
from pipelines.terminal.labelling import LabelProgress, counts, print_summary
from pipelines.wording import duration
from teachers import ConfigError, TransientError
from tests.support.jobs import FAR, contents
from tests.support.web_server import Fault, Site, serving

NEEDS_LONG_CLIPS = "tests.support.stub_teachers:NeedsLongClips"


@pytest.fixture
def videos(tmp_path):
    return moving_videos(tmp_path / "videos", 4)


def test_videos_that_failed_are_retried_in_a_unit_of_their_own(videos, tmp_path):
    good = (videos / "1.mp4").read_bytes()
    (videos / "1.mp4").write_bytes(b"no video yet")
    first = label(config(videos, tmp_path / "out"))
    assert (first.accounts.done, first.accounts.videos_failed) == (3, 1)

    (videos / "1.mp4").write_bytes(good)
    again = label(config(videos, tmp_path / "out", retry="not-a-video"))
    assert (again.accounts.videos, again.accounts.done, again.accounts.videos_failed) == (4, 4, 0)
    plans = read_plans(Storage(str(tmp_path / "out")))
    assert plans[1]["uri"].tolist() == [str(videos / "1.mp4")]
    assert plans[1]["unit"].tolist() == [2]

    dataset = open_dataset(str(tmp_path / "out"))
    assert sorted(set(dataset.clips["uri"])) == [str(videos / f"{i}.mp4") for i in range(4)]
    assert dataset.failures.empty


@pytest.mark.parametrize("share", ["0/2", "1/2"])
def test_what_another_job_plans_again_meanwhile_is_in_the_accounts(videos, tmp_path, share):
    """And is open for that job, if it is, not for this one. The units of the first plan are 0 and
    1, so that of the second is in share 0/2."""
    (videos / "0.mp4").write_bytes(b"no video yet")
    out = tmp_path / "out"
    label(config(videos, out, shards="0/2"))

    def retry(event: LabelEvent) -> None:
        if isinstance(event, UnitDone):
            label(config(videos, out, shards=share, retry="not-a-video"))

    result = label(config(videos, out), retry)
    tried_again = share == "0/2"
    assert (result.accounts.videos, result.accounts.done) == (4, 3)
    assert result.accounts.videos_failed == tried_again
    assert result.accounts.open == (not tried_again)
    assert not result.open_units


def test_a_video_that_is_done_again_counts_once(videos, tmp_path):
    """What its first unit says of it gives way to what its last one says."""
    # a duplicate: its row has that reason
    (videos / "2.mp4").write_bytes((videos / "3.mp4").read_bytes())
    label(config(videos, tmp_path / "out"))
    again = label(config(videos, tmp_path / "out", retry="duplicate"))
    assert (again.accounts.videos, again.accounts.done, again.accounts.videos_left_out) == (4, 4, 0)
    assert open_dataset(str(tmp_path / "out")).clips["key"].duplicated().sum() == 1


def test_a_clip_that_is_labelled_again_counts_once_in_what_commands_say(videos, tmp_path, capsys):
    write_moving(videos / "0.mp4", seed=0, frames=9)  # too few for one of the teachers
    job = config(videos, tmp_path / "out", (STILL, NEAR, NEEDS_LONG_CLIPS))
    print_summary(label(job), job.out)
    assert "4 clips, 96 queries of which 96 kept" in capsys.readouterr().out
    again = label(dataclasses.replace(job, retry="teacher-error"))
    assert (again.accounts.labelled, len(again.records)) == (4, 3)
    print_summary(again, job.out)
    assert "4 clips, 96 queries of which 96 kept" in capsys.readouterr().out
    assert run(["relabel", job.out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "96 of 96 queries kept -> 96 of 96 queries kept; 4 clips judged" in said


def test_a_video_whose_server_is_gone_is_a_row_and_can_be_retried(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PAUSE_S", 0.0)
    listed = tmp_path / "list.txt"
    body = (videos / "1.mp4").read_bytes()
    with serving(Site(body, ranges=False, faults=[Fault(status=503)] * 99)) as site:
        listed.write_text(f"{videos}/0.mp4\n{site.url}\n")
        first = label(config(listed, tmp_path / "out"))
        assert (first.accounts.done, first.accounts.videos_failed, first.accounts.open) == (1, 1, 0)
        (row,) = first.records[0].rows
        assert (row.uri, row.reason, row.attempts) == (site.url, "unreachable", 3)
        assert "HTTP 503" in row.detail
        site.faults.clear()
        again = label(config(listed, tmp_path / "out", retry="unreachable"))
    assert (again.accounts.done, again.accounts.videos_failed) == (2, 0)


def test_units_of_which_nothing_can_be_reached_stay_open(tmp_path, monkeypatch):
    """More of them than may fail."""
    monkeypatch.setattr(engine_local, "PAUSE_S", 0.0)
    monkeypatch.setattr(process, "PAUSE_S", 0.0)
    listed = "".join(f"http://127.0.0.1:9/{i}.mp4\n" for i in range(24))
    (tmp_path / "list.txt").write_text(listed)
    result = label(config(tmp_path / "list.txt", tmp_path / "out", videos_per_unit=12))
    assert (result.accounts.open, result.accounts.videos_failed) == (24, 0)
    assert "none of 12 videos can be reached: http" in result.troubles[0].why


def test_nothing_is_planned_again_where_no_row_has_the_reason(videos, tmp_path):
    label(config(videos, tmp_path / "out"))
    events: list[LabelEvent] = []
    label(config(videos, tmp_path / "out", retry="crash"), events.append)
    assert "no video has the reason 'crash'" in next(
        event.text for event in events if isinstance(event, Note)
    )
    assert len(read_plans(Storage(str(tmp_path / "out")))) == 1


def test_shares_of_a_job_make_the_whole_of_it(videos, tmp_path):
    label(config(videos, tmp_path / "whole"))
    for share in ("1/2", "0/2"):
        result = label(config(videos, tmp_path / "shared", shards=share))
        assert not result.open_units
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_a_share_ends_while_others_commit_without_a_pause(videos, tmp_path, monkeypatch):
    written, compact = [], tables.compact

    def compact_while_others_commit(storage, records):
        written.append(len(records))
        assert len(written) < 9, "it waits for the others"
        compact(storage, records)
        another = latest_records(storage)[0]
        number = another.revision + 1
        tar = another.tar.replace(f".r{another.revision}.", f".r{number}.")
        ahead = dataclasses.replace(another, revision=number, tar=tar)
        assert storage.create(ahead.name, ahead.to_bytes())

    monkeypatch.setattr(tables, "compact", compact_while_others_commit)
    assert not label(config(videos, tmp_path / "out", shards="0/2")).open_units
    assert written == [1, 1]


def test_workers_that_write_into_a_folder_of_their_own_machine_stop_the_job_at_once(
    videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(label_module, "SEEN_WITHIN_S", 0.0)
    elsewhere = iter([UnitDone(0, 0), UnitDone(1, 0)])
    monkeypatch.setattr(engine_local, "run", lambda *_: elsewhere)
    with pytest.raises(
        ConfigError,
        match=rf"{tmp_path}/out/shards/000000\.r0\.json .* same folder on all nodes.*bucket",
    ):
        label(config(videos, tmp_path / "out"))
    assert next(elsewhere) == UnitDone(1, 0)


def test_a_share_leaves_the_others_open(videos, tmp_path):
    result = label(config(videos, tmp_path / "out", shards="0/2"))
    assert (result.accounts.done, result.accounts.open) == (2, 2)


@pytest.mark.parametrize("share", ["2/2", "1", "a/b", "-1/2", "0/0"])
def test_a_share_that_cannot_be_is_refused(videos, tmp_path, share):
    with pytest.raises(ConfigError, match=r"write i/N with i from 0 to N - 1"):
        config(videos, tmp_path, shards=share)


def test_a_job_stops_when_too_many_videos_fail(videos, tmp_path):
    for i in range(30):
        (videos / f"broken{i:02d}.mp4").write_bytes(b"no video")
    with pytest.raises(
        TooManyFailures, match=r"of 20 videos failed \(\d+ not-a-video\).*--max-failed-fraction 1"
    ):
        label(config(videos, tmp_path / "out"))
    assert label(config(videos, tmp_path / "out", max_failed_fraction=1.0)).accounts.open == 0


@pytest.mark.parametrize("most", [-0.1, 1.1, float("nan")])
def test_a_share_of_failures_that_cannot_be_is_refused(videos, tmp_path, most):
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        config(videos, tmp_path / "out", max_failed_fraction=most)


def test_what_the_words_leave_out_is_not_retried(videos, tmp_path):
    with pytest.raises(ConfigError, match="the words of a data set are frozen"):
        config(videos, tmp_path / "out", retry="unwanted")


def test_a_dry_run_counts_no_unit_of_videos_left_out(videos, tmp_path, capsys):
    rows = [
        f"{path},{caption}\n"
        for path, caption in zip(videos.iterdir(), ["dog", "cat", "cat", "cat"], strict=True)
    ]
    (tmp_path / "t.csv").write_text("url,caption\n" + "".join(rows))
    print_estimate(config(tmp_path / "t.csv", tmp_path / "out", words=WordFilter(need=("dog",))))
    assert "4 videos (3 left out by their words) in 1 unit; " in capsys.readouterr().out


def test_a_dry_run_says_why_a_video_gave_no_clip_and_what_is_not_used(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "notes.pdf").write_bytes(b"")
    print_estimate(config(tmp_path / "in", tmp_path / "out"))
    said = capsys.readouterr().out
    assert "broken.mp4 gave no clip: not-a-video." in said
    assert "note: 1 file is not used" in said
    assert "so there is no estimate" in said


def test_a_dry_run_writes_nothing_and_estimates(videos, tmp_path, capsys):
    assert (
        run(
            [
                "label",
                str(videos),
                "--out",
                str(tmp_path / "out"),
                "--teachers",
                STILL,
                NEAR,
                *FLAGS,
                "--dry-run",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "4 videos" in said
    assert "about 4 clips" in said
    assert "verifier" in said
    assert "one worker on this machine" in said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_without_the_verifier_estimates_without_it(videos, tmp_path, capsys):
    print_estimate(config(videos, tmp_path / "out", judge=False))
    said = capsys.readouterr().out
    assert "one worker on this machine" in said
    assert "verifier" not in said


def test_a_dry_run_refuses_what_the_job_refuses(videos, tmp_path, capsys):
    label(config(videos, tmp_path / "out"))
    before = contents(tmp_path / "out")
    print_estimate(config(videos, tmp_path / "out"))
    assert "is planned already" in capsys.readouterr().out
    for run_it in (print_estimate, label):
        with pytest.raises(ConfigError, match=r"made with other settings: videos_per_unit: 2 ther"):
            run_it(config(videos, tmp_path / "out", videos_per_unit=3))
    assert contents(tmp_path / "out") == before


def planned(capsys, job) -> str:
    """What a dry run says of the plan."""
    print_estimate(job)
    return capsys.readouterr().out.partition(" to read")[0].partition("in 2 units")[2]


def test_a_dry_run_counts_what_the_job_would_do(videos, tmp_path, capsys):
    """Units of its share that are not done; with --retry, those that it would plan again."""
    job = config(videos, tmp_path / "out")
    second = dataclasses.replace(job, shards="1/2")
    (videos / "0.mp4").write_bytes(b"no video")
    assert dry_plan(second).todo == dry_plan(job).todo[2:]
    assert planned(capsys, second).startswith(", 1 of share 1/2 to do; ")
    label(dataclasses.replace(job, shards="0/2", max_failed_fraction=1.0))
    assert planned(capsys, job).startswith(", 1 to do; ")
    assert [Path(video.uri).name for video in dry_plan(job).todo] == ["2.mp4", "3.mp4"]
    label(job)
    assert dry_plan(job).todo == []
    (video,) = dry_plan(dataclasses.replace(job, retry="not-a-video")).todo
    assert video.uri == str(videos / "0.mp4")
    (note,) = dry_plan(dataclasses.replace(job, retry="timeout")).notes
    assert note == "no video has the reason 'timeout': nothing is planned again."
    (note,) = dry_plan(dataclasses.replace(job, teachers=(*job.teachers, FAR))).notes
    assert note == "2 units to do only lack teachers, and take less than is estimated."
    assert len(read_plans(Storage(job.out))) == 1


def test_status_tells_what_is_open_and_that_nobody_works_on_it(videos, tmp_path, capsys):
    label(config(videos, tmp_path / "out", shards="0/2"))
    capsys.readouterr()
    assert run(["status", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 units are committed" in said
    assert "ended" in said
    assert "no job is working on it" in said


@pytest.mark.parametrize("ahead_s", [-7200, 0, 7200])
def test_status_knows_a_silent_job_from_one_at_work_whatever_its_clock(
    videos, tmp_path, capsys, ahead_s
):
    label(config(videos, tmp_path / "out", shards="0/2"))
    storage = Storage(str(tmp_path / "out"))
    last = dataclasses.replace(jobs(storage)[0].snapshot, ended=False)
    for host, silent_s in (("alive", 5), ("dead", 4000)):
        written = time.time() - silent_s
        said = dataclasses.replace(last, host=host, now=written + ahead_s)
        storage.replace(f"{FOLDER}/{host}-1.json", said.to_json().encode())
        os.utime(storage.path(f"{FOLDER}/{host}-1.json"), (written, written))
    storage.replace(f"{FOLDER}/garbage.json", b"[]")
    assert run(["status", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "job alive-" in said
    assert "at work" in said
    assert "silent for 67 min" in said
    assert "no job is working on it" not in said


def test_the_status_of_a_data_set_that_may_only_be_read_is_told(videos, tmp_path, monkeypatch):
    label(config(videos, tmp_path / "out"))
    storage = Storage(str(tmp_path / "out"))

    def refuse(*_: object) -> None:
        raise TransientError("not yours.")

    monkeypatch.setattr(storage, "replace", refuse)
    (heard,) = jobs(storage)
    assert heard.snapshot.ended


def test_what_a_killed_job_left_half_written_is_removed_and_is_no_job(videos, tmp_path):
    out = tmp_path / "out"
    label(config(videos, out, shards="0/2"))
    (out / "copies").mkdir(exist_ok=True)
    whole = next((out / FOLDER).glob("*.json"))
    parts = [
        out / folder / f".{whole.name}@0123456789abcdef.part"
        for folder in ("", "shards", FOLDER, "copies")
    ]
    for part in parts:
        part.write_bytes(whole.read_bytes())
    (out / "film.part").touch()  # of somebody else
    assert len(jobs(Storage(str(out)))) == 1
    label(config(videos, out, shards="0/2"))
    assert not any(part.exists() for part in parts)
    assert (out / "film.part").exists()


def test_metrics_are_lines_of_json(videos, tmp_path):
    label(config(videos, tmp_path / "out", metrics=tmp_path / "metrics.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (lines[-1]["videos_done"], lines[-1]["clips"], lines[-1]["ended"]) == (4, 4, True)
    assert 0 < lines[-1]["teachers_busy"] + lines[-1]["waiting_for_frames"] <= 1


def test_metrics_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match=r"--metrics .* cannot be written"):
        Heartbeat(Storage(str(tmp_path)), tmp_path)


def test_a_full_disk_for_the_metrics_stops_no_job(videos, tmp_path):
    assert label(config(videos, tmp_path / "out", metrics=Path("/dev/full"))).accounts.open == 0


PLANNED = Planned(
    url="labels", videos=2, unwanted=0, units=1, units_to_do=1, videos_to_do=2, share=(0, 1)
)


def test_a_job_says_everything_as_events_and_prints_nothing(videos, tmp_path, capfd):
    events: list[LabelEvent] = []
    result = label(config(videos, tmp_path / "out", shards="1/2"), events.append)
    assert capfd.readouterr() == ("", "")
    assert isinstance(result, LabelResult)
    assert events[0] == Planned(
        url=str(tmp_path / "out"),
        videos=4,
        unwanted=0,
        units=2,
        units_to_do=1,
        videos_to_do=2,
        share=(1, 2),
    )
    kinds = [type(event) for event in events[1:]]
    assert kinds[0] is TeachersReady
    assert kinds[-1] is UnitDone
    assert kinds.count(VideoDone) == 2
    assert kinds.count(ClipStarted) == kinds.count(ClipDone) == 2
    assert {row.unit for row in result.records} == {1}


def test_a_job_that_is_left_in_the_middle_goes_on_where_it_stopped(videos, tmp_path):
    """Who takes the events one by one may stop taking them: what is committed stays."""
    with closing(labelling(config(videos, tmp_path / "out"))) as events:
        assert any(isinstance(event, UnitDone) for event in events)
    assert jobs(Storage(str(tmp_path / "out")))[0].snapshot.ended
    assert open_dataset(str(tmp_path / "out")).accounts.done == 2
    assert label(config(videos, tmp_path / "out")).accounts.done == 4


def test_a_note_says_that_files_are_new(videos, tmp_path):
    label(config(videos, tmp_path / "out"))
    write_moving(videos / "new.mp4", seed=9)
    events: list[LabelEvent] = []
    label(config(videos, tmp_path / "out"), events.append)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert note.startswith("note: since this data set was planned, 1 file came and 0 files changed")


def test_the_command_says_what_is_to_do_and_the_notes(videos, tmp_path, capsys):
    arguments = ["label", str(videos), "--out", str(tmp_path / "out"), *FLAGS]
    arguments += ["--teachers", STILL, NEAR, "--shards", "0/2"]
    assert run(arguments) == 0
    assert run([*arguments, "--agreement.tau-px", "3"]) == 0
    said = capsys.readouterr().out
    assert f"4 videos in 2 units, 1 of share 0/2 to do -> {tmp_path / 'out'}\n" in said
    assert f"4 videos in 2 units, 0 of share 0/2 to do -> {tmp_path / 'out'}\n" in said
    assert "note: the labels of 1 unit were made with other agreement settings" in said


def test_the_bar_shows_a_name_as_it_is_and_obeys_nothing_in_it(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr("pipelines.terminal.progress.console", terminal)
    monkeypatch.setattr(terminal_module, "SLOW_S", 0.0)
    monkeypatch.setattr(terminal_module, "REFRESH_S", 0.0)
    with LabelProgress() as shown:
        shown.show(PLANNED)
        shown.show(ClipStarted(0, "/v/[/red]\x1b]0;owned\x07.mp4", "key"))
    assert "/v/[/red]?]0;owned?.mp4" in terminal.file.getvalue()


def test_a_clip_that_takes_long_is_named():
    with JobProgress(videos=2) as progress:
        progress.count(ClipStarted(0, "slow.mp4", "key"))
        snapshot = dataclasses.replace(progress.snapshot(), oldest_s=4000.0)
    assert "slow: slow.mp4: teachers for 67 min" in counts(snapshot)


@pytest.mark.parametrize(
    ("oldest_s", "median_s", "named"),
    [
        (61, None, True),
        (59, None, False),
        (6, 0.1, True),
        (4, 0.1, False),
        (50, 1.0, True),
        (59, 8.0, False),
        (61, 8.0, True),
    ],
)
def test_a_clip_is_named_as_slow_after_a_minute_or_ten_times_the_median(oldest_s, median_s, named):
    with JobProgress(2) as progress:
        progress.count(ClipStarted(0, "a.mp4", "key"))
        snapshot = dataclasses.replace(progress.snapshot(), oldest_s=oldest_s, median_s=median_s)
    assert ("slow: a.mp4" in counts(snapshot)) == named


def test_the_median_is_of_the_time_with_the_teachers():
    with JobProgress(2) as progress:
        # of a unit that gets another teacher: nobody said when it began
        progress.count(ClipDone(7, "stored before", 1))
        assert progress.snapshot().median_s is None
        for _ in range(3):
            progress.count(ClipStarted(0, "a.mp4", "key"))
            progress.count(ClipDone(0, "key", 1))
        assert 0 <= progress.snapshot().median_s < 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (600, "10 min"), (9000, "2.5 h"), (260_000, "3.0 days")]
)
def test_a_duration_is_told_in_words(seconds, text):
    assert duration(seconds) == text
