"""Opening: a file is probed once for its packets, its first frame, and reading."""

from __future__ import annotations

import av
import pytest

from labeler.video.decode import open_video
from tests.support.video_files import FRAMES, numbers_in, write_video


@pytest.mark.parametrize(
    ("name", "settings", "times"),
    [
        ("h264.mp4", {}, 1),
        ("h264.mkv", {}, 1),
        ("vp9.webm", {"codec": "libvpx-vp9"}, 1),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, 2),
        # its frames are counted, too
        ("h264.avi", {}, 3),
    ],
)
def test_how_often_a_file_is_opened(tmp_path, monkeypatch, name, settings, times):
    write_video(tmp_path / name, **settings)
    opened, really = [], av.open
    monkeypatch.setattr(
        av, "open", lambda *args, **how: opened.append(args) or really(*args, **how)
    )
    with open_video(tmp_path / name) as video:
        assert numbers_in(video.read(range(FRAMES))) == list(range(FRAMES))
    assert len(opened) == times


def test_a_file_that_was_opened_is_closed(tmp_path, monkeypatch):
    write_video(tmp_path / "video.mp4")
    opened, really = [], av.open
    monkeypatch.setattr(
        av, "open", lambda *args, **how: opened.append(really(*args, **how)) or opened[-1]
    )
    for decoder in ("pyav", "decord"):
        with open_video(tmp_path / "video.mp4", decoder=decoder) as video:
            video.read([3])
    for container in opened:
        with pytest.raises(AssertionError, match="not open"):
            next(container.demux())
