"""The report: what the file holds, and what a real browser makes of it."""

import base64
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from labeler.labels.agreement import AgreementConfig, label
from labeler.labels.sample import Sample
from labeler.reasons import LeftOut
from labeler.show.player import frame_times
from labeler.video.encode import encode_clip
from pipelines.reports.page import Account, Figure, Report, Table, clip_view, render, write_report
from teachers import Tracks, VisibleRule
from tests.support.browser import FLAGS, Browser

HOSTILE = "</script><script>alert(1)</script>"
T, HEIGHT, WIDTH, FPS = 24, 96, 128, 30000 / 1001
DARKEST, STEP = 30, 8
"""Frame t of the clip is grey with the level DARKEST + STEP * t, so that a picture tells its
frame."""
VOID = {"meta", "input", "img"}


@pytest.fixture(scope="module")
def sample():
    """Eight points that go right by 2 px a frame; "b" is 0.5 px off, "c" far off, and "b" does not
    track the first frame."""
    frames = np.stack([np.full((HEIGHT, WIDTH, 3), DARKEST + STEP * t, np.uint8) for t in range(T)])
    queries = np.array([[0, 10 + 5 * i, 10 + 10 * i] for i in range(8)], np.float32)
    right = queries[:, None, 1:] + np.stack([2.0 * np.arange(T), np.zeros(T)], -1)
    off_by = {"a": 0.0, "b": 0.5, "c": 30.0}
    sure = np.full((8, T), 0.95, np.float32)
    tracks = {
        name: Tracks((right + np.array([off, 0])).astype(np.float32), sure.copy(), sure.copy())
        for name, off in off_by.items()
    }
    tracks["b"].xy[:, 0] = np.nan
    tracks["a"].visibility[:, 20:] = 0.1
    rules = {name: VisibleRule("v", 0.9) for name in tracks}
    meta = {
        "source": {"uri": f"s3://clips/{HOSTILE}.mp4"},
        "height": HEIGHT,
        "width": WIDTH,
        "frame_indices": list(range(T)),
        "teachers": {
            name: {"name": name, "visible_rule": "v > 0.9", "licence": "Apache-2.0"}
            for name in tracks
        },
    }
    labels = label(tracks, rules, queries, (HEIGHT, WIDTH), AgreementConfig(min_support=0.5))
    sampler = np.array(["sift"] * 6 + ["uniform"] * 2)
    return Sample(
        "0a1b2c-000000-1", encode_clip(frames, FPS), queries, sampler, tracks, labels, meta
    )


@pytest.fixture(scope="module")
def report(sample):
    scores = pd.DataFrame(
        {"name": ["a", HOSTILE, "student"], "AJ": [60.04, float("nan"), 64.5], "ms": [3, 41, 41]}
    )
    return Report(
        title=f"Report {HOSTILE}",
        subtitle="three trackers",
        figures=(Figure(value="1", label="clip"),),
        clips=(clip_view(sample),),
        tables=(Table(title="Scores", frame=scores, best={"AJ": "max", "ms": "min"}),),
        accounts=(
            Account(
                what="video",
                total_name="planned",
                parts={"done": 1, "left out": 0, "failed": 1, "open": 0},
            ),
        ),
        rows=(
            LeftOut(
                uri=f"https://example.org/{HOSTILE}",
                what="video",
                stage="scan",
                reason="empty",
                detail=HOSTILE,
            ),
        ),
        settings={"tau_px": 2.0},
        commands=("tapdistill label 'a & b' --out labels",),
    )


class Page(HTMLParser):
    """What an HTML parser sees: elements, the addresses they load, text, and whether tags are
    closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.text, self.bold = [], [], "", []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value
            for name, value in attrs
            if name in {"src", "href", "poster", "srcset", "action", "data"}
        ]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "b":
            self.bold.append(data)
        if self._open and self._open[-1] not in {"script", "style"}:
            self.text += data


@pytest.fixture(scope="module")
def page(report):
    return Page(render(report))


def test_the_page_loads_nothing_from_elsewhere(page, report):
    assert page.loads
    assert all(
        address.startswith(("data:video/mp4;base64,", "data:image/jpeg;base64,"))
        for address in page.loads
    )
    assert "url(" not in render(report)
    assert "@import" not in render(report)
    assert "default-src 'none'" in render(report)


def test_names_from_files_are_text_and_never_tags(page):
    assert page.tags.count("script") == 2  # the tracks and the player
    assert page.text.count(HOSTILE) >= 4  # title, table, source, detail


def test_a_hostile_tracker_name_cannot_leave_the_data_of_the_player(sample):
    extra = {HOSTILE: (sample.tracks["a"], VisibleRule("v", 0.9))}
    page = Page(render(Report(title="x", clips=(clip_view(sample, extra=extra),))))
    assert page.tags.count("script") == 2


def test_the_best_of_each_column_is_bold(page):
    assert page.bold == ["3", "64.5"]
    assert "60.0" in page.text
    assert "–" in page.text  # the missing score


def test_reasons_are_counted_and_explained(page):
    assert "2 videos planned" in page.text
    assert "the file has no bytes" in page.text


def test_an_empty_report_is_a_page():
    assert Page(render(Report(title="nothing yet"))).text.count("nothing yet") == 2


def test_the_tracks_of_the_player_are_those_of_the_sample(sample):
    player = clip_view(sample).player
    assert player["trackers"] == ["a", "b", "c"]
    xy = np.frombuffer(base64.b64decode(player["xy"]), "<i2").reshape(3, 8, T, 2)
    for k, name in enumerate(player["trackers"]):
        back = np.where(xy[k] == -(2**15), np.nan, xy[k] / 16)
        np.testing.assert_allclose(back, sample.tracks[name].xy, atol=1 / 32)
    sees = np.frombuffer(base64.b64decode(player["sees"]), np.uint8).reshape(3, 8, T)
    assert sees[0, :, :20].all()
    assert not sees[0, :, 20:].any()


def test_at_most_so_many_points_are_shown_and_the_page_says_so(sample):
    view = clip_view(sample, points_shown=3)
    assert view.player["points"] == 3
    assert re.search(
        r"show 3 of the\s+8 points", Page(render(Report(title="x", clips=(view,)))).text
    )


def test_the_statistics_are_those_worked_by_hand(sample):
    statistics = clip_view(sample).statistics
    # a and b, within 2 px; c is 60 px away
    np.testing.assert_allclose(statistics.support[1:20], 2 / 3, atol=1e-6)
    assert statistics.distance_px[0, 1] == pytest.approx(0.5 * 256 / WIDTH)
    assert statistics.distance_px[0, 2] == pytest.approx(30 * 256 / WIDTH)
    assert statistics.histogram.sum() == pytest.approx(1)
    assert {name: drawn for name, (_, drawn) in statistics.kept.items()} == {
        "sift": 6,
        "uniform": 2,
    }


def test_pictures_show_the_central_teacher(sample):
    # b lies 0.5 px from a and 29.5 px from c: 30 in all, a has 30.5, c has 59.5
    captions = [picture.caption for picture in clip_view(sample).pictures]
    assert captions[0] == "frame 4: b, what became a label"
    assert captions[-1] == "frame 12: b, all points, by support"


def test_another_tracker_stands_beside_the_teachers(sample):
    student = Tracks(
        sample.tracks["a"].xy + np.float32(1),
        sample.tracks["a"].visibility,
        sample.tracks["a"].confidence,
    )
    view = clip_view(sample, extra={"student, after": (student, VisibleRule("none"))})
    assert view.player["trackers"] == ["a", "b", "c", "student, after"]
    assert view.statistics.distance_px.shape == (4, 4)
    assert "what became a label" in view.pictures[0].caption


def test_a_frame_is_shown_at_its_number_over_fps(sample):
    np.testing.assert_allclose(frame_times(sample.mp4), np.arange(T) / FPS, atol=1e-4)


def attribute(dom, name):
    found = re.search(rf'{name}="([^"]*)"', dom)
    return found and found[1]


@pytest.mark.slow
def test_a_browser_draws_every_tracked_point_of_the_frame_in_the_address(
    tmp_path, report, chromium
):
    write_report(tmp_path / "report.html", report)
    address = f"{(tmp_path / 'report.html').as_uri()}#0a1b2c-000000-1@12"
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        address,
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert attribute(dom, "data-error") is None
    assert attribute(dom, "data-frame") == "12"
    assert attribute(dom, "data-drawn") == "24"
    assert "frame 12 of 23" in dom


@pytest.fixture(scope="module")
def browser(chromium, report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    write_report(folder / "report.html", report)
    browser = Browser(chromium, folder / "report.html", folder / "profile")
    yield browser
    browser.close()


HELPERS = """
const player = players[0], video = player.video;
const probe = document.createElement("canvas").getContext("2d");
const shown = [];  // [frame that the tracks are drawn for, grey level of the picture]
const look = () => {
  probe.drawImage(video, 0, 0, 1, 1);
  shown.push([player.frame, probe.getImageData(0, 0, 1, 1).data[0]]);
};
const press = (key) => {
  player.root.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
};
const presented = () => new Promise((done) => {
  video.requestVideoFrameCallback((now, { mediaTime }) => done(mediaTime));
});
const step = async (key) => {  // a picture that an earlier seek asked for may still come first
  press(key);
  while (player.frameAt(await presented() + 0.001) !== player.frame);
  look();
};
"""


def frames_of(shown):
    """(frame of the tracks, frame of the picture), as the browser showed them."""
    return [(frame, round((grey - DARKEST) / STEP)) for frame, grey in shown]


@pytest.mark.slow
def test_the_arrow_keys_show_every_frame_of_the_video_under_its_own_tracks(browser):
    shown = browser.evaluate(
        f"""(async () => {{ {HELPERS}
        await step("End");
        while (player.frame > 0) await step("ArrowLeft");
        while (player.frame < player.times.length - 1) await step("ArrowRight");
        return shown; }})()"""
    )
    assert frames_of(shown) == [(t, t) for t in [*range(T - 1, -1, -1), *range(1, T)]]


@pytest.mark.slow
def test_the_last_frame_stays_when_it_is_asked_for_again(browser):
    shown = browser.evaluate(
        f"""(async () => {{ {HELPERS}
        for (let i = 0; i < 2; i++) {{
          press("End");
          await new Promise((done) => setTimeout(done, 300));
        }}
        look(); return shown; }})()"""
    )
    # Chromium shows frame 0 if the video has the attribute "loop"
    assert frames_of(shown) == [(T - 1, T - 1)]


@pytest.mark.slow
def test_the_tracks_keep_step_with_the_playing_video(browser):
    shown = browser.evaluate(
        f"""(async () => {{ {HELPERS}
        player.seek(5); await step("Home");
        const speed = player.root.querySelector(".speed");
        // slow: a busy machine may report a frame late
        speed.value = "0.25"; speed.dispatchEvent(new Event("change"));
        press(" ");
        for (let i = 0; i < 10; i++) {{ await presented(); look(); }}
        await step(" ");
        return shown; }})()"""
    )
    assert all(tracks == picture for tracks, picture in frames_of(shown))
    assert len({tracks for tracks, _ in frames_of(shown)}) > 5


@pytest.mark.slow
def test_switches_choose_what_is_drawn(browser):
    drawn = browser.evaluate(
        f"""(async () => {{ {HELPERS}
        const click = (name, i = 0) => {{
          player.root.querySelectorAll(name)[i].click();
          return Number(player.root.dataset.drawn);
        }};
        player.seek(22);
        const drawn = [[".tracker", 1], [".tracker", 1], [".tracker", 0], [".labels"]];
        return [...drawn.map((at) => click(...at)), document.documentElement.dataset.error];
        }})()"""
    )
    # in frame 22 a says occluded, and b and c disagree: nothing becomes a label
    assert drawn == [16, 24, 16, 0, None]
