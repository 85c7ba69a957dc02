"""The verifier: whom to believe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labeler.labels.verifier import SHIPPED, Verifier, from_uint8, shapes, to_uint8
from teachers import CheckpointError, ConfigError, Tracks, VisibleRule

T, SIDE = 16, 160


def surface(seed, side):
    """Smooth texture, uint8 [side, side, 3]."""
    noise = np.random.default_rng(seed).uniform(0, 255, (side, side, 3)).astype(np.float32)
    rough = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip((rough - rough.mean()) * 7 + 128, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """A surface that slides by 2 px a frame, and a board that passes in front of it to the left:
    frames, queries in frame 0, true positions, and where they are visible."""
    back, board = surface(0, 256), surface(1, 256)
    frames = np.stack([back[40 : 40 + SIDE, 2 * t : 2 * t + SIDE] for t in range(T)])
    left = 150 - 9 * np.arange(T)  # the board's left edge; it is 40 px wide, and 90 px high
    for t in range(T):
        low, high = max(left[t], 0), min(left[t] + 40, SIDE)
        frames[t, 30:120, low:high] = board[30:120, low - left[t] : high - left[t]]
    rng = np.random.default_rng(2)
    queries = np.column_stack([np.zeros(80), rng.uniform((45, 10), (145, 150), (80, 2))]).astype(
        np.float32
    )
    xy = queries[:, None, 1:] - np.stack([2 * np.arange(T), np.zeros(T)], -1)
    x, y = xy[..., 0], xy[..., 1]
    covered = (y > 29.5) & (y < 119.5) & (x > left - 0.5) & (x < left + 39.5)
    return frames, queries, xy, ~covered & (x > -0.5)


def said(xy, sees, seed=0):
    """Tracks of a teacher that says `sees`, and is not always equally sure."""
    sure = np.random.default_rng(seed).uniform(0.75, 1, sees.shape)
    return Tracks(
        xy.astype(np.float32),
        np.where(sees, sure, 1 - sure).astype(np.float32),
        np.full(sees.shape, np.nan, np.float32),
    )


@pytest.fixture(scope="module")
def told(scene):
    """What four teachers make of it: two good ones; one that loses a third of the points from
    frame 5 on and does not notice; one that drifts off, and knows neither visibility nor
    confidence."""
    _, _, xy, visible = scene
    rng = np.random.default_rng(3)
    loses = xy.copy()
    loses[::3, 5:] += rng.choice((-1, 1), (27, 1, 2)) * rng.uniform(10, 25, (27, 1, 2))
    drifts = xy + np.linspace(0, 12, T)[:, None]
    nan = np.full(visible.shape, np.nan, np.float32)
    tracks = {
        "good": said(xy + rng.normal(0, 0.2, xy.shape), visible),
        "fair": said(xy + rng.normal(0, 0.4, xy.shape), visible, 1),
        "loses": said(loses, np.ones_like(visible), 2),
        "drifts": Tracks(drifts.astype(np.float32), nan, nan),
    }
    rules = dict.fromkeys(tracks, VisibleRule("v", 0.5)) | {"drifts": VisibleRule("none")}
    return tracks, rules


@pytest.fixture(scope="module")
def verifier():
    return Verifier.load()


@pytest.fixture(scope="module")
def verdict(verifier, scene, told):
    return verifier.judge(scene[0], scene[1], *told)


def test_right_positions_are_believed_and_wrong_ones_are_not(verdict, scene, told):
    _, _, xy, visible = scene
    error = (
        np.stack([np.hypot(*np.moveaxis(each.xy - xy, -1, 0)) for each in told[0].values()])
        * 256
        / SIDE
    )
    right, wrong = (error < 1.5) & visible, (error > 4) | ~visible
    assert verdict.right[right].mean() > 0.8
    assert verdict.right[wrong].mean() < 0.15
    assert (verdict.right[right] > 0.5).mean() > 0.9
    assert (verdict.right[wrong] < 0.5).mean() > 0.9


def test_what_the_board_covers_is_hidden(verdict, scene):
    visible = scene[3]
    assert (verdict.hidden[~visible] > 0.5).mean() > 0.8
    assert (verdict.hidden[visible] < 0.5).mean() > 0.9


def test_the_order_of_teachers_and_their_names_do_not_matter(verifier, verdict, scene, told):
    tracks, rules = told
    order = ["drifts", "fair", "loses", "good"]
    tracks = {f"x-{name}": tracks[name] for name in order}
    again = verifier.judge(scene[0], scene[1], tracks, {name: rules[name[2:]] for name in tracks})
    rows = [list(told[0]).index(name) for name in order]
    np.testing.assert_allclose(again.right, verdict.right[rows], atol=1e-4)
    np.testing.assert_allclose(again.hidden, verdict.hidden, atol=1e-4)


@pytest.mark.parametrize("name", ["good", "drifts"])
def test_two_teachers_that_tie_are_judged_alike_in_both_orders(verifier, scene, told, name):
    tracks, rules = told
    pair = {key: tracks[key] for key in (name, "fair")}
    there = verifier.judge(scene[0], scene[1], pair, rules)
    back = verifier.judge(scene[0], scene[1], dict(reversed(pair.items())), rules)
    np.testing.assert_allclose(back.right, there.right[::-1], atol=1e-4)
    np.testing.assert_allclose(back.hidden, there.hidden, atol=1e-4)


def test_a_failed_teacher_changes_nothing_for_the_others(verifier, verdict, scene, told):
    tracks, rules = told
    failed = {"failed": Tracks.nan(80, T)} | tracks
    again = verifier.judge(scene[0], scene[1], failed, rules | {"failed": VisibleRule("v", 0.9)})
    assert not again.right[0].any()
    np.testing.assert_array_equal(again.right[1:], verdict.right)
    np.testing.assert_array_equal(again.hidden, verdict.hidden)


def test_where_a_teacher_has_no_place_it_is_never_right(verifier, scene, told):
    tracks, rules = told
    xy = tracks["good"].xy.copy()
    xy[:, 9:] = np.nan
    visibility = np.where(np.isfinite(xy[..., 0]), tracks["good"].visibility, np.nan)
    part = tracks | {"good": Tracks(xy, visibility, tracks["good"].confidence)}
    right = verifier.judge(scene[0], scene[1], part, rules).right
    assert not right[0, :, 9:].any()
    assert (right[0, :, :9] > 0).all()


def test_one_teacher_is_judged_by_how_its_positions_look(verifier, scene, told):
    frames, queries, _xy, visible = scene
    tracks, rules = told
    loses = np.arange(80) % 3 == 0
    later = visible & (np.arange(T) > 5)
    right = verifier.judge(frames, queries, {"loses": tracks["loses"]}, rules).right[0]
    assert right[~loses][later[~loses]].mean() > right[loses][later[loses]].mean() + 0.3


@pytest.mark.parametrize("names", [(), ("good",), ("good", "fair", "loses", "drifts")])
def test_no_query_is_an_empty_verdict(verifier, scene, told, names):
    none = {name: Tracks.nan(0, T) for name in names}
    found = verifier.judge(scene[0], np.zeros((0, 3)), none, told[1])
    assert found.right.shape == (len(names), 0, T)
    assert found.hidden.shape == (0, T)


def test_without_a_teacher_there_is_still_a_verdict_on_hidden(verifier, scene):
    found = verifier.judge(
        scene[0], scene[1], {"failed": Tracks.nan(80, T)}, {"failed": VisibleRule("v", 0.9)}
    )
    assert found.right.shape == (1, 80, T)
    assert not found.right.any()
    assert np.isfinite(found.hidden).all()


def test_equal_input_gives_equal_bytes(verifier, verdict, scene, told):
    again = Verifier.load().judge(scene[0], scene[1], *told)
    assert again.right.tobytes() == verdict.right.tobytes()
    assert again.hidden.tobytes() == verdict.hidden.tobytes()


def test_probabilities_are_probabilities(verdict):
    for value in (verdict.right, verdict.hidden):
        assert value.dtype == np.float32
        assert value.min() >= 0
        assert value.max() <= 1


def test_the_size_of_the_clip_hardly_matters(verifier, verdict, scene, told):
    frames, queries, _, _ = scene
    large = np.stack(
        [cv2.resize(frame, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC) for frame in frames]
    )

    def enlarged(xy):
        return (2 * xy + 0.5).astype(np.float32)

    tracks = {
        name: Tracks(enlarged(each.xy), each.visibility, each.confidence)
        for name, each in told[0].items()
    }
    queries = np.column_stack([queries[:, :1], enlarged(queries[:, 1:])])
    again = verifier.judge(large, queries, tracks, told[1])
    assert np.abs(again.right - verdict.right).mean() < 0.03


def test_queries_outside_the_clip_are_refused(verifier, scene, told):
    with pytest.raises(ConfigError, match="query 0 is"):
        verifier.judge(scene[0], np.array([[99, 5, 5]]), *told)


def test_the_shipped_file_is_small_and_free():
    assert SHIPPED.stat().st_size <= 2 << 20
    weights = load_file(SHIPPED)
    assert {name: value.shape for name, value in weights.items()} == shapes(
        weights["first.w"].shape[1]
    )


def test_the_version_names_the_weights(verifier, tmp_path):
    weights = dict(load_file(SHIPPED))
    save_file(weights | {"right.b": weights["right.b"] + 1}, tmp_path / "other.safetensors")
    other = Verifier.load(tmp_path / "other.safetensors")
    assert other.version != verifier.version == Verifier.load().version


@pytest.mark.parametrize("damage", ["missing", "shape", "text", "nothing"])
def test_another_file_is_refused(tmp_path, damage):
    path = tmp_path / "verifier.safetensors"
    weights = dict(load_file(SHIPPED))
    if damage == "missing":
        del weights["hidden.k"]
    elif damage == "shape":
        weights["hidden.k"] = weights["hidden.k"][:3]
    if damage == "text":
        path.write_text("not weights")
    elif damage != "nothing":
        save_file(weights, path)
    wanted = "hidden.k" if damage in ("missing", "shape") else "not a readable file"
    with pytest.raises(CheckpointError, match=wanted):
        Verifier.load(path)


def test_a_shard_keeps_a_probability_to_half_a_step():
    probability = np.linspace(0, 1, 1001, dtype=np.float32)
    kept = from_uint8(to_uint8(probability))
    assert to_uint8(probability).dtype == np.uint8
    assert np.abs(kept - probability).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(to_uint8(kept), to_uint8(probability))
