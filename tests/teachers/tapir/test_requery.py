"""Asking again for lost points: by hand, by its symmetry, and on clips with exact tracks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import teachers
from student.clip import TestClip
from student.evaluation.evaluate import FIGURES, compare
from student.evaluation.testsets import on_tapvid_raster, procedural_clips
from student.training.checkpoint import Checkpoints
from teachers import ConfigError, Tracks
from teachers.tapir.config import CAUSAL_BOOTSTAPIR, TapirConfig
from teachers.tapir.network import Tapir
from teachers.tapir.requery import asked_again

SIZE = (40, 60)


def tracks_of(certainty: list[list[float]], xy: np.ndarray | None = None) -> Tracks:
    """Half of what is uncertain is visibility, half confidence; points stand still."""
    root = np.sqrt(np.float32(certainty))
    still = np.zeros((*root.shape, 2), np.float32)
    return Tracks(still if xy is None else xy, root, root.copy())


class Asked:
    """Answers with given tracks, and keeps what it was asked."""

    def __init__(self, answer: Tracks) -> None:
        self.answer, self.queries = answer, list[np.ndarray]()

    def __call__(self, queries: np.ndarray) -> Tracks:
        self.queries.append(queries)
        return self.answer


def test_a_lost_point_is_asked_for_from_where_it_was_last_sure():
    xy = np.zeros((1, 7, 2), np.float32)
    xy[0, :, 0] = np.arange(7)
    first = tracks_of([[1, 0.95, 0.92, 0.7, 0.3, 0.2, 0.1]], xy)
    elsewhere = xy + np.float32([0, 5])
    second = tracks_of([[0.1, 0.99, 1, 0.99, 0.95, 0.8, 0.05]], elsewhere)
    ask = Asked(second)
    found = asked_again(first, np.float32([[0, 0, 0]]), ask, SIZE, 0.9)
    assert [asked.tolist() for asked in ask.queries] == [[[2, 2, 0]]]
    # surer than before in frames 4 and 5, but sure in frame 4 alone
    assert found.xy[0, :, 1].tolist() == [0, 0, 0, 0, 5, 5, 0]
    certainty = (found.visibility * found.confidence)[0]
    assert certainty == pytest.approx([1, 0.95, 0.92, 0.7, 0.95, 0.2, 0.1])
    assert first.xy[..., 1].max() == 0  # what was given stays


def test_nobody_is_asked_where_nothing_is_lost_or_nothing_was_sure():
    for certainty in ([1, 0.6, 0.7, 0.8], [1, 0.8, 0.3, 0.95]):
        first, ask = tracks_of([certainty]), Asked(tracks_of([[1] * 4]))
        assert asked_again(first, np.float32([[0, 0, 0]]), ask, SIZE, 0.9) is first
        assert not ask.queries


def test_a_point_that_is_lost_on_both_sides_is_asked_for_twice():
    first = tracks_of([[0.1, 0.95, 1, 0.92, 0.2], [1, 1, 1, 1, 1]])
    second = tracks_of([[0.99] * 5, [0.98] * 5])
    ask = Asked(second)
    found = asked_again(first, np.float32([[2, 7, 8], [2, 9, 9]]), ask, SIZE, 0.9)
    assert [asked[:, 0].tolist() for asked in ask.queries] == [[3, 1]]
    certainty = found.visibility * found.confidence
    # the last frame by the first further query, the first frame by the other
    assert certainty[0] == pytest.approx([0.98, 0.95, 1, 0.92, 0.99])
    assert certainty[1] == pytest.approx([1] * 5)


def test_a_reversed_clip_gives_reversed_tracks():
    chance = np.random.default_rng(0)

    def drawn() -> Tracks:
        xy = chance.uniform(-5, 50, (40, 12, 2)).astype(np.float32)
        return tracks_of(chance.uniform(0, 1, (40, 12)) ** 0.3, xy)

    def turned(tracks: Tracks) -> Tracks:
        return Tracks(tracks.xy[:, ::-1], tracks.visibility[:, ::-1], tracks.confidence[:, ::-1])

    first, answers = drawn(), {frame: drawn() for frame in range(12)}

    def ask(queries: np.ndarray, reverse: bool = False) -> Tracks:
        """Points are known by their frame alone; which is one of the same moment either way."""
        frames = 11 - queries[:, 0] if reverse else queries[:, 0]
        rows = [answers[int(frame)] for frame in frames]
        one = Tracks(
            np.stack([row.xy[0] for row in rows]),
            np.stack([row.visibility[0] for row in rows]),
            np.stack([row.confidence[0] for row in rows]),
        )
        return turned(one) if reverse else one

    queries = np.column_stack([chance.integers(0, 12, 40), first.xy[:, 0]]).astype(np.float32)
    there = queries * [-1, 1, 1] + [11, 0, 0]
    found = asked_again(first, queries, ask, SIZE, 0.8)
    back = asked_again(turned(first), there, lambda asked: ask(asked, True), SIZE, 0.8)
    assert (found.xy != first.xy).any()
    for name in ("xy", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(turned(back), name), getattr(found, name))


def test_a_query_lies_inside_its_frame():
    """A point may be surely a little outside, and no network describes what is not there."""
    first = tracks_of([[1, 0.95, 0.2]], np.full((1, 3, 2), 59.7, np.float32) * [1, -0.1])
    ask = Asked(tracks_of([[0, 0, 0]]))
    asked_again(first, np.float32([[0, 59, 0]]), ask, SIZE, 0.9)
    assert ask.queries[0].tolist() == [[1, 59, 0]]


@pytest.fixture(scope="module")
def clip() -> TestClip:
    """The first points of a procedural clip."""
    (whole,) = map(on_tapvid_raster, procedural_clips(1, 300))
    few = slice(0, 24)
    return replace(whole, queries=whole.queries[few], xy=whole.xy[few], visible=whole.visible[few])


def test_a_mini_that_asks_again_finds_more(clip):
    """By exact tracks, in all three figures; frames that were not lost stay the same."""
    once = teachers.load("tapir-mini", mode="benchmark", device="cpu")
    twice = teachers.load("tapir-mini", mode="benchmark", device="cpu", requery=0.85)
    figures = compare({"once": once, "twice": twice}, [clip]).groupby("model")[list(FIGURES)].mean()
    assert (figures.loc["twice"] > figures.loc["once"] + 0.01).all()
    before, after = (each.track(clip.frames, clip.queries) for each in (once, twice))
    seen = before.visibility * before.confidence >= 0.5
    np.testing.assert_array_equal(after.xy[seen], before.xy[seen])


def test_a_long_clip_in_windows_is_asked_again_too(clip):
    """More than half of what is found again in one piece is found in windows."""
    found = {}
    for max_frames in (480, 16):
        once, twice = (
            teachers.load(
                "tapir-mini", mode="label", device="cpu", max_frames=max_frames, requery=requery
            ).track(clip.frames, clip.queries)
            for requery in (1.0, 0.85)
        )
        found[max_frames] = (twice.visibility != once.visibility).sum()
    assert found[16] > found[480] / 2 > 0


def test_a_file_says_that_its_network_asks_again(tmp_path):
    model = Tapir(TapirConfig.mini(requery=0.85))
    exported: Path = Checkpoints(tmp_path, keep=1).export("student", model, "tapir", {})
    for mode in ("label", "benchmark", "predictor"):
        loaded = teachers.load("tapir", checkpoint=str(exported), mode=mode, device="cpu")
        assert loaded.info.settings["requery"] == 0.85
        off = teachers.load("tapir", checkpoint=str(exported), mode=mode, device="cpu", requery=1.0)
        assert "requery" not in off.info.settings


@pytest.mark.parametrize("requery", [0.3, 1.5, True, "0.9", float("nan")])
def test_a_certainty_that_cannot_be_is_refused(requery):
    with pytest.raises(ConfigError, match=f"requery = {requery}: must be from 0.5 to 1"):
        TapirConfig.mini(requery=requery)
    with pytest.raises(ConfigError, match=f"requery = {requery}: must be from 0.5 to 1"):
        teachers.load("tapir-mini", device="cpu", requery=requery)


def test_a_causal_network_does_not_ask_again():
    with pytest.raises(ConfigError, match="a causal network answers each frame at once"):
        TapirConfig.mini(**CAUSAL_BOOTSTAPIR, requery=0.9)
