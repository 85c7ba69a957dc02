"""The player: what its page holds, and what a real browser makes of it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from labeler.dataset.review import read_review
from labeler.labels.agreement import DISPUTED
from labeler.show import player
from labeler.show.draw import colour_by
from teachers import Tracks, VisibleRule
from tests.support.browser import Browser
from tests.support.playing import ask

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(clip):
    return clip.show()


def test_a_page_loads_nothing_from_elsewhere(page):
    loads = re.findall(r'(?:src|href)="([^"]{0,30})', page.html)
    assert [load.partition(",")[0] for load in loads] == ["data:video/mp4;base64"]
    assert "default-src 'none'" in page.html
    assert "url(" not in page.html


def test_names_cannot_leave_their_place(clip):
    extra = {HOSTILE: (clip.tracks["near"], VisibleRule("none"))}
    html = player.html_of(replace(clip, key=HOSTILE), extra=extra)
    assert html.count("<script") == 2
    assert "alert(1)</script><" not in html.replace("&lt;", "")


def test_a_notebook_shows_the_page_in_a_frame_that_may_only_run_scripts_and_save(page):
    shown = page._repr_html_()
    assert re.fullmatch(
        r'<iframe srcdoc="[^"]*" title="[^"]*" sandbox="allow-scripts allow-downloads" '
        r'style="[^"]*"></iframe>',
        shown,
    )
    assert unescape(re.search(r'srcdoc="([^"]*)"', shown)[1]) == page.html


def test_a_page_is_saved_as_it_is(page, tmp_path):
    page.save(tmp_path / "clip.html")
    assert (tmp_path / "clip.html").read_text(encoding="utf-8") == page.html


def test_the_payload_holds_what_the_teachers_said(clip):
    payload = player.payload_of(clip, points_shown=5)
    shown = payload["number"]
    assert shown == [0, 6, 12, 17, 23]
    assert (payload["points"], payload["of"]) == (5, 24)

    def array(name):
        return np.frombuffer(base64.b64decode(payload[name]), np.uint8).reshape(2, 5, 16)

    visibility, confidence = array("visibility"), array("confidence")
    np.testing.assert_allclose(
        visibility[1] / 250, clip.tracks["still"].visibility[shown], atol=1 / 250
    )
    assert (confidence == player.UNKNOWN).all()  # these teachers have none
    assert (array("sees")[1] == clip.visible("still")[shown]).all()
    right = clip.verdict.of(["near", "still"])[:, shown]
    np.testing.assert_allclose(array("right") / 250, right, atol=1 / 250)
    hidden = np.frombuffer(base64.b64decode(payload["hidden"]), np.uint8).reshape(5, 16)
    np.testing.assert_allclose(hidden / 250, clip.verdict.hidden[shown], atol=1 / 250)


def test_what_was_not_judged_has_no_trust(clip):
    """A student beside the teachers, or a clip of before."""

    def right(sample, extra=None):
        payload = player.payload_of(sample, points_shown=5, extra=extra)
        return np.frombuffer(base64.b64decode(payload["right"]), np.uint8).reshape(-1, 5, 16)

    student = {"student": (clip.tracks["near"], VisibleRule("none"))}
    assert (right(clip, student)[2] == player.UNKNOWN).all()
    assert (right(clip, student)[:2] != player.UNKNOWN).all()
    assert (right(replace(clip, verdict=None)) == player.UNKNOWN).all()


def test_colours_can_say_how_far_the_verifier_trusts_a_place(clip):
    html = player.html_of(clip, colour="trust")
    assert '<option value="trust" selected>' in html


def test_a_clip_without_a_query_is_a_page_too(clip):
    none = np.zeros(0, int)
    empty = replace(
        clip,
        queries=clip.queries[none],
        sampler=clip.sampler[none],
        tracks={name: Tracks.nan(0, 16) for name in clip.tracks},
        labels=replace(
            clip.labels,
            **{
                name: getattr(clip.labels, name)[none]
                for name in ("support", "spread", "state", "valid", "keep")
            },
        ),
        verdict=replace(
            clip.verdict, right=clip.verdict.right[:, none], hidden=clip.verdict.hidden[none]
        ),
    )
    assert "all 0 points" in empty.show().html


@pytest.fixture(scope="module")
def browser(chromium, page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    page.save(folder / "clip.html")
    browser = Browser(chromium, folder / "clip.html", folder / "profile")
    yield browser
    browser.close()


@pytest.mark.slow
def test_keys_step_and_switch_teachers(browser):
    told = ask(
        browser,
        """
        const seen = [];
        const keys = ["Home", "ArrowRight", "ArrowRight", "ArrowLeft"];
        keys.push("1", "2", "1", "2", "9", "End");
        for (const key of keys) {
          const { frame, drawn } = press(key);
          seen.push([key, Number(frame), Number(drawn)]);
        }
        return seen;""",
    )
    assert told == [
        ["Home", 0, 48], ["ArrowRight", 1, 48], ["ArrowRight", 2, 48], ["ArrowLeft", 1, 48],
        ["1", 1, 24], ["2", 1, 0], ["1", 1, 24], ["2", 1, 48], ["9", 1, 48], ["End", 15, 48],
    ]  # fmt: skip


@pytest.mark.slow
def test_the_mouse_over_a_point_shows_its_numbers(browser, clip):
    x, y = clip.queries[0, 1:]
    told = ask(
        browser,
        f"""
        press("End");
        const scale = canvas.clientWidth / 64;
        const move = (x, y) => {{
          const {{ left, top }} = canvas.getBoundingClientRect();
          const at = {{ clientX: left + (x + 0.5) * scale, clientY: top + (y + 0.5) * scale }};
          canvas.dispatchEvent(new PointerEvent("pointermove", at));
        }};
        move({x}, {y});
        const rows = [...numbers.querySelectorAll("tr")].map((row) => row.innerText);
        const shown = [numbers.hidden, numbers.querySelector("b").textContent, rows];
        canvas.dispatchEvent(new PointerEvent("pointerleave"));
        return [...shown, numbers.hidden];""",
    )
    hidden, title, rows, hidden_after = told
    assert (hidden, hidden_after) == (False, True)
    number = int(re.match(r"point (\d+) · (sift|uniform|motion) in frame \d+ · ", title)[1])
    assert np.hypot(*(clip.queries[number, 1:] - clip.queries[0, 1:])) < 1
    still = rows[2].split()
    assert still[0] == "still"
    np.testing.assert_allclose(
        [float(still[1]), float(still[2])], clip.queries[number, 1:], atol=0.1
    )
    trust = clip.verdict.of(["still"])[0, number, 15]
    assert still[3:6] == ["no", "0.25", "–"]
    assert float(still[6]) == pytest.approx(trust, abs=0.01)


@pytest.mark.slow
def test_the_scale_is_shown_where_colours_are_shares(browser):
    told = ask(
        browser,
        """
        const colour = root.querySelector(".colour"), shown = [];
        for (const value of ["trust", "tracker", "support"]) {
          colour.value = value;
          colour.dispatchEvent(new Event("change", { bubbles: true }));
          shown.push(!root.querySelector(".ramp").hidden);
        }
        return shown;""",
    )
    assert told == [True, False, True]


@pytest.mark.slow
def test_trust_gives_each_position_the_colour_of_its_probability(chromium, clip, tmp_path):
    """By `near` the n-th of N points is right with n / (N - 1), by `still` with what is left of 1;
    nobody judged the student."""
    of_near = np.linspace(0, 1, len(clip.queries), dtype=np.float32)[:, None].repeat(16, 1)
    verdict = replace(clip.verdict, right=np.stack([of_near, 1 - of_near]))
    student = {"student": (clip.tracks["near"], VisibleRule("none"))}
    page = tmp_path / "clip.html"
    html = player.html_of(replace(clip, verdict=verdict), extra=student, colour="trust")
    page.write_text(html, encoding="utf-8")
    shown = Browser(chromium, page, tmp_path / "profile")
    script = """
        const player = players[0], pen = player.canvas.getContext("2d");
        const away = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
        player.trails.checked = false;
        return player.switches.map((_, on) => {
          player.switches.forEach((box, k) => { box.checked = k === on; });
          player.seek(4);
          const places = player.at.map(([k, i]) => player.place(k, i, 4));
          return player.at.flatMap(([k, i], j) => {
            const clear = places.every((other, n) => n === j || away(other, places[j]) > 8);
            if (!clear) return [];  // another marker may lie over it
            const pixel = pen.getImageData(...places[j].map(Math.floor), 1, 1).data;
            return [[player.number[i], ...pixel]];
          });
        });"""
    told = [np.array(rows) for rows in shown.evaluate(f"(async () => {{ {script} }})()")]
    shown.close()
    for rows, of_all in zip(told, (of_near, 1 - of_near), strict=False):
        assert len(rows) > len(clip.queries) / 2
        expected = colour_by(of_all[rows[:, 0], 4])
        np.testing.assert_allclose(rows[:, 1:4], expected, atol=4)
        assert (rows[:, 4] == 255).all()
    *_, of_student = told
    assert len(of_student) > len(clip.queries) / 2
    # grey, and half to be seen through
    np.testing.assert_allclose(of_student[:, 1:], [[214, 219, 227, 128]] * len(of_student), atol=2)


@pytest.mark.slow
def test_occluded_points_can_be_hidden(browser):
    told = ask(
        browser,
        """
        const occluded = root.querySelector(".occluded"), drawn = [];
        for (const key of ["Home", "End"]) {
          occluded.click(); drawn.push(Number(press(key).drawn));
          occluded.click(); drawn.push(Number(root.dataset.drawn));
        }
        return drawn;""",
    )
    assert told == [48, 48, 24, 48]  # `still` says from frame 8 on that its 24 points are occluded


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_the_numbers_of_a_point_stay_inside_the_picture(browser, width):
    outside = ask(
        browser,
        f"""
        document.body.style.width = "{width}px";
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const seen = [], {{ left, right, top, bottom }} = canvas.getBoundingClientRect();
        for (let x = left; x < right; x += 12) for (let y = top; y < bottom; y += 12) {{
          canvas.dispatchEvent(new PointerEvent("pointermove", {{ clientX: x, clientY: y }}));
          const box = numbers.getBoundingClientRect();
          if (!numbers.hidden) seen.push(box.left < left - 1 || box.right > right + 1);
        }}
        document.body.style.width = "";
        return [seen.length > 0, seen.filter(Boolean).length];""",
    )
    assert outside == [True, 0]


@pytest.mark.slow
def test_the_page_has_no_error(browser):
    assert browser.evaluate("document.documentElement.dataset.error ?? null") is None


@pytest.mark.slow
def test_a_key_goes_to_the_frames_in_which_teachers_part(parted):
    assert ask(parted, """return ["d", "d", "d"].map((key) => Number(press(key).frame));""") == [
        5,
        12,
        5,
    ]


@pytest.mark.slow
def test_flicker_shows_each_teacher_alone_by_turns(parted):
    shown = ask(
        parted,
        """
        const both = root.dataset.trackers, seen = new Set();
        root.querySelector(".flicker").click();
        for (let i = 0; i < 40 && seen.size < 2; i++) {
          await new Promise((done) => setTimeout(done, 100));
          seen.add(root.dataset.trackers);
        }
        return [both, ...[...seen].sort()];""",
    )
    assert shown == ["near,still", "near", "still"]


@pytest.mark.slow
def test_what_a_person_says_of_points_is_saved_as_train_reads_it(parted, clip, tmp_path):
    text = ask(
        parted,
        """
        press("Home");
        const blobs = [];
        URL.createObjectURL = (blob) => { blobs.push(blob); return "about:blank"; };
        HTMLAnchorElement.prototype.click = function () { blobs.push(this.download); };
        const save = root.querySelector(".save-review"), disabled = save.disabled;
        const player = players[0];
        const at = (i, key) => { player.pointed = i; press(key); };
        at(0, "w"); at(3, "r"); at(5, "w"); at(5, "u");
        root.querySelector(".mark").click();
        player.pointed = 7; canvas.click(); canvas.click();   // wrong, then right
        const told = save.textContent;
        save.click();
        return [disabled, told, await blobs[0].text(), blobs[1]];""",
    )
    assert [text[0], text[1], text[3]] == [True, "Save review (3)", "review.csv"]
    (tmp_path / "review.csv").write_text(text[2])
    review = read_review(tmp_path / "review.csv")
    pruned = clip.queries[[7, 0, 1]]
    assert review.learnt(clip.key, pruned).tolist() == [True, False, True]


@pytest.mark.slow
def test_a_whole_clip_can_be_called_wrong(parted, clip):
    told = ask(
        parted,
        """
        const whole = root.querySelector(".whole");
        whole.click();
        const said = [whole.ariaPressed, review.csv()];
        whole.click();
        return [...said, whole.ariaPressed, review.csv()];""",
    )
    head = "key,point,verdict,t,x,y\n"
    assert told == ["true", f"{head}{clip.key},*,wrong,,,\n", "false", head]


def test_the_strip_counts_all_points_on_which_teachers_disagree(clip):
    """6 of 24 points part in frame 5; nobody sees 4 others there; shown are 5 points."""
    support, state = np.ones_like(clip.labels.support), np.ones_like(clip.labels.state)
    support[:6, 5], support[6:10, 5], state[6:10, 5] = 0.5, 0, DISPUTED
    labels = replace(clip.labels, support=support, state=state)
    told = player.payload_of(replace(clip, labels=labels), points_shown=5)["parted"]
    assert told == [0.25 if frame == 5 else 0 for frame in range(16)]


@pytest.mark.slow
def test_red_is_as_red_in_every_clip(parted):
    colours = ask(parted, """return getComputedStyle(root.querySelector(".parted")).background;""")
    alphas = [
        float(alpha or 1) for alpha in re.findall(r"rgba?\(229, 83, 61(?:, ([\d.]+))?\)", colours)
    ]
    assert alphas == [{5: 1.0, 12: 0.33}.get(frame, 0.0) for frame in range(16)]  # all, 4 of 24
