"""What a web server answers decides whose fault it is: the video's, which becomes a row, or the
moment's, and the unit stays open."""

from __future__ import annotations

import contextlib

import pytest

from labeler.video.container import VideoLimits
from labeler.video.fetch import local_file
from teachers import TransientError, VideoError
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
def test_an_answer_that_may_change_is_transient(status):
    with pytest.raises(TransientError, match=f"HTTP {status}"):
        answer(status)


@pytest.mark.parametrize("address", ["http://host:99999/a.mp4", "http:///a.mp4"])
def test_an_address_that_is_none_is_the_videos_fault(address):
    with pytest.raises(VideoError, match="not an address that can be read"):
        fetched(address)
