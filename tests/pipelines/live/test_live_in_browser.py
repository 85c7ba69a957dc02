"""The live page in a real browser, with a file as its camera."""

from __future__ import annotations

import asyncio
import threading

import av
import numpy as np
import pytest
from aiohttp import web

from labeler.video import encode_clip
from pipelines.live.server import LiveServer
from pipelines.live.trackers import LiveTrackers
from tests.support.browser import Browser

pytestmark = pytest.mark.slow

HELPERS = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (true_) => {
  for (let i = 0; i < 600 && !true_(); i++) await wait(100);
  if (!true_()) throw new Error(`never: ${true_}; ${$("error").textContent}`);
};
const rows = (title) => state.shown?.tracks[title] ?? [];
"""


@pytest.fixture(scope="module")
def camera(moving, tmp_path_factory):
    """A y4m of 128 x 96 px, which goes there and back, so that it has no cut where it begins
    again."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    with av.open(str(path), "w", format="yuv4mpegpipe") as out:
        stream = out.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for frame in np.concatenate([moving[:20], moving[19::-1]]):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p")))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def address():
    """Of a server in a thread of its own."""
    server = LiveServer(LiveTrackers(["lk", "tapir-mini"], device="cpu"))
    loop, found, ready = asyncio.new_event_loop(), [], threading.Event()

    async def serve():
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.extend([runner, server.serve_at("127.0.0.1", runner.addresses[0][1])])
        ready.set()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    assert ready.wait(30)
    yield found[1]
    asyncio.run_coroutine_threadsafe(found[0].cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    server.close()


@pytest.fixture(scope="module")
def browser(chromium, address, camera, tmp_path_factory):
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )
    browser = Browser(chromium, address, tmp_path_factory.mktemp("profile"), flags)
    yield browser
    browser.close()


def ask(browser, script):
    return browser.evaluate(f"(async () => {{ {HELPERS} {script} }})()")


def test_a_person_turns_on_the_camera_and_puts_a_point(browser):
    where = ask(
        browser,
        """
        await until(() => document.querySelectorAll("#trackers input").length === 2);
        $("camera-first").click();
        await until(() => state.shown?.frame > 2);
        const box = document.querySelector("canvas").getBoundingClientRect();
        return [box.left + box.width * 0.7, box.top + box.height * 0.6];
        """,
    )
    browser.click(*where)  # a real mouse
    told = ask(
        browser,
        """
        await until(() => rows("lk").length && rows("tapir-mini").length);
        const first = rows("lk")[0], from = state.shown.frame;
        await until(() => state.shown.frame > from + 4);
        return {
          size: state.size, put: [...state.points.values()][0], first, last: rows("lk")[0],
          agreement: state.shown.agreement.length, fps: +$("rate").dataset.fps,
          caption: document.querySelector("figcaption").textContent,
        };
        """,
    )
    assert told["size"] == [96, 128]
    assert told["put"]["x"] == pytest.approx(0.7 * 128 - 0.5, abs=0.5)
    assert told["put"]["y"] == pytest.approx(0.6 * 96 - 0.5, abs=0.5)
    # the picture moves along (2, 1), and so does what is followed
    away = np.array(told["last"][1:3]) - [told["put"]["x"], told["put"]["y"]]
    assert abs(away[0] - 2 * away[1]) < 2
    assert told["agreement"] == 1
    assert told["fps"] > 0
    assert "of 1" in told["caption"]


def test_it_pauses_and_goes_on(browser):
    ask(
        browser,
        """
        $("play").click();
        await wait(1500);
        const at = state.shown.frame;
        await wait(1000);
        if (state.shown.frame !== at) throw new Error("it went on");
        $("grid").click();
        await until(() => state.points.size > 10);
        $("play").click();
        await until(() => state.shown.frame > at + 2 && rows("lk").length > 10);
        """,
    )


def test_a_click_on_a_point_removes_it_and_a_button_all(browser):
    before, where = ask(
        browser,
        """
        $("play").click();
        await wait(1500);
        const [, x, y] = rows("lk")[0];
        const panel = document.querySelector("[data-title=lk]");
        const box = panel.querySelector("canvas").getBoundingClientRect();
        return [state.points.size,
          [box.left + (x + 0.5) / 128 * box.width, box.top + (y + 0.5) / 96 * box.height]];
        """,
    )
    browser.click(*where)
    ask(
        browser,
        f"""
        await until(() => state.points.size === {before - 1});
        $("clear").click();
        await until(() => state.points.size === 0);
        """,
    )


def test_both_files_can_be_saved(browser):
    names = ask(
        browser,
        """
        const names = [];
        HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
        for (const button of ["overlay", "tracks"]) {
          await save(button, $(button));
          if (!$("error").hidden) throw new Error($("error").textContent);
        }
        return names;
        """,
    )
    assert names == ["live.mp4", "live.tracks.zip"]


def test_a_video_that_is_chosen_is_played(browser, moving, tmp_path):
    data = list(encode_clip(moving[:10], fps=10))
    told = ask(
        browser,
        f"""
        await openVideo(new File([new Uint8Array({data})], "my clip.mp4"));
        await until(() => state.source === "video" && state.shown);
        if (!state.paused) throw new Error("a person puts points first");
        document.querySelector("[value=agreement]").click();
        $("grid").click();
        await until(() => state.points.size > 10);
        $("play").click();
        await until(() => state.ended);
        return [state.shown.frame, state.shown.agreement.length > 10, state.name,
          $("source").textContent, document.querySelectorAll(".panel").length];
        """,
    )
    assert told == [9, True, "my clip.mp4", "my clip.mp4, 128 × 96, frame 10 of 10", 1]


def test_a_file_that_is_no_video_is_told(browser):
    text = ask(
        browser,
        """
        $("error").hidden = true;
        await openVideo(new File(["no video"], "notes.txt"));
        await until(() => !$("error").hidden);
        return $("error").textContent;
        """,
    )
    assert text.startswith("notes.txt: ")


def test_the_page_loads_nothing_from_elsewhere(browser):
    loaded = ask(
        browser, "return performance.getEntriesByType('resource').map((each) => each.name);"
    )
    assert loaded
    assert all(name.startswith("http://127.0.0.1:") or name.startswith("blob:") for name in loaded)


@pytest.mark.parametrize("width", [400, 1300])
def test_it_fits_wide_and_narrow(browser, width, tmp_path):
    browser.screenshot(tmp_path / "page.png", width, 900, dark=width > 1000)
    assert ask(browser, "return document.documentElement.scrollWidth - innerWidth;") <= 0
