"""`tapdistill track`: what it writes, overlays, and streams in bounded memory."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import teachers
from benchmarks.harness.jobs import STILL, write_moving
from labeler.show.overlay import Overlay
from labeler.video.decode import open_video
from labeler.video.encode import encode_clip
from pipelines.terminal.tracking import Counts, summary
from pipelines.tracking.stream import until_stopped
from pipelines.tracking.track_file import TrackFile, TrackWriter
from student.synth.scene import SynthConfig, generate
from teachers import Tracks
from tests.labeler.video.test_frames import write_pictures
from tests.support.jobs import FAR
from tests.support.parity import NOISE_PX
from tests.support.tracking import arrays_of, track
from tests.support.video_files import write_video

LIVE = "tests.support.stub_teachers:Live"


# --- what is written


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """20 frames of 48 x 64 px."""
    return write_moving(tmp_path_factory.mktemp("video") / "v.mp4", seed=0, frames=20)


def test_the_track_file_holds_what_the_teacher_says(video, tmp_path):
    queries = np.array([[0, 20, 20.25], [3, 30.5, 10], [7, 40, 30]], np.float32)
    (tmp_path / "q.csv").write_text(
        "t,x,y\n" + "\n".join(",".join(map(str, row)) for row in queries)
    )
    assert (
        track(
            video,
            "--teacher",
            "lk",
            "--queries",
            tmp_path / "q.csv",
            "--tracks",
            tmp_path / "out.npz",
            "--start",
            2,
        )
        == 0
    )
    stored = arrays_of(tmp_path / "out.npz")
    with open_video(video) as reader:
        expected = teachers.load("lk").track(reader.read(range(2, 20)), queries)
    np.testing.assert_array_equal(stored["queries"], queries)
    for name in ("xy", "visibility", "confidence"):
        np.testing.assert_array_equal(stored[name], getattr(expected, name))
        assert stored[name].dtype == np.float32
    info = json.loads(str(stored["info"]))
    assert (info["name"], info["mode"]) == ("lk", "predictor")
    assert info["clip"] == {
        "source": str(video),
        "start": 2,
        "stride": 1,
        "size_hw": [48, 64],
        "fps": 24.0,
    }


def test_dense_flow_is_written_as_an_npz_and_a_picture(video, tmp_path, capsys):
    settings = ("--checkpoint", "random", "--setting", "preset=mini", "--device", "cpu")
    path = tmp_path / "flow.npz"
    assert (
        track(
            video, "--teacher", "alltracker", *settings, "--max-frames", 3, "--dense", path,
            "--dense-frame", 1,
        )
        == 0
    )  # fmt: skip
    stored = arrays_of(path)
    with open_video(video) as reader:
        frames = reader.read(range(3))
    height, width = frames.shape[1:3]
    teacher = teachers.load("alltracker", checkpoint="random", device="cpu", preset="mini")
    dense = teacher.flow(frames, 1)
    for name in ("flow", "visibility", "confidence"):
        np.testing.assert_array_equal(stored[name], getattr(dense, name))
    assert stored["t"] == 1
    assert json.loads(str(stored["info"]))["name"] == "alltracker"
    assert cv2.imread(str(path.with_suffix(".png"))).shape == (2 * height, 3 * width, 3)
    assert "every pixel of frame 1 in 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "lk", "--dense", "flow.npz"], "teacher 'lk' tracks points: `track` them"),
        (["--teacher", "lk", "flow", "--dense", "flow.npz"], "--dense belongs to one teacher"),
        (["--teacher", "lk", "--dense", "flow.npz", "--stream"], "every pixel of a whole clip"),
        (["--teacher", "lk", "--dense", "flow.png"], "flow.png: must end in .npz"),
    ],
)
def test_dense_flow_that_cannot_be_had_is_refused(
    video, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert track(video, *arguments) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_grid_lies_evenly_in_the_first_frame(video, tmp_path):
    assert track(video, "--teacher", STILL, "--grid", 4, "--tracks", tmp_path / "out.npz") == 0
    queries = arrays_of(tmp_path / "out.npz")["queries"]
    assert queries.shape == (16, 3)
    assert queries[:5].tolist() == [
        [0, 7.5, 5.5],
        [0, 23.5, 5.5],
        [0, 39.5, 5.5],
        [0, 55.5, 5.5],
        [0, 7.5, 17.5],
    ]


def test_the_default_grid_has_square_cells(video, tmp_path):
    assert track(video, "--teacher", STILL, "--tracks", tmp_path / "out.npz") == 0
    queries = arrays_of(tmp_path / "out.npz")["queries"]
    assert len(queries) == 24 * 18
    assert len(np.unique(queries[:, 1])) == 24


def test_several_teachers_have_a_file_each_and_a_panel_each(video, tmp_path):
    outputs = "--tracks", tmp_path / "new" / "out.npz", "--overlay", tmp_path / "new" / "out.mp4"
    assert track(video, "--teacher", f"{STILL},{FAR}", "--grid", 3, *outputs) == 0
    still, far = (arrays_of(tmp_path / "new" / f"out.{name}.npz") for name in ("still", "far"))
    np.testing.assert_array_equal(far["xy"], still["xy"] + np.float32([30, 0]))
    with open_video(tmp_path / "new" / "out.mp4") as overlay:
        assert (len(overlay), overlay.fps) == (20, 24)
        assert overlay.size[1] == 2 * 4 * 64


def test_two_checkpoints_of_one_teacher_are_told_apart(video, tmp_path):
    names = f"{STILL}=a.pth", f"{STILL}=b.pth"
    assert track(video, "--teacher", *names, "--grid", 2, "--tracks", tmp_path / "out.npz") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.still-a.npz",
        "out.still-b.npz",
    ]


def test_a_clip_with_odd_sides_is_drawn(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 371, 375, 3), np.uint8)
    folder = write_pictures(tmp_path / "frames", frames)
    assert track(folder, "--teacher", STILL, "--grid", 2, "--overlay", tmp_path / "out.mp4") == 0
    with open_video(tmp_path / "out.mp4") as overlay:
        assert (len(overlay), overlay.size) == (3, (372, 376))


def test_no_query_at_all_gives_an_empty_file(video, tmp_path):
    (tmp_path / "q.csv").write_text("t,x,y\n")
    outputs = "--tracks", tmp_path / "out.npz", "--overlay", tmp_path / "out.mp4"
    assert track(video, "--teacher", "lk", "--queries", tmp_path / "q.csv", *outputs) == 0
    assert arrays_of(tmp_path / "out.npz")["xy"].shape == (0, 20, 2)


def test_the_summary_counts_what_was_seen(video, tmp_path, capsys):
    assert track(video, "--teacher", STILL, "--grid", 3, "--tracks", tmp_path / "out.npz") == 0
    said = capsys.readouterr().out
    assert "20 frames of 64 x 48 px, 9 points, still, mode predictor" in said
    assert [line.split()[:4] for line in said.splitlines() if line.startswith("still")] == [
        ["still", "20", "9", "100.0%"]
    ]
    assert f"{tmp_path / 'out.npz'}, in " in said


def test_a_lost_point_that_keeps_its_place_is_not_counted_as_seen():
    """Of four points in two frames, one is lost in the second, and one has no position there."""
    xy = np.zeros((4, 2, 2), np.float32)
    xy[3, 1] = np.nan
    visible = np.array([[True, True], [True, True], [True, False], [True, True]])
    counts = Counts()
    counts.add(Tracks(xy, visible.astype(np.float32), visible.astype(np.float32)), visible, 1.0)
    assert "75.0%" in list(summary({"one": counts}, 4).columns[3].cells)


# --- the overlay


def test_a_point_is_drawn_from_where_it_is_first_seen():
    frame = np.zeros((90, 90, 3), np.uint8)
    overlay = Overlay(np.array([[1, 45, 45]]), ["one"], (90, 90))
    place = np.array([[[45, 45]]], np.float32)
    hidden, seen, occluded = (
        overlay.draw(frame, place, np.array([[visible]])) for visible in (False, True, False)
    )
    assert not hidden.any()
    assert seen[182, 182].any()
    assert not occluded[182, 182].any()
    assert occluded.any()


def test_overlays_of_a_stream_and_of_a_clip_are_the_same(video, tmp_path):
    for name, flags in (("clip.mp4", []), ("stream.mp4", ["--stream"])):
        assert (
            track(video, "--teacher", LIVE, "--grid", 3, "--overlay", tmp_path / name, *flags) == 0
        )
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "stream.mp4").read_bytes()


# --- streams


def stream_mini(
    folder: Path, teacher: str, *flags: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Frames and queries of a clip, and what the command writes for an untrained small network in
    mode "recipe"."""
    clip = generate(0, SynthConfig(frames=19, height=64, width=64, points=8))
    (folder / "v.mp4").write_bytes(encode_clip(clip.frames, fps=12))
    queries = np.array([[0, 20, 20], [4, 40, 30]], np.float32)
    np.savez(folder / "q.npz", queries=queries)
    arguments = (
        "--teacher",
        teacher,
        "--checkpoint",
        "random",
        "--setting",
        "preset=mini",
        "--mode",
        "recipe",
        *flags,
    )
    assert (
        track(
            folder / "v.mp4",
            *arguments,
            "--queries",
            folder / "q.npz",
            "--tracks",
            folder / "out.npz",
        )
        == 0
    )
    with open_video(folder / "v.mp4") as video:
        return video.read(range(19)), queries, arrays_of(folder / "out.npz")


def test_an_online_teacher_says_the_same_of_a_stream_and_of_a_clip(tmp_path):
    frames, queries, streamed = stream_mini(tmp_path, "cotracker3-online", "--stream")
    whole = teachers.load(
        "cotracker3-online", checkpoint="random", mode="recipe", preset="mini"
    ).track(frames, queries)
    np.testing.assert_allclose(streamed["xy"], whole.xy, atol=NOISE_PX)
    np.testing.assert_allclose(streamed["visibility"], whole.visibility, atol=1e-4)


@pytest.mark.slow
def test_a_causal_teacher_is_streamed(tmp_path):
    frames, queries, streamed = stream_mini(tmp_path, "bootstapir-causal", "--stream")
    stream = teachers.load(
        "bootstapir-causal", checkpoint="random", mode="recipe", preset="mini"
    ).stream(queries)
    np.testing.assert_allclose(streamed["xy"], stream.push(frames).xy, atol=NOISE_PX)
    assert np.isnan(streamed["xy"][1, :4]).all()


def test_a_pipe_is_streamed(tmp_path, monkeypatch):
    content = write_video(tmp_path / "v.mkv").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    outputs = "--tracks", tmp_path / "out.npz", "--overlay", tmp_path / "out.mp4"
    assert track("-", "--stream", "--teacher", LIVE, "--grid", 2, "--max-frames", 13, *outputs) == 0
    assert arrays_of(tmp_path / "out.npz")["xy"].shape == (4, 13, 2)
    with open_video(tmp_path / "out.mp4") as overlay:
        assert len(overlay) == 13


@pytest.mark.slow
def test_the_memory_of_a_stream_does_not_grow_with_its_frames(tmp_path, monkeypatch):
    peaks = []
    for frames in (20, 40, 240):  # the first makes what is only made once
        content = write_video(tmp_path / "v.mkv", frames=frames).read_bytes()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        outputs = "--overlay", tmp_path / "out.mp4", "--tracks", tmp_path / "out.npz"
        peaks.append(
            peak_bytes(
                lambda outputs=outputs: track(
                    "-", "--stream", "--teacher", LIVE, "--grid", 2, *outputs
                )
            )
        )
    assert arrays_of(tmp_path / "out.npz")["xy"].shape == (4, 240, 2)
    assert peaks[2] - peaks[1] < 400_000  # the 200 frames more have 1.8 MB


def test_tracks_that_are_written_are_not_held(tmp_path):
    writer = TrackWriter(TrackFile(tmp_path / "out.npz", {}), np.zeros((100, 3)))
    part = Tracks(np.zeros((100, 8, 2)), np.zeros((100, 8)), np.zeros((100, 8)))
    # they take 2.5 MB
    assert peak_bytes(lambda: [writer.append(part) for _ in range(200)]) < 100_000
    writer.close()
    assert arrays_of(tmp_path / "out.npz")["xy"].shape == (100, 1600, 2)


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_tracks_are_on_disk_before_the_stream_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.tracking.track_file.SAVE_EVERY_S", -1.0)
    monkeypatch.setattr("pipelines.tracking.track_file.SAVING_SHARE", float("inf"))
    rng = np.random.default_rng(0)
    parts = [
        Tracks(rng.random((3, t, 2)), rng.random((3, t)), rng.random((3, t))) for t in (0, 4, 1)
    ]
    with TrackWriter(TrackFile(tmp_path / "out.npz", {}), np.zeros((3, 3))) as writer:
        for end, part in enumerate(parts):
            writer.append(part)
            expected = np.concatenate([done.xy for done in parts[: end + 1]], 1)
            if expected.size:
                np.testing.assert_array_equal(
                    arrays_of(tmp_path / "out.npz")["xy"], expected.astype(np.float32)
                )
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_signal_ends_a_stream_after_the_frame_that_is_worked_on(number, waiting):
    def frames():
        for index in range(10):
            if waiting and index == 4:
                os.kill(os.getpid(), number)
            yield index

    before, taken = signal.getsignal(number), []
    for frame in until_stopped(frames()):
        if not waiting and frame == 3:
            os.kill(os.getpid(), number)
        taken.append(frame)
    assert taken == [0, 1, 2, 3]
    assert signal.getsignal(number) is before


def test_an_interrupted_stream_leaves_both_files(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mkv")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Interrupted(path.read_bytes())))
    outputs = "--tracks", tmp_path / "out.npz", "--overlay", tmp_path / "out.mp4"
    assert track("-", "--stream", "--teacher", LIVE, "--grid", 2, *outputs) == 0
    frames = arrays_of(tmp_path / "out.npz")["xy"].shape[1]
    assert frames >= 1
    with open_video(tmp_path / "out.mp4") as overlay:
        assert len(overlay) == frames


class Interrupted(io.BytesIO):
    """A pipe in which somebody presses Ctrl-C when its end is near."""

    def read1(self, size: int | None = -1) -> bytes:
        if self.tell() > 0.9 * len(self.getbuffer()):
            os.kill(os.getpid(), signal.SIGINT)
        return super().read1(min(size or 0, 512))


# --- what cannot be


LK = "{video} --teacher lk --tracks {tmp}/o.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{tmp}/none.mp4 --teacher lk --tracks {tmp}/o.npz", "none.mp4: there is no such file"),
        ("{tmp} --teacher lk --tracks {tmp}/o.npz", "a folder without pictures"),
        ("{video} --teacher lk", "nothing would be written: give --overlay"),
        ("{video} --teacher nobody --tracks {tmp}/o.npz", "--teacher nobody: there are lk, "),
        ("{video} --teacher lk,lk --tracks {tmp}/o.npz", "name at least one tracker, each once"),
        ("{video} --teacher lk --tracks {tmp}/o.csv", "o.csv: must end in .npz"),
        ("{video} --teacher lk --overlay {video}", "v.mp4: is the video itself: name another file"),
        (
            "{video} --teacher lk --tracks {tmp}/q.npz --queries {tmp}/q.npz",
            "q.npz: is the file of --queries: name another",
        ),
        (
            "{video} --teacher {still}=a/best.pth {still}=a/best.pt --tracks {tmp}/o.npz",
            "would be called still-a-best, still-a-best: name each tracker once, and give files",
        ),
        ("{video} --teacher lk --overlay {video}/o.mp4", "o.mp4: cannot be written: "),
        ("{lk} --grid 0", "--grid 0: must be at least 1"),
        ("{lk} --queries {tmp}/q.csv", "q.csv: query 1 is (t, x, y) = (0, 64, 9)"),
        ("{lk} --queries {tmp}/no.csv", "no.csv: no such file of queries"),
        ("{lk} --start 20", "--start 20: "),
        ("{lk} --max-gib 1e-6", "or raise --max-gib"),
        ("{lk} --setting window", "--setting window: write KEY=VALUE"),
        ("{lk} --setting name=x", "--setting name=x: write KEY=VALUE"),
        ("{lk} --setting wings=2", "wings"),
        (
            "{video} --teacher lk,match --tracks {tmp}/o.npz --checkpoint x",
            "--checkpoint belongs to one teacher",
        ),
        ("{video} --teacher tapir --tracks {tmp}/o.npz --checkpoint {video}", "v.mp4"),
        (
            "{video} --teacher match --tracks {tmp}/o.npz --stream",
            "take one of lk, cotracker3-online, ",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(
    arguments, message, video, tmp_path, capsys
):
    (tmp_path / "q.csv").write_text("t,x,y\n3,5,5\n0,64,9\n")
    np.savez(tmp_path / "q.npz", queries=np.zeros((1, 3)))
    places = {"tmp": tmp_path, "video": video, "still": STILL}
    words = arguments.format(lk=LK, **{name: f"{{{name}}}" for name in places}).split()
    assert track(*(word.format(**places) for word in words)) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("tapdistill: ")
    assert message in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.csv", "q.npz"]
