"""`tapdistill inspect`: what the report holds, and what a real browser makes of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, write_moving
from labeler import open_dataset
from labeler.labels.agreement import OCCLUDED, stack
from labeler.video.encode import EncodeConfig, decode_clip, encode_clip
from pipelines import cli
from pipelines.jobs.labelling import label
from pipelines.reports import dataset as inspect_report
from pipelines.reports.measures import measure
from pipelines.reports.page import statistics_of, templates
from pipelines.reports.thumbnail import WIDTH_PX, key_frame, thumbnail
from teachers import ShardError
from tests.support.browser import Browser
from tests.support.jobs import FAR

HOSTILE = "<img src=x onerror=alert(1)> \"' \u202e"
"""With a mark that turns round the text behind it, where it is not replaced."""
SHOWN = HOSTILE.replace("\u202e", "?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four clips: two of a.mp4 by `Still` and `Near`, one of b.mp4, one of a hostile name; and a
    file that is no video."""
    root = tmp_path_factory.mktemp("inspect")
    (root / "videos").mkdir()
    for seed, (name, frames) in enumerate((("a.mp4", 34), ("b.mp4", 16), (f"{HOSTILE}.mp4", 16))):
        write_moving(root / "videos" / name, seed, frames)
    (root / "videos" / f"{HOSTILE} broken.mp4").write_text("no video")
    label(config(root / "videos", root / "labels", (STILL, NEAR)))
    return root


def inspect(folder, *flags):
    return cli.run(["inspect", str(folder / "labels"), *map(str, flags)])


@pytest.fixture(scope="module")
def page(folder):
    assert inspect(folder, "--out", folder / "report") == 0
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def split_page(folder):
    """The same report, whose players are too large for one page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect_report, "ONE_FILE_BYTES", 10_000)
        assert inspect(folder, "--out", folder / "split.html") == 0
    return folder / "split.html"


class Page(HTMLParser):
    """Tags, the addresses that they load, and text, as an HTML parser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value
            for name, value in attrs
            if name in {"src", "href", "poster", "srcset", "action", "data"}
        ]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


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


# --- in a browser


@pytest.fixture(scope="module")
def browser(chromium, page, tmp_path_factory):
    browser = Browser(chromium, page, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


HELPERS = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (true_) => { while (!true_()) await wait(20); };
const type = (element, value) => {
  element.value = value;
  element.dispatchEvent(new Event("input", { bubbles: true }));
};
const rows = () => [...document.querySelectorAll(".clips tbody tr")];
const shown = () => rows().filter((row) => !row.hidden && row.offsetHeight);
const column = (name) => {
  const heads = [...document.querySelectorAll(".clips th")];
  const at = heads.findIndex((each) => each.innerText.startsWith(name));
  return shown().map((row) => row.children[at].dataset.value);
};
const press = (key) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  return document.activeElement.dispatchEvent(event);
};
const player = () => document.querySelector("dialog .player");
const openFirst = async () => {
  shown()[0].querySelector(".open").click();
  await until(() => player()?.dataset.frame);
};
"""


def ask(browser, script):
    return browser.evaluate(f"(async () => {{ {HELPERS} {script} }})()")


@pytest.mark.slow
def test_the_table_is_filtered_by_name_and_by_share_kept(browser):
    told = ask(
        browser,
        """
        const counts = [];
        for (const words of ["a.mp4", "A.MP4", "onerror", "nothing like this", ""]) {
          type(document.querySelector("#words"), words);
          counts.push([shown().length, document.querySelector("#count").value]);
        }
        type(document.querySelector("#band"), "0 0");
        counts.push([shown().length, ""]);
        type(document.querySelector("#band"), "0 1");
        return counts;""",
    )
    assert told == [
        [2, "2 of 4 clips"],
        [2, "2 of 4 clips"],
        [1, "1 of 4 clips"],
        [0, "0 of 4 clips"],
        [4, "4 of 4 clips"],
        [0, ""],
    ]


@pytest.mark.slow
def test_a_heading_sorts_and_once_more_turns_it_round(browser):
    told = ask(
        browser,
        """
        const sorts = [...document.querySelectorAll(".sort")];
        const button = (name) => sorts.find((each) => each.innerText.startsWith(name));
        const seen = [];
        for (const name of ["Source", "Source", "Disagreement", "Disagreement"]) {
          button(name).click();
          seen.push(column(name));
        }
        return [...seen, document.querySelectorAll("[aria-sort]").length];""",
    )
    up, down, most, least, sorted_columns = told
    names = [uri.rpartition("/")[2] for uri in up]
    assert names[-3:] == ["a.mp4", "a.mp4", "b.mp4"]
    assert down == up[::-1]
    assert [float(value) for value in most] == sorted(map(float, most), reverse=True)
    assert [float(value) for value in least] == sorted(map(float, least))
    assert sorted_columns == 1


@pytest.mark.slow
def test_a_clip_opens_plays_and_switches_teachers(browser):
    told = ask(
        browser,
        """
        await openFirst();
        const focused = document.activeElement === player();
        const video = player().querySelector("video");
        const before = Number(player().dataset.drawn);
        press("1");
        const without = Number(player().dataset.drawn);
        press("1"); press("ArrowRight"); press("ArrowRight");
        const frame = player().dataset.frame, line = document.querySelector("dialog .playhead");
        const playhead = Number(line.getAttribute("x1"));
        press(" ");
        await until(() => !video.paused && Number(player().dataset.frame) > 4);
        press(" ");
        const open = document.querySelector("dialog").open;
        return [focused, before, without, frame, playhead, open, location.hash];
        """,
    )
    focused, before, without, frame, playhead, is_open, address = told
    assert (focused, before, without, frame, is_open) == (True, 48, 24, "2", True)
    assert playhead == pytest.approx(300 * 2 / 15)
    assert len(address) > 1


@pytest.mark.slow
def test_keys_go_through_the_clips_and_closing_leaves_nothing_playing(browser):
    told = ask(
        browser,
        """
        if (!document.querySelector("dialog").open) await openFirst();
        const key = () => player().getAttribute("aria-label"), first = key();
        press("n"); await until(() => key() !== first);
        const second = key();
        press("p"); await until(() => key() === first);
        document.querySelector("dialog").close(); await until(() => !player());
        const back = document.activeElement.className;
        const videos = document.querySelectorAll("video").length;
        press("/");
        return [first !== second, videos, location.hash, back, document.activeElement.id];""",
    )
    assert told == [True, 0, "", "open", "words"]


@pytest.mark.slow
def test_the_keyboard_alone_opens_a_clip_and_the_focus_is_always_seen(browser):
    focus = """(() => { const at = document.activeElement; return [at.id || at.className,
        getComputedStyle(at.matches(".player") ? at.querySelector(".stage") : at).outlineStyle
          !== "none"]; })()"""
    ask(
        browser,
        "document.querySelector('dialog').close(); await wait(50); scrollTo(0, 0); "
        "document.activeElement.blur();",
    )
    browser.press("/")
    seen = [browser.evaluate(focus)]
    for _ in range(8):
        browser.press("Tab")
        seen.append(browser.evaluate(focus))
    assert seen == [["words", True], ["band", True], *[["sort", True]] * 6, ["open", True]]
    browser.press("Enter")
    ask(browser, "await until(() => player()?.dataset.frame)")
    assert browser.evaluate(focus) == ["player", True]
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert ask(browser, "return player().dataset.frame") == "2"
    browser.press(" ")
    assert ask(browser, "await wait(50); return player().querySelector('video').paused") is False
    browser.press("Escape")
    ask(browser, "await until(() => !player())")
    assert browser.evaluate(focus) == ["open", True]


@pytest.mark.slow
def test_a_player_beside_the_page_opens_the_same(chromium, split_page, tmp_path):
    browser = Browser(chromium, split_page, tmp_path)
    try:
        told = ask(
            browser,
            """
            await openFirst();
            const drawn = player().dataset.drawn;
            document.querySelector("dialog").close(); await until(() => !player());
            const row = shown()[1];
            row.dataset.file = "missing.js";
            row.querySelector(".open").click();
            await until(() => document.querySelector("dialog").open);
            return [drawn, document.querySelector(".opened").innerText];""",
        )
        assert told == [
            "48",
            "Could not read missing.js: it belongs into the same folder as this page.",
        ]
        assert browser.evaluate("document.documentElement.dataset.error ?? null") is None
    finally:
        browser.close()


@pytest.mark.slow
def test_the_page_has_no_error(browser):
    assert browser.evaluate("document.documentElement.dataset.error ?? null") is None
