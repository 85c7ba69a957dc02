"""Frames of files, folders, and pipes: the very pixels, in the right order, and a clear word where
there are none."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from labeler.video.decode import open_video
from labeler.video.frames import FramePart, open_frames, read_all, read_picture
from labeler.video.live import is_live
from teachers import ConfigError, TransientError, VideoError
from tests.support.video_files import FRAMES, HEIGHT, WIDTH, number_in, write_video

CLIP = np.random.default_rng(0).integers(0, 256, (12, 17, 23, 3), np.uint8)


def write_pictures(folder: Path, frames: np.ndarray, name: str = "frame{}.png") -> str:
    """One picture a frame, numbered from 1 without leading zeros."""
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])
    return str(folder)


def frames_of(source: str, part: FramePart | None = None) -> np.ndarray:
    with open_frames(source, part) as found:
        frames = read_all(found, max_gib=1)
        assert frames.shape == (found.length, *found.size, 3)
    return frames


def test_png_frames_come_as_they_are_in_natural_order(tmp_path):
    np.testing.assert_array_equal(frames_of(write_pictures(tmp_path / "clip", CLIP)), CLIP)


def test_other_files_in_a_folder_are_passed_over(tmp_path):
    folder = write_pictures(tmp_path / "clip", CLIP[:2])
    (tmp_path / "clip" / "notes.txt").write_text("frame 3 is missing")
    assert len(frames_of(folder)) == 2


def test_jpg_frames_are_read(tmp_path):
    smooth = cv2.GaussianBlur(CLIP[0], (9, 9), 4)
    (frame,) = frames_of(write_pictures(tmp_path / "clip", smooth[None], "{}.JPG"))
    assert np.abs(frame.astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("channels", [(), (4,)])
def test_grey_pictures_and_those_with_transparency_become_rgb(tmp_path, channels):
    picture = np.random.default_rng(1).integers(0, 256, (9, 11, *channels), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    expected = picture[..., 2::-1] if channels else np.repeat(picture[..., None], 3, -1)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png"), expected)


def test_a_file_gives_every_frame_as_the_reader_does(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    with open_video(path) as video:
        np.testing.assert_array_equal(frames_of(str(path)), video.read(range(len(video))))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_part_of_the_frames_can_be_taken(tmp_path, kind):
    path = str(write_video(tmp_path / "v.mp4"))
    source = path if kind == "file" else write_pictures(tmp_path / "clip", frames_of(path))
    frames = frames_of(source, FramePart(start=7, stride=3, max_frames=5))
    assert [number_in(frame) for frame in frames] == [7, 10, 13, 16, 19]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_frames_are_shrunk_only_if_asked(tmp_path, kind):
    path = str(write_video(tmp_path / "v.mp4"))
    source = path if kind == "file" else write_pictures(tmp_path / "clip", frames_of(path)[:3])
    assert frames_of(source).shape[1:] == (HEIGHT, WIDTH, 3)
    assert frames_of(source, FramePart(short_side=24)).shape[1:] == (24, 32, 3)


# --- live


@pytest.mark.parametrize(
    ("source", "live"),
    [
        ("-", True),
        ("0", True),
        ("rtsp://camera/1", True),
        ("clip.mp4", False),
        ("https://host/clip.mp4", False),
        ("0001", True),
    ],
)
def test_what_is_live(source, live):
    assert is_live(source) == live


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_pipe_gives_every_frame(tmp_path, monkeypatch, suffix):
    path = write_video(tmp_path / f"v{suffix}")
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(Unseekable(path.read_bytes())))
    )
    with open_frames("-") as source:
        assert (source.size, source.length, source.fps) == ((HEIGHT, WIDTH), None, 24)
        assert [number_in(frame) for frame in source.frames] == list(range(FRAMES))


class Unseekable(io.RawIOBase):
    """A pipe with these bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._content.readinto(buffer)


def test_a_named_pipe_gives_the_part_that_is_asked_for(tmp_path):
    content, pipe = write_video(tmp_path / "v.mkv").read_bytes(), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pour, args=(content, pipe))
    writer.start()
    frames = frames_of(str(pipe), FramePart(start=2, stride=4, max_frames=6))
    writer.join()
    assert [number_in(frame) for frame in frames] == [2, 6, 10, 14, 18, 22]


def pour(content: bytes, pipe: Path) -> None:
    with contextlib.suppress(BrokenPipeError):  # the reader has enough
        pipe.write_bytes(content)


# --- what cannot be read


def test_frames_of_two_sizes_are_refused(tmp_path):
    folder = write_pictures(tmp_path / "clip", CLIP[:2])
    cv2.imwrite(f"{folder}/frame3.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(
        VideoError, match=r"frame3\.png: 9 x 8 px, but frame1\.png has 23 x 17 px: .* of one size"
    ):
        frames_of(folder)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"a folder without pictures: frames are read from \.png, \.jpg"
    ):
        frames_of(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_broken_picture_is_named(tmp_path, content):
    folder = write_pictures(tmp_path / "clip", CLIP[:1])
    (tmp_path / "clip" / "frame2.png").write_bytes(content)
    with pytest.raises(VideoError, match=r"frame2\.png: not a picture that can be read"):
        frames_of(folder)


def test_more_frames_than_memory_may_hold_are_refused_before_they_are_read(tmp_path):
    folder = write_pictures(tmp_path / "clip", CLIP)
    with open_frames(folder) as source:
        with pytest.raises(
            ConfigError,
            match=(
                r"its 12 frames of 23 x 17 px take .*--max-frames, "
                r"--stride.*--short-side.*--stream"
            ),
        ):
            read_all(source, max_gib=1e-6)
        assert len(list(source.frames)) == 12


def test_a_start_behind_the_end_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--start 12: .* has 12 frames, 0\.\.11"):
        frames_of(write_pictures(tmp_path / "clip", CLIP), FramePart(start=12))


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"stride": 0}, {"max_frames": 0}, {"short_side": 0}]
)
def test_a_part_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = "):
        FramePart(**wrong)


def test_a_pipe_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys,
        "stdin",
        SimpleNamespace(buffer=io.BytesIO(write_video(tmp_path / "v.mkv").read_bytes())),
    )
    with (
        open_frames("-") as source,
        pytest.raises(ConfigError, match="no last frame: track it with --stream"),
    ):
        read_all(source, max_gib=1)


def test_a_pipe_with_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"#EXTM3U\nfile:///etc/passwd\n" * 50))
    )
    with (
        pytest.raises(VideoError, match="standard input: not a video that can be read from a pipe"),
        open_frames("-"),
    ):
        pass


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(TransientError, match="camera 97: cannot be opened"), open_frames("97"):
        pass


def test_a_folder_that_is_called_like_a_camera_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "0001", CLIP)
    assert not is_live("0001")
    np.testing.assert_array_equal(frames_of("0001"), CLIP)
