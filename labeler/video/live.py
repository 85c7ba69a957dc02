"""Live sources: frames that come bit by bit and may never end, from a camera, a pipe, or a network
stream.

    0, /dev/video0       a camera, through OpenCV
    -                    standard input, any container that libav can read without going back:
                         `ffmpeg ... -f matroska - | ...`
    a named pipe         likewise
    rtsp://, udp://...   a stream in the network, through libav

Frames come in order, each once; a pipe or a stream that breaks off ends there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from labeler.video.colours import ShownRGB
from labeler.video.container import CONTAINERS, display_size, open_input
from labeler.video.fetch import shown
from labeler.video.orientation import orientation
from teachers import TransientError, VideoError

SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "rtp://", "srt://", "tcp://")
"""Addresses of streams without an end; an http:// address is taken for a file."""
PIPED = f"{CONTAINERS},yuv4mpegpipe,mjpeg,image2pipe"
"""Demuxers that may read a pipe: never playlists, which name other files."""
SILENT_S = 30.0
"""A network stream that sends nothing for this long has ended; a pipe may wait."""
PLAIN_FPS = 25.0
"""Frames per second if the source does not tell."""


@dataclass(frozen=True)
class LiveSource:
    """An open live source."""

    size: tuple[int, int]
    """(H, W) px."""
    fps: float
    frames: Iterator[np.ndarray]
    """uint8 [H, W, 3] RGB"""


def is_live(source: str) -> bool:
    """Whether the frames of `source` come bit by bit, and only once."""
    path = Path(source)
    return (
        source == "-"
        or _is_camera(source)
        or source.startswith(SCHEMES)
        or path.is_fifo()
        or path.is_char_device()
    )


def _is_camera(source: str) -> bool:
    """Whether it is the number of a camera, and no file or folder of that name."""
    return source.isdecimal() and not Path(source).exists()


@contextlib.contextmanager
def open_live(source: str) -> Iterator[LiveSource]:
    """Open a live source and wait for its first frame.

    Raises:
        TransientError: there is no such camera, or the address does not answer.
        VideoError: what comes is not a video.
    """
    with contextlib.ExitStack() as stack:
        if _is_camera(source) or Path(source).is_char_device():
            yield _from_camera(source, stack)
        elif source == "-":
            yield _from_libav("standard input", _Pipe(sys.stdin.buffer), stack)
        elif Path(source).is_fifo():
            pipe = stack.enter_context(Path(source).open("rb"))
            yield _from_libav(source, _Pipe(pipe), stack)
        else:
            yield _from_libav(shown(source), source, stack)


def _from_camera(source: str, stack: contextlib.ExitStack) -> LiveSource:
    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    stack.callback(camera.release)
    found, first = camera.read()
    if not found:
        raise TransientError(
            f"camera {source}: cannot be opened, or gives no picture: is it plugged in, and free?"
        )

    def frames() -> Iterator[np.ndarray]:
        picture = first
        while picture is not None:
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            picture = camera.read()[1]

    return LiveSource(
        (first.shape[0], first.shape[1]), camera.get(cv2.CAP_PROP_FPS) or PLAIN_FPS, frames()
    )


class _Pipe:
    """A file of bytes for libav, which would continue to read after an exception: Ctrl-C ends the
    file instead, and is raised afterwards."""

    def __init__(self, file: Any) -> None:
        self._file, self.interrupted = file, False

    def read(self, size: int) -> bytes:
        if self.interrupted:
            return b""
        try:
            return self._file.read1(size)  # reads what is there: `read` would wait for all of it
        except KeyboardInterrupt:
            self.interrupted = True
            return b""


def _from_libav(name: str, source: _Pipe | str, stack: contextlib.ExitStack) -> LiveSource:
    """`source` is a pipe or an address."""
    piped = isinstance(source, _Pipe)
    options, silent_s = ({"format_whitelist": PIPED}, None) if piped else ({}, SILENT_S)
    try:
        container = stack.enter_context(open_input(source, options=options, timeout=silent_s))
        if not container.streams.video:
            raise VideoError("no-video-stream", f"{name}: no video in it.")
        decoded = _until_it_breaks(container)
        first = next(decoded, None)
    except av.FFmpegError as error:
        kind = f"{type(error).__name__}: {error.strerror}"
        if isinstance(source, str):
            raise TransientError(f"{name}: cannot be opened ({kind}).") from None
        raise VideoError(
            "not-a-video", f"{name}: not a video that can be read from a pipe ({kind})."
        ) from None
    if first is None:
        raise VideoError("decode-error", f"{name}: no frame comes out.")
    stream = container.streams.video[0]
    rate = stream.average_rate
    rotation, mirrored, _ = orientation(first)
    sar = Fraction(stream.sample_aspect_ratio or 1)
    size = display_size((first.height, first.width), sar, rotation)

    shown_rgb = ShownRGB(rotation, mirrored)

    def pictures() -> Iterator[np.ndarray]:
        for frame in chain([first], decoded):
            yield shown_rgb.of(frame, size)
        if isinstance(source, _Pipe) and source.interrupted:
            raise KeyboardInterrupt

    return LiveSource(size, float(rate or PLAIN_FPS), pictures())


def _until_it_breaks(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    with contextlib.suppress(av.FFmpegError):
        yield from container.decode(video=0)
