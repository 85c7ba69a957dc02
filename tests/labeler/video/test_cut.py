"""Cut files whose container states no end: they are known as cut, and count the frames that can be
read."""

from __future__ import annotations

import pytest

from labeler.video.decode import open_video
from tests.support.video_files import FRAMES, cut, numbers_in, write_video


@pytest.mark.parametrize("share", [0.9, 0.6])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("wmv2.wmv", "wmv2"),
        ("msmpeg4.asf", "msmpeg4"),
        ("mpeg4.nut", "mpeg4"),
        ("vp8.ivf", "libvpx"),
    ],
)
def test_a_cut_file(tmp_path, name, codec, share):
    whole, part = tmp_path / name, tmp_path / f"cut-{name}"
    write_video(whole, codec=codec)
    with open_video(whole) as video:
        assert len(video) == FRAMES
        assert not video.truncated
    cut(whole, part, share)
    with open_video(part) as video:
        count = len(video)
        assert video.truncated or count == FRAMES
        assert 0.5 * FRAMES < count <= FRAMES
        assert numbers_in(video.read(range(count))) == list(range(count))
