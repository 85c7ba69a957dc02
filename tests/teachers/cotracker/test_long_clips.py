"""Long clips: windows lose nothing, streams give what the whole gives, and what is held does not
grow with the clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import teachers
from teachers.cotracker.long_clips import WindowEntry, WindowTracker, walk_both_ways, window_starts
from teachers.layers.clip_features import ClipFeatures
from teachers.stream import Stream
from tests.support.parity import NOISE_PX
from tests.support.slow import fast_where, slow
from tests.support.waves import translating

# --- the windows


@pytest.mark.parametrize(
    ("frames", "window", "overlap", "starts"),
    [
        (10, 10, 5, [0]),
        (11, 10, 5, [0, 1]),
        (15, 10, 5, [0, 5]),
        (20, 10, 5, [0, 5, 10]),
        (16, 10, 5, [0, 3, 6]),
        (12, 4, 1, [0, 3, 5, 8]),
    ],
)
def test_windows_cover_a_clip_evenly(frames, window, overlap, starts):
    assert window_starts(frames, window, overlap).tolist() == starts


# --- the rule, with trackers that are known by hand


def path(frame: Tensor) -> Tensor:  # [...] -> [..., 2]
    """A motion that every point takes part in."""
    t = frame.double()
    return torch.stack([torch.sin(t / 7) * 9 + t / 3, torch.cos(t / 5) * 4], -1)


def perfect(frames: int, window: int, turned: bool = False) -> WindowTracker:
    """Never wrong, and it has to know where a point is, and when, to say where it goes."""

    def clip_frame(t: Tensor) -> Tensor:
        return frames - 1 - t if turned else t

    def track(first: int, entry: WindowEntry) -> tuple[Tensor, list[Tensor]]:
        there, now = entry.queries[:, :1] + first, torch.arange(first, first + window)
        xy = entry.queries[:, None, 1:] + path(clip_frame(now))[None] - path(clip_frame(there))
        return torch.cat([xy, torch.ones_like(xy)], -1), []

    return track


def always_seen(tracks: Tensor) -> Tensor:
    return tracks[..., 2]


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(50, 8, 4), (9, 8, 4), (41, 10, 9), (41, 10, 1), (30, 7, 3)]
)
def test_a_tracker_that_is_never_wrong_loses_nothing_over_windows(frames, window, overlap):
    rng = np.random.default_rng(0)
    queries = torch.tensor(
        np.column_stack([rng.integers(frames, size=60), rng.uniform(0, 99, (60, 2))])
    )
    queries[:2, 0] = torch.tensor([0.0, frames - 1])
    both = perfect(frames, window), perfect(frames, window, turned=True)
    tracks = walk_both_ways(*both, always_seen, queries, frames, window, overlap)
    truth = queries[:, None, 1:] + path(torch.arange(frames))[None] - path(queries[:, :1])
    torch.testing.assert_close(tracks[..., :2], truth, atol=1e-9, rtol=0)


def recorded(
    window: int, seen: Callable[[Tensor], Tensor], drift_px: float = 0.0
) -> tuple[WindowTracker, list[tuple[int, WindowEntry]]]:
    """A tracker whose points stand still, but for a drift with the frames of a window, and a list
    of how they entered."""
    entries: list[tuple[int, WindowEntry]] = []

    def track(first: int, entry: WindowEntry) -> tuple[Tensor, list[Tensor]]:
        entries.append((first, entry))
        frame = torch.arange(first, first + window).expand(len(entry.queries), -1)
        since = frame - first - entry.queries[:, :1]
        xy = entry.queries[:, None, 1:] + (drift_px * since)[..., None] * torch.tensor([1.0, 0.0])
        looks = 100.0 * first + entry.queries[:, 0]
        looks = torch.where(entry.hidden, entry.looks[0], looks) if entry.looks else looks
        return torch.cat([xy, seen(frame)[..., None], torch.ones_like(xy[..., :1])], -1), [looks]

    return track, entries


def walked(
    seen: Callable[[Tensor], Tensor], drift_px: float = 0.0
) -> tuple[Tensor, list[tuple[int, WindowEntry]]]:
    """A point at (5, 6) of frame 1 through 20 frames in windows of 10 that begin at 0, 5, and
    10."""
    track, entries = recorded(10, seen, drift_px)
    tracks = walk_both_ways(track, track, always_seen, torch.tensor([[1.0, 5.0, 6.0]]), 20, 10, 5)
    return tracks, entries[:3]  # the way back follows


def test_a_point_is_handed_over_where_it_is_seen_most_surely():
    _, entries = walked(lambda frame: torch.where(frame == 8, 1.0, 0.5))
    assert [(first, entry.queries[0].tolist()) for first, entry in entries[:2]] == [
        (0, [1, 5, 6]),
        (5, [3, 5, 6]),
    ]


def test_of_equally_sure_frames_that_in_the_middle_of_the_overlap_counts():
    _, entries = walked(torch.ones_like)
    assert [(first, entry.queries[0, 0].item()) for first, entry in entries] == [
        (0, 1),
        (5, 2),
        (10, 2),
    ]


def test_the_old_window_counts_up_to_the_frame_of_handing_over():
    # handed over in frames 7 and 12, with the drift so far
    tracks, _ = walked(torch.ones_like, drift_px=1.0)
    np.testing.assert_allclose(tracks[0, 1:, 0], 5 + np.arange(19.0))


def test_a_point_hidden_in_the_overlap_is_handed_over_at_its_last_frame_and_keeps_its_looks():
    _, entries = walked(lambda frame: ((frame < 5) | (frame > 11)).float())
    (_, home), (_, second), (_, third) = entries
    assert not home.hidden.any()
    assert second.queries.tolist() == [[4, 5, 6]]  # frame 9
    assert second.hidden.all()
    assert second.looks[0].tolist() == [1]  # of frame 1 in the first window
    # seen in frames 12 to 14, of which 12 is nearest to the middle
    assert third.queries[0, 0].item() == 2
    assert not third.hidden.any()


# --- the networks


SMALL = {"resolution": (32, 48), "iterations": 2}
"""Of modes that would resize these clips to what the network is meant for."""


def load(name: str, **settings: Any) -> Any:
    return teachers.load(name, checkpoint="random", device="cpu", preset="mini", **settings)


def moving(frames: int) -> np.ndarray:
    return translating(frames=frames, height=32, width=48, velocity=(0.5, 0.25))


def places(frames: int, count: int = 3) -> np.ndarray:
    """[count, 3]: at frames from the first to the last."""
    return np.array(
        [
            [round(i * (frames - 1) / max(1, count - 1)), 12 + 9 * i, 20 - 5 * i]
            for i in range(count)
        ],
        np.float32,
    )


@pytest.mark.parametrize("mode", ["label", "predictor", "recipe"])
def test_a_clip_of_max_frames_is_tracked_at_once(mode):
    frames, queries = moving(9), places(9)
    whole, at_its_limit = (
        load("cotracker3-offline", mode=mode, max_frames=most, **SMALL) for most in (256, 9)
    )
    np.testing.assert_array_equal(
        whole.track(frames, queries).xy, at_its_limit.track(frames, queries).xy
    )


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("label", {}),
        pytest.param("predictor", {}, marks=pytest.mark.slow),
        pytest.param("benchmark", {"single": True, "local_grid": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_clip_longer_than_max_frames_is_tracked_in_every_frame(mode, settings):
    frames, queries = moving(21), places(21)
    tracks = load("cotracker3-offline", mode=mode, max_frames=8, **SMALL, **settings).track(
        frames, queries
    )
    assert np.isfinite(tracks.xy).all()
    if mode != "benchmark":
        np.testing.assert_array_equal(tracks.xy[np.arange(3), [0, 10, 20]], queries[:, 1:])


@pytest.mark.parametrize("name", [*slow("cotracker3-offline", "cotracker2"), "cotracker3-online"])
def test_no_more_than_max_frames_are_held_as_features(name, monkeypatch):
    held = []

    class Watched(ClipFeatures):
        def window(self, first: int, frames: int) -> list[Tensor]:
            maps = super().window(first, frames)
            held.append(self._held)
            return maps

    monkeypatch.setattr("teachers.cotracker.teacher.ClipFeatures", Watched)
    load(name, mode="label", max_frames=16, iterations=1).track(moving(40), places(40))
    assert max(held) <= 16


@pytest.mark.parametrize("name", ["cotracker3-online", "cotracker2"])
def test_what_is_held_changes_no_track_of_an_online_network(name):
    frames, queries = moving(27), places(27)
    held, not_held = (load(name, mode="label", max_frames=most, iterations=2) for most in (256, 16))
    np.testing.assert_allclose(
        held.track(frames, queries).xy, not_held.track(frames, queries).xy, atol=NOISE_PX
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_frames": 1}, "max_frames = 1: must be a whole number, at least 2"),
        ({"max_frames": 8, "overlap": 8}, r"overlap = 8: must be in 1\.\.7"),
        ({"max_frames": 8, "overlap": 0}, "overlap = 0: must be a whole number, at least 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(settings, message):
    with pytest.raises(teachers.ConfigError, match=message):
        load("cotracker3-offline", **settings)


# --- clips that the official online code does not support


@pytest.mark.parametrize("length", fast_where((1, 2, 3, 8, 9).__contains__, range(1, 10)))
@pytest.mark.parametrize("name", ["cotracker3-online", "cotracker2"])
def test_a_clip_of_a_few_frames_is_tracked_like_one_that_stands_still_at_its_end(name, length):
    teacher = load(name, mode="recipe", iterations=2)
    frames, queries = moving(length), places(length)
    longer = np.concatenate([frames, np.repeat(frames[-1:], 16 - length, 0)])
    short, long = teacher.track(frames, queries), teacher.track(longer, queries)
    np.testing.assert_allclose(short.xy, long.xy[:, :length], atol=NOISE_PX)
    np.testing.assert_allclose(short.visibility, long.visibility[:, :length], atol=1e-4)


# --- streams

ONLINE = {
    "cotracker3-online": {"mode": "recipe", "iterations": 2},
    "cotracker2": {"mode": "recipe", "iterations": 2},
    "bootstapir-causal": {"mode": "predictor", "resolutions": [(32, 48)]},
}


def streamed(stream: Stream, frames: np.ndarray, pieces: list[int]) -> teachers.Tracks:
    ends = np.cumsum(pieces)
    parts = [
        stream.push(frames[end - piece : end]) for piece, end in zip(pieces, ends, strict=True)
    ]
    parts.append(stream.finish())
    return teachers.Tracks(
        *(
            np.concatenate([getattr(p, name) for p in parts], 1)
            for name in ("xy", "visibility", "confidence")
        )
    )


@pytest.mark.parametrize("name", fast_where(lambda name: not name.startswith("bootstapir"), ONLINE))
def test_how_frames_are_pushed_changes_no_track_and_queries_may_lie_in_the_future(name):
    frames, queries = moving(27), places(27)
    teacher = load(name, **ONLINE[name])
    whole = streamed(teacher.stream(queries), frames, [27])
    assert whole.xy.shape == (3, 27, 2)
    assert np.isfinite(whole.xy[np.arange(27) >= queries[:, :1]]).all()
    for pieces in ([1, 1, 1, 15, 9], [20, 7]):
        parts = streamed(teacher.stream(queries), frames, pieces)
        np.testing.assert_allclose(parts.xy, whole.xy, atol=NOISE_PX)
        np.testing.assert_allclose(parts.visibility, whole.visibility, atol=1e-4)


@pytest.mark.parametrize("name", ["cotracker3-online", "cotracker2"])
def test_a_stream_gives_the_tracks_of_the_whole_clip(name):
    frames, queries = moving(27), places(27)
    teacher = load(name, **ONLINE[name])
    np.testing.assert_allclose(
        streamed(teacher.stream(queries), frames, [5, 22]).xy,
        teacher.track(frames, queries).xy,
        atol=NOISE_PX,
    )


@pytest.mark.parametrize("name", fast_where(lambda name: not name.startswith("bootstapir"), ONLINE))
def test_a_stream_holds_no_more_after_many_frames_than_after_a_few(name):
    stream, held = load(name, **ONLINE[name]).stream(places(1)), []
    for _ in range(5):
        stream.push(moving(8))
        held.append(bytes_held(stream))
    assert held[1:] == [held[1]] * 4


def bytes_held(stream: Stream) -> int:
    """Bytes of every tensor and array that can be reached from a stream, those of its teacher left
    out."""
    found: dict[int, int] = {}
    seen: set[int] = set()

    def visit(thing: Any) -> None:
        if id(thing) in seen or isinstance(thing, torch.nn.Module | teachers.Teacher):
            return
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            found[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif isinstance(thing, np.ndarray):
            found[id(thing)] = thing.nbytes
        elif isinstance(thing, list | tuple):
            for part in thing:
                visit(part)
        elif hasattr(thing, "__dict__"):
            for part in vars(thing).values():
                visit(part)

    visit(stream)
    return sum(found.values())


def test_a_teacher_that_needs_the_whole_clip_does_not_stream():
    with pytest.raises(
        teachers.ConfigError, match=r"teacher 'flow' needs the whole clip: .* 'cotracker3-online'"
    ):
        teachers.load("flow").stream(places(1))
    with pytest.raises(
        teachers.ConfigError, match="mode 'label' of 'bootstapir-causal' needs the whole clip"
    ):
        load("bootstapir-causal", mode="label").stream(places(1))


@pytest.mark.parametrize("name", ONLINE)
def test_what_a_stream_cannot_take_is_refused(name):
    teacher = load(name, **ONLINE[name])
    with pytest.raises(teachers.ConfigError, match="a stream needs at least one query"):
        teacher.stream(np.zeros((0, 3)))
    with pytest.raises(teachers.ConfigError, match=r"query 0 is \(t, x, y\) = \(0, 48, 1\)"):
        teacher.stream(np.array([[0, 48, 1]])).push(moving(1))
    with pytest.raises(teachers.ConfigError, match="frames must be a uint8 array"):
        teacher.stream(places(1)).push(moving(1).astype(float))
    stream = teacher.stream(np.array([[9, 1, 1]]))
    stream.push(moving(1))
    with pytest.raises(
        teachers.ConfigError, match="frames of 16 x 32 px in a stream of 48 x 32 px"
    ):
        stream.push(moving(1)[:, :, :16])
    with pytest.raises(
        teachers.ConfigError, match="query 0 is in frame 9, but the stream ended after 1 frames"
    ):
        stream.finish()
    with pytest.raises(teachers.ConfigError, match="the stream has finished"):
        stream.push(moving(1))
