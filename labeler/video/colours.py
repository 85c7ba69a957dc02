"""Colours: stored frames to RGB, exactly, whole or only a window of them.

In   a decoded frame of a stored clip. Out: uint8 [H, W, 3] RGB, the same pixels on every CPU, and
     in a window the same as there in the whole frame.

The exact conversion is the slowest step of reading a clip. Planes in place of pixels (GBRP, which
libswscale converts with vector instructions, and OpenCV merges) take a third of the time of RGB24
and give the same bytes; a window takes its share of the pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

BIT_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""The same conversion between RGB and YUV on every CPU, with the chroma planes resized rather than
repeated."""

MARGIN = 8
"""Pixels around a window that are converted with it: the chroma of a pixel comes from samples up to
4 px away."""

LEAST = 16
"""Pixels of a side that are converted at least: libswscale shortens its filters for fewer."""


class Region(NamedTuple):
    """A part of a frame, px."""

    top: int
    left: int
    height: int
    width: int


class ExactRGB:
    """Converts the frames of one clip, which are of one size and format."""

    def __init__(self, window: Region | None = None) -> None:
        self._window = window
        # one for all frames, as each builds its filters once
        self._reformatter = VideoReformatter()
        self._around: _Around | None = None

    def into(
        self,
        out: np.ndarray,  # uint8 [H, W, 3], contiguous: of the window, or of the frame
        frame: av.VideoFrame,
    ) -> None:
        """Write the frame, by the colour space and range that it is tagged with, to `out`."""
        window = self._window or Region(0, 0, frame.height, frame.width)
        if self._window is not None and self._around is None:
            self._around = _Around(frame, window)
        part, top, left = (frame, 0, 0) if self._around is None else self._around.of(frame)
        planar = self._reformatter.reformat(
            part,
            format="gbrp",
            dst_color_range=ColorRange.JPEG,
            interpolation=BIT_EXACT,
            threads=1,
        )
        rows = slice(window.top - top, window.top - top + window.height)
        columns = slice(window.left - left, window.left - left + window.width)
        green, blue, red = (_samples(plane)[rows, columns] for plane in planar.planes)
        cv2.merge([red, green, blue], out)


class _Around:
    """The smallest part of frames of yuv420p that gives the pixels of a window; of others, all."""

    def __init__(self, frame: av.VideoFrame, window: Region) -> None:
        self.top, bottom = _widened(window.top, window.height, frame.height)
        self.left, right = _widened(window.left, window.width, frame.width)
        size = bottom - self.top, right - self.left
        self._part: av.VideoFrame | None = None
        if size != (frame.height, frame.width) and frame.format.name == "yuv420p":
            # PyAV makes no frame with the tags of another, of which the place of the chroma samples
            # is one, but by resizing it; the pixels are written over
            self._part = frame.reformat(size[1], size[0], interpolation=Interpolation.POINT)
        else:
            self.top = self.left = 0

    def of(self, frame: av.VideoFrame) -> tuple[av.VideoFrame, int, int]:
        """That part of a frame, valid until the next one, and its top and left."""
        if self._part is None:
            return frame, 0, 0
        for number, (source, goal) in enumerate(zip(frame.planes, self._part.planes, strict=True)):
            by = 2 if number else 1
            samples = _samples(source)[self.top // by :, self.left // by :]
            _samples(goal)[:] = samples[: goal.height, : goal.width]
        return self._part, self.top, self.left


def _widened(start: int, length: int, whole: int) -> tuple[int, int]:
    """First px, even, and the px after the last one of what is converted for a run of px."""
    first = max(min(start - MARGIN, whole - LEAST), 0) & ~1
    return first, min(max(start + length + MARGIN + 1 & ~1, LEAST), whole)


def _samples(plane: Any) -> np.ndarray:  # uint8 [H, W]
    """Of a plane of a frame, which can be written if the frame's own can."""
    lines = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    return lines.reshape(plane.height, plane.line_size)[:, : plane.width]
