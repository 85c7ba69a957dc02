"""Whose labels a player shows, and the sheets below it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pytest

from labeler.labels.labelled import labelled
from labeler.labels.trust import TrustConfig
from labeler.show import player
from teachers import ConfigError, VisibleRule
from tests.support.playing import ask


def labels_in(payload, count):
    """The kind of each label [count, 16], and its position in px."""
    kind = np.frombuffer(base64.b64decode(payload["label"]), np.uint8).reshape(count, 16)
    xy = np.frombuffer(base64.b64decode(payload["label_xy"]), "<i2").reshape(count, 16, 2)
    return kind, np.where(xy == player.NOT_TRACKED, np.nan, xy / 16)


def test_labels_are_by_agreement_unless_a_policy_is_chosen(clip):
    payload = player.payload_of(clip, points_shown=5)
    stored = (clip.labels.valid & clip.labels.keep[:, None])[payload["number"]]
    assert payload["label_by"] == "agreement"
    assert ((labels_in(payload, 5)[0] > 0) == stored).all()
    assert "Labels drawn at random, by agreement<" in clip.show().html


def test_a_page_can_have_the_labels_of_a_policy(clip):
    hidden = np.where(np.arange(16) > 11, 0.8, 0).astype(np.float32)
    right = np.stack([np.full((24, 16), 0.6 * of, np.float32) for of in (0, 1)])  # `still`
    verdict = replace(clip.verdict, right=right, hidden=np.tile(hidden, (24, 1)))
    judged, trust = replace(clip, verdict=verdict), TrustConfig(min_right=0.5, min_hidden=0.7)
    labels = labelled(judged, "verified", trust)
    payload = player.payload_of(judged, labels=labels, points_shown=5)
    kind, xy = labels_in(payload, 5)
    assert kind.tolist() == [[1] * 12 + [2] * 4] * 5
    still = clip.tracks["still"].xy[payload["number"]]
    np.testing.assert_allclose(xy[:, :12], still[:, :12], atol=1 / 32)
    assert np.isnan(xy[:, 12:]).all()
    html = judged.show(policy="verified", trust=trust).html
    assert "drawn at random, by verified (min-right 0.5, min-hidden 0.7)<" in html
    assert '"label_by": "verified"' in html


def test_a_policy_that_does_not_fit_is_refused(clip):
    with pytest.raises(ConfigError, match="'verified': no verifier has judged"):
        replace(clip, verdict=None).show(policy="verified")


@pytest.fixture
def apart(clip, opened):
    """A browser in which `near` is 9 px from `still` on point 6 in frame 4, and 5 on point 2 in
    frame 3; both see all points there."""
    still = clip.tracks["still"]
    xy = still.xy.copy()
    xy[6, 4, 0] += 9
    xy[2, 3, 1] -= 5
    sees = replace(still, visibility=np.ones_like(still.visibility))
    tracks = {"near": replace(sees, xy=xy), "still": sees}
    return opened(replace(clip, tracks=tracks))


@pytest.mark.slow
def test_a_sheet_shows_the_points_on_which_trackers_are_farthest_apart(apart, clip):
    def said(point, frame):
        label = clip.labels.keep[point] & clip.labels.valid[point, frame]
        return "a label by agreement" if label else "no label by agreement"

    told = ask(
        apart,
        """
        press("End");
        root.querySelector(".sheet").open = true;
        const tiles = () => [...root.querySelectorAll(".tile")];
        for (let i = 0; i < 100 && !(tiles().length === 2 && root.dataset.frame === "15"); i++) {
          await new Promise((done) => setTimeout(done, 100));
        }
        const texts = tiles().map((tile) => tile.textContent), last = root.dataset.frame;
        const pen = tiles()[0].querySelector("canvas").getContext("2d");
        const painted = new Set(pen.getImageData(0, 0, 224, 224).data).size;
        tiles()[1].click();
        press("w");
        const marked = review.csv().trim().split(",").at(-5);
        const framed = tiles().map((tile) => tile.dataset.verdict);
        return [texts, last, painted > 50, root.dataset.frame, marked, framed];""",
    )
    assert told == [
        [  # 9 of 64 px and 5 of 48 px, on the 256 raster
            f"point 6, frame 4: 36 px apart, {said(6, 4)}",
            f"point 2, frame 3: 27 px apart, {said(2, 3)}",
        ],
        "15",
        True,
        "3",
        "2",
        ["", "wrong"],
    ]


@pytest.mark.slow
def test_labels_are_drawn_at_random_among_the_labels_and_the_same_ones_again(parted, clip):
    first, again, others = ask(
        parted,
        """
        const player = players[0];
        const draw = () => player.drawnLabels().map(({ i, frame }) => [i, frame]);
        const drawn = [draw(), draw()];
        player.key += " of another clip";
        return [...drawn, draw()];""",
    )
    assert first == again != others
    assert len({point for point, _ in first}) == 12
    assert all(clip.labels.keep[i] & clip.labels.valid[i, frame] for i, frame in first)
    assert all(clip.queries[i, 0] != frame for i, frame in first)


@pytest.mark.slow
def test_labels_are_drawn_from_the_points_that_are_evenly_chosen(parted):
    told = ask(
        parted,
        """
        const player = players[0];
        player.even = player.even.map((_, i) => i === 3 || i === 8);
        const drawn = player.drawnLabels().map(({ i }) => i).sort();
        player.even = player.even.map(() => true);
        return drawn;""",
    )
    assert told == [3, 8]


@pytest.mark.slow
def test_a_label_to_judge_is_in_the_middle_however_far_off_a_teacher_is(parted):
    views, labels, white = ask(
        parted,
        """
        const player = players[0], kept = player.xy.slice(), half = kept.length / 2, views = [];
        for (let at = half; at < 2 * half; at += 2) player.xy[at] += 30 * 16;   // of `still`
        player.paintPicture = (canvas, left, middle, half, ...rest) => {
          views.push([...middle, half]);
          return Player.prototype.paintPicture.call(player, canvas, left, middle, half, ...rest);
        };
        const [{ i, frame }] = player.drawnLabels();
        const tile = document.createElement("canvas");
        tile.width = 448; tile.height = 224;
        await player.pictureOf(frame);
        player.paintJudged(tile, 224, player.labelAt(i, frame), player.seenAt(i, frame));
        const arm = tile.getContext("2d").getImageData(224 + 112 + 8, 112, 1, 1).data;
        player.xy.set(kept);
        delete player.paintPicture;
        return [views, player.labelAt(i, frame), [...arm]];""",
    )
    assert views == [[*labels, 28]]
    assert min(white) > 200  # an arm of the cross


@pytest.mark.slow
def test_only_labels_shows_where_they_are(parted):
    told = ask(
        parted,
        """
        const player = players[0], pen = canvas.getContext("2d"), counts = [];
        player.trails.checked = false;
        for (const box of player.switches) box.checked = false;
        for (const only of [true, false]) {
          player.labelsOnly.checked = only;
          player.seek(2);
          const all = Array.from({ length: player.points }, (_, i) => player.labelAt(i, 2));
          const arms = all.filter(Boolean).map((label) => {
            const [x, y] = player.onCanvas(label);
            return pen.getImageData(x + 6 * player.unit, y, 1, 1).data[3];
          });
          counts.push([arms.length > 0, arms.filter((alpha) => alpha > 100).length / arms.length]);
        }
        player.trails.checked = true;
        for (const box of player.switches) box.checked = true;
        return counts;""",
    )
    assert told[0][0] is True
    assert told[0][1] > 0.9  # one may lie at the edge
    assert told[1] == [True, 0]


@pytest.mark.slow
def test_the_numbers_of_a_point_say_what_its_label_is(clip, opened):
    shown = opened(clip, policy="verified", trust=TrustConfig(min_right=0.01))
    policy = labelled(clip, "verified", TrustConfig(min_right=0.01))
    point, frame = map(int, np.argwhere(policy.visible)[0])
    title, rows = ask(
        shown,
        f"""
        players[0].seek({frame}); players[0].pointed = {point}; players[0].draw();
        const rows = [...numbers.querySelectorAll("tr")].map((row) => row.innerText);
        return [numbers.querySelector("b").textContent, rows];""",
    )
    assert title.endswith(" · a label by verified")
    name, x, y = rows[-1].split()
    assert name == "label"
    np.testing.assert_allclose([float(x), float(y)], policy.xy[point, frame], atol=0.1)


@pytest.mark.slow
def test_a_drawn_label_is_shown_beside_its_query(parted, clip):
    texts, sizes, colours = ask(
        parted,
        """
        root.querySelector(".drawn").open = true;
        const tiles = () => [...root.querySelectorAll(".drawn .tile")];
        for (let i = 0; i < 200 && tiles().length < 12; i++) {
          await new Promise((done) => setTimeout(done, 100));
        }
        await new Promise((done) => setTimeout(done, 500));
        const pictures = tiles().map((tile) => tile.querySelector("canvas"));
        const of = (canvas, left) => canvas.getContext("2d").getImageData(left, 0, 224, 224).data;
        const sides = (each) => [0, 224].map((left) => of(each, left));
        const painted = pictures.slice(0, 4).flatMap(sides);
        return [
          tiles().map((tile) => tile.textContent),
          pictures.map((each) => [each.width, each.height]),
          painted.map((data) => new Set(data).size),
        ];""",
    )
    assert sizes == [[448, 224]] * 12
    assert min(colours) > 20
    for text in texts:
        point, start, frame = map(int, re.findall(r"\d+", text)[:3])
        assert text.startswith(f"point {point}, query in frame {start}, frame {frame}: support ")
        assert start == clip.queries[point, 0]


def test_points_on_which_trackers_are_farthest_apart_are_always_shown(clip):
    still = clip.tracks["still"]
    xy = still.xy.copy()
    xy[20, 3, 0] += 9
    xy[7, 2, 1] += 8  # less, but of the shorter side
    sees = replace(still, visibility=np.ones_like(still.visibility))
    tracks, rules = [replace(sees, xy=xy), sees], [VisibleRule("v", 0.5)] * 2
    assert player.worst(tracks, rules, (48, 64)).tolist() == [7, 20]
    moved = replace(clip, tracks={"near": tracks[0], "still": tracks[1]})
    shown = player.payload_of(moved, points_shown=10)["number"]
    assert (len(shown), 7 in shown) == (10, True)
    even = player.payload_of(moved, points_shown=10)["even"]
    assert [number for number, chosen in zip(shown, even, strict=True) if not chosen] == [7]
    assert player.payload_of(moved, points_shown=24)["number"] == list(range(24))
