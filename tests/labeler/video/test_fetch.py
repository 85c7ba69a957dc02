"""What a web server answers decides whose fault it is: the video's, or the moment's, and then
the unit is tried again."""

from __future__ import annotations

import contextlib
import errno

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


@pytest.mark.parametrize("address", ["http://host:99999/a.mp4", "http:///a.mp4"])
def test_an_address_that_is_none_is_the_videos_fault(address):
    with pytest.raises(VideoError, match="not an address that can be read"):
        fetched(address)
