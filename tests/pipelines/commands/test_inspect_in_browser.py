"""`tapdistill inspect` in a real browser: the table of clips, and the players that it opens."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.browser import Browser, evaluate_with


@pytest.fixture(scope="module")
def browser(chromium, page, tmp_path_factory):
    browser = Browser(chromium, page, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


pytestmark = pytest.mark.slow

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


ask = partial(evaluate_with, HELPERS)


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
    for _ in range(9):
        browser.press("Tab")
        seen.append(browser.evaluate(focus))
    assert seen == [["words", True], ["band", True], *[["sort", True]] * 7, ["open", True]]
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


def test_an_address_opens_a_clip_at_a_frame(browser):
    told = ask(
        browser,
        """
        const key = rows()[2].dataset.key;
        location.hash = `#${key}@12`;
        await until(() => player()?.dataset.frame === "12");
        const said = [player().getAttribute("aria-label").includes(key), player().dataset.drawn];
        document.querySelector("dialog").close();
        return said;""",
    )
    assert told == [True, "48"]


def test_the_page_has_no_error(browser):
    assert browser.evaluate("document.documentElement.dataset.error ?? null") is None
