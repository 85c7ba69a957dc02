"""Clips of damaged videos: a frame that cannot be decoded costs what depends on it, no more."""

from __future__ import annotations

import errno
from pathlib import Path

import av
import pytest

from benchmarks.harness.jobs import config
from labeler.clips import making
from labeler.clips.making import VideoSource
from labeler.sources.listing import Source
from teachers import VideoError
from tests.support.video_files import numbers_in, write_video

KEYS_EVERY = 20
"""Frames, in all of these videos but MJPEG, which has only key frames."""


def damaged(path: Path, packets: list[int], codec: str) -> Source:
    """A video of 90 frames whose `packets`, counted in the order of the file, are overwritten."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"sc_threshold": "0"} if codec == "libx264" else {}  # no more key frames
    write_video(path, codec=codec, pix_fmt=pix_fmt, frames=90, options=options)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number in packets:
                start, end = packet.pos + 8, packet.pos + packet.size
                data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return Source(str(path), 0, "")


def video_source() -> VideoSource:
    return VideoSource(config(Path("unused"), "unused").frozen().recipe())


@pytest.mark.parametrize(
    ("name", "codec", "packet", "first"),
    [
        ("a.mp4", "libx264", 5, KEYS_EVERY),
        ("a.mp4", "libx264", 30, 2 * KEYS_EVERY),
        ("a.mkv", "libx264", 30, 2 * KEYS_EVERY),
        ("a.mp4", "mpeg4", 5, KEYS_EVERY),
        ("a.avi", "mjpeg", 5, 6),
        ("a.avi", "mjpeg", 30, 31),
    ],
)
def test_clips_are_cut_on_both_sides_of_a_damaged_frame(tmp_path, name, codec, packet, first):
    source, made = damaged(tmp_path / name, [packet], codec), video_source()
    clips = made.open(source).clips
    assert len(clips) == 2
    for clip in clips:
        assert clip.indices.stop <= packet or clip.indices.start >= first
        assert numbers_in(made.clip(source, clip.number).frames) == list(clip.indices)
    assert clips[1].indices.start >= first


def test_a_video_of_damage_is_given_up(tmp_path, monkeypatch):
    source = damaged(tmp_path / "a.avi", list(range(0, 90, 6))[1:], "mjpeg")
    monkeypatch.setattr(making, "DECODED_AGAIN", 30 / 3000)  # frames: from 0 to 7, to 13
    with pytest.raises(VideoError, match=r"no 8 frames in a row were found .* frame 18") as refused:
        video_source().open(source)
    assert refused.value.reason == "decode-error"


def test_a_damaged_video_of_which_little_is_left_is_no_short_one(tmp_path):
    """Its frames are known only by their number, so none behind the damage is."""
    source = damaged(tmp_path / "a.avi", [5], "mpeg4")
    with pytest.raises(VideoError, match="90 packets give 5 frames") as refused:
        video_source().open(source)
    assert refused.value.reason == "decode-error"


def failing(monkeypatch, code: int, says: str) -> None:
    """Let the disk fail when the content of a video is read."""

    def fails(path: Path) -> str:
        raise OSError(code, says, str(path))

    monkeypatch.setattr(making, "content_sha256", fails)


@pytest.mark.parametrize("method", ["open", "clip"])
def test_a_disk_that_cannot_read_a_video_is_as_a_server_that_does_not_answer(
    tmp_path, monkeypatch, method
):
    source = damaged(tmp_path / "a.mp4", [], "libx264")
    failing(monkeypatch, errno.EIO, "Input/output error")
    with pytest.raises(VideoError, match=r"a\.mp4: reading failed \(Input/output") as caught:
        getattr(video_source(), method)(source, *([0] if method == "clip" else []))
    assert caught.value.reason == "unreachable"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_what_the_machine_lacks_is_not_the_videos_fault(tmp_path, monkeypatch, code):
    source = damaged(tmp_path / "a.mp4", [], "libx264")
    failing(monkeypatch, code, "not enough")
    with pytest.raises(OSError, match="not enough"):
        video_source().open(source)


def test_a_damaged_frame_late_in_a_long_video_costs_its_window_alone(tmp_path, monkeypatch):
    """The frames before it count as decoded again, and are too many."""
    source = damaged(tmp_path / "a.mp4", [30], "libx264")
    monkeypatch.setattr(making, "DECODED_AGAIN", 0)
    monkeypatch.setattr(making, "analysed_ranges", lambda *_: [range(25, 45), range(60, 80)])
    starts = [clip.indices.start for clip in video_source().open(source).clips]
    assert len(starts) == 1
    assert starts[0] >= 60


def test_a_video_that_cannot_be_opened_leaves_nothing_of_the_one_before(tmp_path, monkeypatch):
    first, made = damaged(tmp_path / "a.mp4", [], "libx264"), video_source()
    made.open(first)
    second = damaged(tmp_path / "b.avi", [5], "mpeg4")
    with pytest.raises(VideoError, match="90 packets give 5 frames"):
        made.open(second)
    opened: list[str] = []
    open_again = made._open
    monkeypatch.setattr(made, "_open", lambda each: opened.append(each.uri) or open_again(each))
    made.clip(first, 0)
    assert opened == [first.uri]
