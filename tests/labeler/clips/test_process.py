"""Decoding ahead: the same items whichever unit was named as the next one, and no wait between
units if that was right."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.harness.jobs import FRAMES, config, write_moving
from labeler.clips import process
from labeler.clips.isolate import Isolated, Killed
from labeler.clips.making import OpenedVideo, UnlabelledClip
from labeler.clips.process import DecodingProcess, Item, VideoEnd
from labeler.reasons import LeftOut
from labeler.sources.listing import Source
from teachers import ConfigError, TransientError, VideoError
from tests.support.video_files import write_video

PATIENCE_S = 30


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[Source]:
    """Three videos of one clip, one of two."""
    folder = tmp_path_factory.mktemp("ahead")
    return [
        Source(str(write_moving(folder / f"{i}.mp4", i, FRAMES * (1 + (i == 3)))), 0, "")
        for i in range(4)
    ]


@pytest.fixture
def decoding(sources) -> Iterator[DecodingProcess]:
    with DecodingProcess(
        config(Path("unused"), "unused").frozen(), deadline_s=60, memory_gib=8
    ) as process:
        yield process


def named(items: Iterator[Item]) -> list[tuple[str, str]]:
    return [
        (type(item).__name__, item.key if isinstance(item, UnlabelledClip) else item.uri)
        for item in items
    ]


def test_a_wrong_guess_of_the_next_unit_changes_no_item(sources, decoding):
    first, second = sources[:2], sources[2:]
    calm = [named(decoding.clips(first)), named(decoding.clips(second))]
    assert [kind for kind, _ in calm[1]] == [
        "OpenedVideo",
        "UnlabelledClip",
        "VideoEnd",
        "OpenedVideo",
        "UnlabelledClip",
        "UnlabelledClip",
        "VideoEnd",
    ]
    for then in (second, [sources[3]], [Source("nowhere.mp4", 0, "")]):
        assert [named(decoding.clips(first, then)), named(decoding.clips(second))] == calm


@pytest.mark.parametrize("taken", range(4))
def test_a_unit_left_half_way_is_given_whole_at_the_next_call(sources, decoding, taken):
    whole = named(decoding.clips(sources[:2]))
    list(islice(decoding.clips(sources[:2], sources[2:]), taken))
    assert named(decoding.clips(sources[:2])) == whole


def test_the_next_unit_is_decoded_while_teachers_work_on_the_last_clip(
    sources, decoding, monkeypatch
):
    decoded = threading.Event()
    call = Isolated.call

    def spy(self, method, video, *args, **keywords):
        answer = call(self, method, video, *args, **keywords)
        if (method, video) == ("clip", sources[1]):
            decoded.set()
        return answer

    monkeypatch.setattr(Isolated, "call", spy)
    items = decoding.clips(sources[:1], sources[1:2])
    assert isinstance(next(items), OpenedVideo)
    assert isinstance(next(items), UnlabelledClip)
    assert decoded.wait(PATIENCE_S), "nobody asked for another item meanwhile"
    assert list(items) == [VideoEnd(sources[0].uri)]


@pytest.fixture
def away(monkeypatch) -> dict[str, int]:
    """How often the storage of a URI will not answer; counts down."""
    left: dict[str, int] = {}
    call = Isolated.call

    def answer(self, method, video, *args, **keywords):
        if left.get(video.uri, 0) > 0:
            left[video.uri] -= 1
            raise VideoError("unreachable", f"{video.uri}: reading failed.")
        return call(self, method, video, *args, **keywords)

    monkeypatch.setattr(Isolated, "call", answer)
    monkeypatch.setattr(process, "PAUSE_S", 0.0)
    return left


def test_a_storage_that_does_not_answer_at_once_changes_no_item(sources, decoding, away):
    calm = named(decoding.clips(sources))
    away |= {sources[0].uri: 2, sources[2].uri: 1}
    assert named(decoding.clips(sources)) == calm
    assert set(away.values()) == {0}


@pytest.mark.parametrize("lost", [[0], [0, 1], [2, 3], [0, 3]])
def test_a_video_that_cannot_be_reached_costs_itself_alone(sources, decoding, away, lost):
    away |= {sources[i].uri: 9 for i in lost}
    items = list(decoding.clips(sources))
    rows = [item for item in items if isinstance(item, LeftOut)]
    assert [row.uri for row in rows] == [sources[i].uri for i in lost]
    assert {(row.reason, row.attempts) for row in rows} == {("unreachable", 3)}
    assert [item.uri for item in items if isinstance(item, VideoEnd)] == [s.uri for s in sources]


def test_where_no_video_of_several_can_be_reached_it_is_not_their_fault(sources, decoding, away):
    away |= {source.uri: 9 for source in sources}
    items = decoding.clips(sources)
    with pytest.raises(TransientError, match=r"none of 4 videos can be reached: .* reading failed"):
        next(items)
    (row, _) = decoding.clips(sources[:1])
    assert row.reason == "unreachable"


@pytest.fixture
def killed(monkeypatch) -> dict[str, int]:
    """How often the decoder is killed over a URI, as by a kernel that is out of memory; counts
    down. "check" is the clip that comes with the installation."""
    left: dict[str, int] = {}
    call = Isolated.call

    def answer(self, method, *args, **keywords):
        about = args[0].uri if args else method
        if left.get(about, 0) > 0:
            left[about] -= 1
            raise Killed(f"{about}: somebody ended its process (SIGKILL).")
        return call(self, method, *args, **keywords)

    monkeypatch.setattr(Isolated, "call", answer)
    monkeypatch.setattr(process, "PAUSE_S", 0.0)
    return left


def test_a_decoder_that_is_killed_once_changes_no_item(sources, decoding, killed):
    calm = named(decoding.clips(sources))
    killed |= {sources[0].uri: 2, sources[3].uri: 1}
    assert named(decoding.clips(sources)) == calm


@pytest.mark.parametrize("which", [0, 3])
def test_a_video_over_which_every_decoder_is_killed_costs_itself_alone(
    sources, decoding, killed, which
):
    killed[sources[which].uri] = 99
    items = list(decoding.clips(sources))
    (row,) = (item for item in items if isinstance(item, LeftOut))
    assert (row.uri, row.what, row.reason) == (sources[which].uri, "video", "memory")
    assert row.attempts == 3
    assert "SIGKILL" in row.detail
    assert [item.uri for item in items if isinstance(item, VideoEnd)] == [s.uri for s in sources]


def test_where_every_decoder_is_killed_it_is_not_the_videos_fault(sources, decoding, killed):
    killed |= {sources[0].uri: 99, "check": 99}
    with pytest.raises(TransientError, match=r"/0\.mp4: somebody ended its process"):
        list(decoding.clips(sources[:1]))


def test_closing_ends_a_fetch_that_waits(sources):
    decoding = DecodingProcess(
        config(Path("unused"), "unused").frozen(), deadline_s=60, memory_gib=8
    )
    next(decoding.clips(sources[:2], sources[2:]))
    closing = threading.Thread(target=decoding.close)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


LEFT_OPEN = """
import sys, threading, time
from pathlib import Path
from benchmarks.harness.jobs import config
from labeler.clips.isolate import Isolated
from labeler.clips.process import DecodingProcess
from labeler.sources.listing import Source

call, fetched = Isolated.call, threading.Event()

def watched(self, method, *args, **kwargs):
    answer = call(self, method, *args, **kwargs)
    if method == "clip":
        fetched.set()
    return answer

Isolated.call = watched
recipe = config(Path("unused"), "unused").frozen()
decoding = DecodingProcess(recipe, deadline_s=60, memory_gib=8)
print(type(next(decoding.clips([Source(path, 0, "") for path in sys.argv[1:]]))).__name__)
assert fetched.wait(60)
time.sleep(0.5)  # until the thread waits for somebody to take the clip
"""


def test_a_process_that_ends_in_the_middle_of_a_unit_does_not_wait_for_it(sources):
    """As Ray ends a worker: nobody takes the clip that is fetched ahead, and nobody closes."""
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, *(source.uri for source in sources)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=True,
    )
    assert ended.stdout == "OpenedVideo\n", ended.stderr


def test_an_installation_that_breaks_meanwhile_costs_no_video(sources, decoding, monkeypatch):
    monkeypatch.setattr(decoding._process, "_target", "labeler.sauce:VideoSource")
    with pytest.raises(
        TransientError,
        match=r"0\.mp4: the decoding process cannot be started: No module named 'labeler\.sauce'",
    ):
        list(decoding.clips(sources))


@pytest.mark.parametrize(
    ("codec", "fps"),
    [
        pytest.param("mpeg4", 24, id="the stream tells the rate"),
        pytest.param("wmv2", 25, id="nothing tells the rate"),
    ],
)
def test_a_video_without_times_is_labelled(tmp_path, decoding, codec, fps):
    whole = write_video(tmp_path / "whole.wmv", codec=codec)
    video = tmp_path / "without_times.wmv"
    with av.open(str(whole)) as source, av.open(str(video), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = 0, 0, stream
                sink.mux(packet)
    _, clip, *_ = decoding.clips([Source(str(video), 0, "")])
    assert isinstance(clip, UnlabelledClip)
    assert (clip.meta["source_fps"], clip.meta["fps"]) == (fps, fps)
    assert np.diff(clip.meta["source_timestamps_s"]) == pytest.approx(1 / fps, abs=1e-6)


def test_a_setting_that_does_not_suit_a_video_is_told_with_its_name(sources, decoding, monkeypatch):
    def refuses(self, method, video, *args, **keywords):
        raise ConfigError("fps = 0: a clip needs a positive number of frames a second.")

    monkeypatch.setattr(Isolated, "call", refuses)
    with pytest.raises(ConfigError, match=r"/0\.mp4: fps = 0"):
        list(decoding.clips(sources))


def test_an_iterator_that_a_later_call_ends_before_it_began_ends(sources, decoding):
    next(decoding.clips(sources[:2]))  # its thread waits for somebody to take the clip
    ended = decoding.clips(sources[2:])
    list(decoding.clips(sources[:2]))
    found: list[Item] = []
    reading = threading.Thread(target=lambda: found.extend(ended), daemon=True)
    reading.start()
    reading.join(PATIENCE_S)
    assert not reading.is_alive()
    assert found == []
