"""`tapdistill inspect`: what the report holds, and what a real browser makes of it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config
from labeler import open_dataset
from labeler.labels.agreement import OCCLUDED, stack
from labeler.labels.labelled import labelled
from labeler.video.encode import EncodeConfig, decode_clip, encode_clip
from pipelines.jobs.labelling import label
from pipelines.reports import dataset as inspect_report
from pipelines.reports.measures import measure, with_teachers
from pipelines.reports.page import statistics_of, templates
from pipelines.reports.thumbnail import WIDTH_PX, key_frame, thumbnail
from teachers import ShardError
from tests.support.html_page import Page
from tests.support.inspecting import HOSTILE, inspect
from tests.support.jobs import FAR

OLD = Path(__file__).parents[2] / "data" / "dataset_schema1"
SHOWN = HOSTILE.replace("\u202e", "?")


# --- what the file holds


def test_one_file_holds_all_of_a_small_report(page):
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    loads = Page(page.read_text()).loads
    assert len(loads) == 2 * 4  # a thumbnail and a video for each clip
    assert all(
        address.startswith(("data:video/mp4;base64,", "data:image/jpeg;base64,"))
        for address in loads
    )


def test_names_from_files_are_text_and_never_tags(page):
    seen = Page(page.read_text())
    assert seen.tags.count("script") == 1 + 4  # ours, and the data of each player
    assert f"{SHOWN}.mp4" in seen.text
    assert f"{SHOWN} broken.mp4" in seen.text
    assert "\u202e" not in seen.text


def test_the_page_says_what_failed_and_what_the_licences_allow(page):
    text = " ".join(Page(page.read_text()).text.split())
    for part in (
        "4 videos planned",
        "1 failed",
        "not-a-video",
        "All 4 clips",
        "commercial use",
        "Points kept, by motion",
    ):
        assert part in text


def test_a_sample_of_the_clips_is_drawn_and_the_page_says_so(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path, "--clips", 2, "--seed", 3) == 0
    page = Page((tmp_path / "index.html").read_text())
    assert "2 of 4 clips, drawn at random, seed 3" in page.text
    assert page.tags.count("video") == 2
    assert "2 of 4 clips" in capsys.readouterr().out


def test_the_hardest_clips_come_first(folder, tmp_path):
    dataset = open_dataset(str(folder / "labels"))
    assert inspect(folder, "--out", tmp_path, "--clips", 3, "--which", "hardest") == 0
    keys = re.findall(r'<tr id="row-\d+" data-key="([^"]*)"', (tmp_path / "index.html").read_text())
    assert keys == [clip.key for clip in dataset.sample("hardest", 3)]


def test_only_the_teachers_that_are_asked_for_are_shown(folder, tmp_path):
    assert inspect(folder, "--out", tmp_path, "--teachers", "near") == 0
    text = (tmp_path / "index.html").read_text()
    assert '"trackers": ["near"]' in text
    assert '"still"' not in text
    assert "are those of near alone" in text


def test_an_unknown_teacher_is_named(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path, "--teachers", "far") == 1
    assert re.search(
        r"--teachers far: labelled nothing in .*; there are near, still", capsys.readouterr().err
    )


def test_the_labels_of_a_policy_are_shown_if_one_is_named(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path) == 0
    assert "Labels are those by agreement." in (tmp_path / "index.html").read_text()
    assert "4 of 4 clips, labels by agreement," in capsys.readouterr().out
    flags = ("--policy", "verified", "--trust.min-right", 0.3, "--trust.min-hidden", 0.7)
    assert inspect(folder, "--out", tmp_path, *flags) == 0
    how = "verified (min-right 0.3, min-hidden 0.7)"
    text = (tmp_path / "index.html").read_text()
    assert f"All 4 clips; labels by {how}." in text
    assert f"Labels drawn at random, by {how}<" in text
    assert text.count('"label_by": "verified"') == 4
    assert f"4 of 4 clips, labels by {how}," in capsys.readouterr().out


def test_a_policy_that_does_not_fit_is_refused(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path / "report", "--policy", "oracle") == 1
    assert "--policy oracle: needs exact tracks" in capsys.readouterr().err
    shutil.copytree(OLD, tmp_path / "labels")
    assert inspect(tmp_path, "--out", tmp_path / "report", "--policy", "verified") == 1
    assert "--policy verified: no verifier has judged these labels" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(("flags", "by"), [((), ("near", "still")), (("medoid",), ("still",))])
def test_with_some_teachers_labels_are_of_all_but_a_policy_takes_of_these(
    folder, tmp_path, flags, by
):
    policy = ("--policy", *flags) if flags else ()
    assert inspect(folder, "--out", tmp_path, "--teachers", "still", *policy) == 0
    text = (tmp_path / "index.html").read_text()
    payload = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])
    whole = open_dataset(str(folder / "labels"))[payload["key"]]
    (clip,) = with_teachers([whole], by)
    expected = labelled(clip, *flags)
    kind = np.frombuffer(base64.b64decode(payload["label"]), np.uint8)
    xy = np.frombuffer(base64.b64decode(payload["label_xy"]), "<i2").reshape(-1, 2)
    assert kind.any()
    np.testing.assert_allclose(
        xy[kind == 1] / 16, expected.xy.reshape(-1, 2)[kind == 1], atol=1 / 32
    )


def test_without_a_report_the_terminal_has_the_summary(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert inspect(folder, "--out", "None") == 0
    said = capsys.readouterr().out
    for part in (
        "4 with 64 frames",
        "video: not-a-video",
        "kept, by sampler",
        "kept, by motion",
        "median distance",
    ):
        assert part in said
    assert "nan" not in said
    assert not any(tmp_path.iterdir())


def test_without_a_terminal_a_line_says_how_far_the_report_is(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("pipelines.terminal.progress.LINE_EVERY_S", -1)  # always due
    assert inspect(folder, "--out", tmp_path) == 0
    assert re.search(r"drawing: 3/4 clips · about \d+ s left", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(("--clips", "0"), "--clips 0: must be in 1-2,000"), (("--clips", "2001"), "--clips 2001")],
)
def test_a_number_of_clips_that_cannot_be_is_refused(folder, tmp_path, flags, said, capsys):
    assert inspect(folder, "--out", tmp_path / "report", *flags) == 1
    assert said in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said_in_a_sentence(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert inspect(folder, "--out", tmp_path / "file" / "report") == 1
    assert re.search(r"could not write --out .*file/report/index.html", capsys.readouterr().err)


def test_a_data_set_with_failures_only_has_a_report_too(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("no video")
    label(config(tmp_path / "videos", tmp_path / "labels"))
    assert inspect(tmp_path, "--out", tmp_path / "report") == 0
    text = Page((tmp_path / "report" / "index.html").read_text()).text
    assert "No clip is labelled yet; the reasons are below" in text
    assert "not-a-video" in text


def test_a_data_set_in_which_nothing_is_done_yet_has_a_report_too(dataset, tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    for name in ("dataset.json", "plan.0000.parquet"):
        shutil.copy(dataset.folder / name, tmp_path / "labels")
    assert inspect(tmp_path, "--out", tmp_path / "report") == 0
    text = Page((tmp_path / "report" / "index.html").read_text()).text
    assert "No teacher has labelled anything yet" in text
    assert "No clip is labelled yet." in text
    assert "0 of 0 clips" in capsys.readouterr().out


def test_one_teacher_has_no_distances(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path, "--teachers", "near") == 0
    page, said = (tmp_path / "index.html").read_text(), capsys.readouterr().out
    overview = page[: page.index('id="clips"')]
    assert "Points kept, by sampler" in overview
    assert "Median distance" not in overview
    assert "median distance" not in said


def test_a_data_set_that_is_still_being_written_has_one_of_what_is_there(dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path / "labels")
    for name in ("clips.parquet", "failures.parquet", "records.parquet", "shards/000001.r0.json"):
        (tmp_path / "labels" / name).unlink()
    assert inspect(tmp_path, "--out", tmp_path / "report.html") == 0
    text = Page((tmp_path / "report.html").read_text()).text
    assert "2 of 3 units are written" in text
    assert "videos are still open" in text
    assert "All 4 clips" in text


def test_clips_of_other_teachers_are_left_out(folder, tmp_path):
    """A data set whose units have different teachers, as while a third is being added."""
    shutil.copytree(folder / "labels", tmp_path / "labels")
    label(config(folder / "videos", tmp_path / "labels", (STILL, NEAR, FAR)))
    for later in sorted((tmp_path / "labels" / "shards").glob("000001.r1.*")):
        later.unlink()
    (tmp_path / "labels" / "records.parquet").unlink()
    dataset = open_dataset(str(tmp_path / "labels"))
    by_far = dataset.clips["teachers"].str.contains("far").sum()
    assert 0 < by_far < len(dataset)
    assert inspect(tmp_path, "--out", tmp_path / "report", "--teachers", "far") == 0
    assert (tmp_path / "report" / "index.html").read_text().count("<video") == by_far


# --- the small pictures


@pytest.fixture
def growing_light():
    """30 frames, each lighter than the one before; key frames are 0, 12, and 24."""
    return np.repeat(np.linspace(40, 220, 30, dtype=np.uint8), 48 * 64 * 3).reshape(30, 48, 64, 3)


def test_a_thumbnail_shows_the_key_frame_nearest_the_middle(growing_light):
    mp4 = encode_clip(growing_light, fps=24, config=EncodeConfig(key_frame_distance=12))
    number, picture = key_frame(mp4, (48, 64), "clip.mp4")
    assert number == 12
    assert picture.shape == (WIDTH_PX * 48 // 64, WIDTH_PX, 3)
    # frames are 6 apart
    np.testing.assert_allclose(picture.mean((0, 1)), decode_clip(mp4)[12].mean((0, 1)), atol=2.5)


def test_a_clip_of_one_frame_has_a_thumbnail(growing_light):
    assert key_frame(encode_clip(growing_light[:1], fps=24), (48, 64), "clip.mp4")[0] == 0


@pytest.mark.parametrize("damage", [lambda mp4: b"no video", lambda mp4: mp4[: len(mp4) // 3]])
def test_a_damaged_clip_is_named(growing_light, damage):
    mp4 = encode_clip(growing_light, fps=24)
    with pytest.raises(ShardError, match=r"clip\.mp4: not a readable mp4 .* `tapdistill verify`"):
        key_frame(damage(mp4), (48, 64), "clip.mp4")


def test_only_labels_are_drawn_on_a_thumbnail(folder):
    clip = open_dataset(str(folder / "labels"))[0]
    nothing = replace(clip, labels=replace(clip.labels, keep=np.zeros_like(clip.labels.keep)))
    occluded = replace(
        clip, labels=replace(clip.labels, state=np.full_like(clip.labels.state, OCCLUDED))
    )
    assert thumbnail(nothing, "near") == thumbnail(occluded, "near") != thumbnail(clip, "near")


# --- what is measured


def test_agreed_occlusions_are_no_disagreement(folder):
    """Their support is low, as hardly any teacher sees the point."""
    dataset = open_dataset(str(folder / "labels"))
    clip = dataset[0]
    state, support = clip.labels.state.copy(), clip.labels.support.copy()
    for some in (np.s_[:, 2], np.s_[:9, 4:8]):
        state[some], support[some] = OCCLUDED, 0.25
    hidden = replace(clip, labels=replace(clip.labels, state=state, support=support))
    np.testing.assert_array_equal(
        measure([hidden], dataset).histogram, measure([clip], dataset).histogram
    )
    stacked = stack(clip.tracks, clip.rules, clip.size_hw)
    expected = statistics_of(clip, stacked).support
    expected[2] = np.nan
    np.testing.assert_array_equal(statistics_of(hidden, stacked).support, expected)


def test_a_curve_has_no_place_where_there_is_nothing_to_measure():
    line = (
        templates().get_template("charts.html.j2").module.line([0.5, float("nan"), 1.0], "support")
    )
    assert re.search(r'points="([^"]*)"', line)[1].split() == ["0.0,40.0", "300.0,0.0"]


def test_a_sample_without_one_clip_of_the_teachers_has_a_report(folder, tmp_path):
    dataset = open_dataset(str(folder / "labels"))
    written = inspect_report.write_report(
        tmp_path / "index.html", dataset, [], ["near", "still"], measure([], dataset), "none"
    )
    assert written.clips == 0


# --- many clips


def test_players_too_large_for_one_page_are_scripts_beside_it(split_page):
    seen = Page(split_page.read_text())
    assert seen.tags.count("video") == 0
    files = sorted(path.name for path in split_page.with_name("split-clips").iterdir())
    assert files == [f"{number:06d}.js" for number in range(4)]


def test_a_report_replaces_the_players_of_the_one_before(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_report, "ONE_FILE_BYTES", 0)
    assert inspect(folder, "--out", tmp_path) == 0
    assert inspect(folder, "--out", tmp_path, "--clips", 1) == 0
    assert [path.name for path in (tmp_path / "index-clips").iterdir()] == ["000000.js"]


def test_the_page_of_500_clips_is_far_below_30_mb(folder, tmp_path, monkeypatch):
    """By the bytes that each further clip adds to the page, when the players are beside it."""
    monkeypatch.setattr(inspect_report, "ONE_FILE_BYTES", 0)
    dataset = open_dataset(str(folder / "labels"))
    sizes = []
    for times in (1, 3):
        clips = [clip for _ in range(times) for clip in dataset]
        inspect_report.write_report(
            tmp_path / "index.html", dataset, clips, dataset.teachers, None, "all"
        )
        sizes.append((tmp_path / "index.html").stat().st_size)
    a_clip = (sizes[1] - sizes[0]) / (2 * len(dataset))
    assert sizes[0] + 500 * a_clip < 15e6
