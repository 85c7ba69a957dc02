"""What a web server answers decides whose fault it is: the video's, or the moment's, and then
the unit is tried again."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from labeler.video.container import VideoLimits
from labeler.video.fetch import _download, local_file
from teachers import VideoError
from tests.support.web_server import Fault, Site, serving


def fetched(address: str) -> bytes:
    with contextlib.ExitStack() as stack:
        return local_file(address, VideoLimits(), stack).read_bytes()


def answer(status: int) -> bytes:
    with serving(Site(b"video", ranges=False, faults=[Fault(status=status)] * 9)) as site:
        return fetched(site.url)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "not-found"),
        (410, "not-found"),
        (400, "not-found"),
        (405, "not-found"),
        (401, "forbidden"),
        (403, "forbidden"),
        (451, "forbidden"),
    ],
)
def test_an_answer_that_will_stay_so_is_the_videos_fault(status, reason):
    with pytest.raises(VideoError) as caught:
        answer(status)
    assert caught.value.reason == reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_an_answer_that_may_change_is_the_moments_fault(status):
    with pytest.raises(VideoError, match=rf"HTTP {status}\): try again") as caught:
        answer(status)
    assert caught.value.reason == "unreachable"


def test_a_disk_that_is_full_is_no_fault_of_the_source():
    class Full:
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

    with serving(Site(b"video", ranges=False)) as site, pytest.raises(OSError, match="No space"):
        _download(site.url, Full(), VideoLimits())


@pytest.mark.parametrize("kind", ["file", "member", "folder"])
def test_a_video_larger_than_the_whole_scratch_disk_is_a_row(disk_of, tmp_path, kind):
    disk_of(total=7, free=7)
    with pytest.raises(VideoError, match=r"whole disk of temporary files has .*: set TMPDIR") as no:
        copied(kind, tmp_path)
    assert no.value.reason == "too-large"


@pytest.mark.parametrize("kind", ["file", "member", "folder"])
def test_a_video_for_which_the_scratch_disk_has_no_room_now_is_not_copied(disk_of, tmp_path, kind):
    disk_of(total=8, free=7)
    with pytest.raises(OSError, match="No space left") as caught:
        copied(kind, tmp_path)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("total", "free"), [(8, 8), (0, 0)])
def test_a_video_that_fits_on_the_scratch_disk_is_copied(disk_of, tmp_path, total, free):
    """Or one of which nobody knows."""
    disk_of(total, free)
    copied("file", tmp_path)


@pytest.fixture
def disk_of(monkeypatch):
    """disk_of(total, free): a scratch disk of so many bytes."""

    def pretend(total: int, free: int) -> None:
        usage = SimpleNamespace(total=total, free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)

    return pretend


def copied(kind: str, folder: Path) -> None:
    """Copy a video of 8 bytes: a file, a member of a tar, or a folder of pictures."""
    (folder / "a.tar").write_bytes(bytes(16))
    url = {
        "file": "memory://scratch/0.png",
        "folder": "memory://scratch/",
        "member": f"{folder}/a.tar#a.mp4",
    }[kind]
    fsspec.filesystem("memory").pipe("/scratch/0.png", bytes(8))
    with contextlib.ExitStack() as stack:
        local_file(url, VideoLimits(), stack, (4, 8) if kind == "member" else None)


@pytest.mark.parametrize("address", ["http://host:99999/a.mp4", "http:///a.mp4"])
def test_an_address_that_is_none_is_the_videos_fault(address):
    with pytest.raises(VideoError, match="not an address that can be read"):
        fetched(address)
