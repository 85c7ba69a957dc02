"""The player shows each frame under its own tracks: against a clip whose pictures tell their
number."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from labeler.show import player
from tests.support.browser import Browser
from tests.support.grey_clip import DARKEST, FPS, STEP, T, grey_clip


@pytest.fixture(scope="module")
def sample():
    return grey_clip()


def test_the_tracks_of_the_player_are_those_of_the_sample(sample):
    payload = player.payload_of(sample)
    assert payload["trackers"] == ["a", "b", "c"]
    xy = np.frombuffer(base64.b64decode(payload["xy"]), "<i2").reshape(3, 8, T, 2)
    for k, name in enumerate(payload["trackers"]):
        back = np.where(xy[k] == -(2**15), np.nan, xy[k] / 16)
        np.testing.assert_allclose(back, sample.tracks[name].xy, atol=1 / 32)
    sees = np.frombuffer(base64.b64decode(payload["sees"]), np.uint8).reshape(3, 8, T)
    assert sees[0, :, :20].all()
    assert not sees[0, :, 20:].any()


def test_a_frame_is_shown_at_its_number_over_fps(sample):
    np.testing.assert_allclose(player.frame_times(sample.mp4), np.arange(T) / FPS, atol=1e-4)


@pytest.fixture(scope="module")
def browser(chromium, sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    (folder / "clip.html").write_text(player.html_of(sample), encoding="utf-8")
    browser = Browser(chromium, folder / "clip.html", folder / "profile")
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
def test_each_tile_shows_its_frame_though_both_sheets_are_filled_and_someone_seeks(browser):
    """The middle of a tile, of which a label leaves the picture free."""
    told = browser.evaluate(
        f"""(async () => {{ {HELPERS}
        const sheets = [...player.root.querySelectorAll(".sheet")];
        const tiles = () => [...player.root.querySelectorAll(".drawn .tile")];
        player.seek(9);
        for (const sheet of sheets) sheet.open = true;
        for (let i = 0; i < 100 && tiles().length < 8; i++) {{
          await new Promise((done) => setTimeout(done, 100));
          if (tiles().length === 3) player.seek(1);
        }}
        await player.filled;
        const grey = (tile, x) => {{
          return tile.firstChild.getContext("2d").getImageData(x, 112, 1, 1).data[0];
        }};
        return tiles().map((tile) => [tile.textContent, grey(tile, 112), grey(tile, 224 + 112)]);
        }})()"""
    )
    assert len(told) == 8
    for text, *greys in told:
        frames = [int(frame) for frame in re.findall(r"frame (\d+)", text)]
        assert [round((grey - DARKEST) / STEP) for grey in greys] == frames


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
