"""The growing mp4: every frame in it, even or odd, finished or killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from labeler.video.decode import open_video
from labeler.video.writer import VideoWriter
from teachers import TransientError
from tests.support.jobs import ROOT


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_every_frame_is_in_the_file(tmp_path, size):
    with VideoWriter(tmp_path / "v.mp4", fps=12) as video:
        for level in range(0, 250, 10):
            video.write(np.full((*size, 3), level, np.uint8))
    with open_video(tmp_path / "v.mp4") as found:
        assert (len(found), found.fps, found.size) == (25, 12, (48, 64))
        levels = found.read(range(25)).mean((1, 2, 3))
    np.testing.assert_allclose(levels, np.arange(0, 250, 10), atol=2)


def test_the_finished_file_is_an_ordinary_mp4_with_its_index(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", fps=24) as video:
        for _ in range(30):
            video.write(np.zeros((48, 64, 3), np.uint8))
    with av.open(tmp_path / "v.mp4") as container:
        assert container.streams.video[0].frames == 30


def test_a_kill_leaves_a_video_that_plays(tmp_path):
    """Noise, so that every frame has bytes."""
    program = f"""
import os, signal
from pathlib import Path
import numpy as np
from labeler.video.writer import VideoWriter
video = VideoWriter(Path({str(tmp_path / "v.mp4")!r}), fps=24)
for seed in range(200):
    video.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == -9
    with open_video(tmp_path / "v.mp4") as found:
        assert 100 < len(found) < 200
        assert len(found.read(range(len(found)))) == len(found)


def test_no_frame_makes_no_file(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", fps=24):
        pass
    assert not (tmp_path / "v.mp4").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(TransientError, match=r"v\.mp4: cannot be written: No such file"),
        VideoWriter(tmp_path / "no/v.mp4", 24) as v,
    ):
        v.write(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_disk_that_is_full_from_the_start_is_an_error_and_no_crash():
    """libav crashes when it gets more packets after the header has failed."""
    program = """
from pathlib import Path
import numpy as np
from labeler.video.writer import VideoWriter
with VideoWriter(Path("/dev/full"), fps=24) as video:
    for _ in range(60):
        video.write(np.zeros((48, 64, 3), np.uint8))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "TransientError: /dev/full: cannot be written: No space left" in done.stderr
