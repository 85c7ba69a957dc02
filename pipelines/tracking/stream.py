"""Stream: tracking frames as they come, from a camera, a pipe, or a file of any length, in memory
that does not grow.

    frame --> each tracker's stream --> tracks that are final --> npz
         \\--> waits until every tracker has answered for it --> overlay --> mp4

Only teachers with a `stream` can do this. Ctrl-C or a SIGTERM is the usual way to end a camera: the
frames received so far are tracked to the last, and both files are closed. A kill leaves a video
that plays, and the tracks of the last `TrackWriter.save`.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import teachers
from labeler.show import Overlay
from labeler.video import VideoWriter
from labeler.video.frames import FrameSource
from pipelines.terminal.console import say
from pipelines.terminal.tracking import Counts, watched
from pipelines.tracking.track_file import TrackFile, TrackWriter
from teachers import ConfigError, Teacher, Tracks
from teachers.registry import declared, left_out
from teachers.stream import Stream


class StreamTracker:
    """One tracker on the stream: its answers, counted, written, and kept until they are drawn."""

    def __init__(self, teacher: Teacher, stream: Stream, writer: TrackWriter | None) -> None:
        self._rule, self._stream, self._writer = teacher.info.rule, stream, writer
        self.counts = Counts()
        self.answers: deque[tuple[np.ndarray, np.ndarray]] = deque()
        """xy [N, 2] and visible [N] of the frames that have not been drawn yet."""

    def push(self, frame: np.ndarray) -> None:
        begun = time.monotonic()
        self._take(self._stream.push(frame[None]), begun)

    def finish(self) -> None:
        begun = time.monotonic()
        self._take(self._stream.finish(), begun)

    def _take(self, tracks: Tracks, begun: float) -> None:
        visible = self._rule(tracks)
        self.counts.add(tracks, visible, time.monotonic() - begun)
        if self._writer:
            self._writer.append(tracks)
        self.answers.extend(zip(tracks.xy.swapaxes(0, 1), visible.T, strict=True))


def follow(
    source: FrameSource,
    trackers: Mapping[str, Teacher],
    queries: np.ndarray,
    overlay: Path | None,
    files: Mapping[str, TrackFile],
) -> dict[str, Counts]:
    """Track frame by frame until the source ends or is stopped, and write `overlay` and `files`."""
    streams = {title: stream_of(teacher, queries) for title, teacher in trackers.items()}
    with contextlib.ExitStack() as stack:
        writers = {
            title: stack.enter_context(TrackWriter(file, queries)) for title, file in files.items()
        }
        followers = {
            title: StreamTracker(trackers[title], streams[title], writers.get(title))
            for title in trackers
        }
        video = stack.enter_context(VideoWriter(overlay, source.fps)) if overlay else None
        drawing = Overlay(queries, list(trackers), source.size)
        waiting: deque[np.ndarray] = deque()

        def draw_answered() -> None:
            """The frames for which every tracker has answered."""
            while all(follower.answers for follower in followers.values()):
                answers = [follower.answers.popleft() for follower in followers.values()]
                frame = waiting.popleft()
                if video:
                    xy, visible = (np.stack(values) for values in zip(*answers, strict=True))
                    video.write(drawing.draw(frame, xy, visible))

        for frame in watched(until_stopped(source.frames), "tracking", source.length):
            waiting.append(frame)
            for follower in followers.values():
                follower.push(frame)
            draw_answered()
        for follower in followers.values():
            follower.finish()
        draw_answered()
    return {title: follower.counts for title, follower in followers.items()}


def stream_of(teacher: Teacher, queries: np.ndarray) -> Stream:
    """The teacher's stream; a ConfigError names the teachers that have one."""
    if not teacher.info.streams:
        able = []
        for name in teachers.names():
            with left_out(name):
                able += [name] if declared(name).streams else []
        raise ConfigError(
            f"teacher {teacher.info.name!r} cannot stream, as it needs the whole clip: leave "
            f"--stream out, or take one of {', '.join(able)}."
        )
    return teacher.stream(queries)


def until_stopped(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames until Ctrl-C or SIGTERM, which takes effect at once while waiting for a frame, and
    otherwise after the current frame."""
    asked = waiting = False

    def stop(number: int, place: object) -> None:
        nonlocal asked
        asked = True
        if waiting:
            raise KeyboardInterrupt

    with _handling(stop):
        while not asked:
            try:
                waiting = True
                frame = next(frames, None)
            except KeyboardInterrupt:
                break
            finally:
                waiting = False
            if frame is None:
                return
            yield frame
    say("stopped: everything received so far is written")


@contextlib.contextmanager
def _handling(stop: Any) -> Iterator[None]:
    """Make both signals call `stop`; only the main thread can set signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
