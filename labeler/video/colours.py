"""Colours: decoded frames to RGB, at the size that is wanted.

`ShownRGB`    frames of a source: turned as a player turns them, and resized inside the conversion.
`ExactRGB`    frames of a stored clip: the same pixels on every CPU; the whole frame, or a region of
              it, whose pixels are those of the whole frame.

Converting to planes (GBRP, for which libswscale has vector instructions; OpenCV then merges them)
takes a third of the time of RGB24 and gives the same bytes. Resizing in the same step costs a
quarter of what it costs afterwards, and is nearer to the truth (docs/decisions/0017).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from labeler.video.orientation import as_shown

BIT_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""The same conversion between RGB and YUV on every CPU, with the chroma planes resized rather than
repeated."""

BY_AREA = (
    Interpolation.AREA
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""The same for frames that shrink: each pixel is the mean of what it covers."""

MARGIN = 8
"""Pixels around a window that are converted with it: the chroma of a pixel comes from samples up to
4 px away."""

LEAST = 16
"""The fewest pixels a side that are converted: for fewer, libswscale shortens its filters."""


class Region(NamedTuple):
    """A part of a frame, px."""

    top: int
    left: int
    height: int
    width: int


class ExactRGB:
    """Converts the frames of one clip, which all have the same size and format."""

    def __init__(self, window: Region | None = None) -> None:
        self._window = window
        # one for all frames, because it builds its filters only once
        self._reformatter = VideoReformatter()
        self._around: _Around | None = None

    def into(
        self,
        out: np.ndarray,  # uint8 [H, W, 3], contiguous: of the window, or of the frame
        frame: av.VideoFrame,
    ) -> None:
        """Convert the frame, by the colour space and range that it is tagged with, into `out`."""
        window = self._window or Region(0, 0, frame.height, frame.width)
        if self._window is not None and self._around is None:
            self._around = _Around(frame, window)
        part, top, left = (frame, 0, 0) if self._around is None else self._around.of(frame)
        planar = _planar(self._reformatter, part, (part.height, part.width))
        rows = slice(window.top - top, window.top - top + window.height)
        columns = slice(window.left - left, window.left - left + window.width)
        green, blue, red = (_samples(plane)[rows, columns] for plane in planar.planes)
        cv2.merge([red, green, blue], out)


class ShownRGB:
    """Converts the frames of one source."""

    def __init__(self, rotation: int = 0, mirrored: bool = False) -> None:
        self._rotation, self._mirrored = rotation, mirrored
        self._reformatter = VideoReformatter()

    def of(
        self,
        frame: av.VideoFrame,
        size: tuple[int, int],  # (H, W) px, of what is given
    ) -> np.ndarray:  # uint8 [H, W, 3]
        """The frame, converted by the colour space and range that it is tagged with, mirrored, and
        then turned, as `labeler.video.scan.Scan` says."""
        coded = size[::-1] if self._rotation % 180 else size
        planar = _planar(self._reformatter, frame, coded)
        green, blue, red = (_samples(plane) for plane in planar.planes)
        return as_shown(cv2.merge([red, green, blue]), self._rotation, self._mirrored)


def _planar(
    reformatter: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int]
) -> av.VideoFrame:
    """The frame in GBRP, at `size` (H, W)."""
    height, width = size
    grows = height > frame.height or width > frame.width
    shrinks = not grows and (height, width) != (frame.height, frame.width)
    return reformatter.reformat(
        frame,
        width,
        height,
        "gbrp",
        dst_color_range=ColorRange.JPEG,
        interpolation=BY_AREA if shrinks else BIT_EXACT,
        threads=1,
    )


class _Around:
    """The smallest part of a yuv420p frame that gives the pixels of a window; of frames in another
    format, the whole."""

    def __init__(self, frame: av.VideoFrame, window: Region) -> None:
        self.top, bottom = _widened(window.top, window.height, frame.height)
        self.left, right = _widened(window.left, window.width, frame.width)
        size = bottom - self.top, right - self.left
        self._part: av.VideoFrame | None = None
        if size != (frame.height, frame.width) and frame.format.name == "yuv420p":
            # Only by resizing does PyAV make a frame with the tags of another one, such as where
            # its chroma samples lie; the pixels are overwritten.
            # (One thread: by default, PyAV starts some for it, which takes longer than the rest.)
            self._part = frame.reformat(
                size[1], size[0], interpolation=Interpolation.POINT, threads=1
            )
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
    """(first, end) of the pixels that are converted to get `length` of them from `start` on; first
    is even."""
    first = max(min(start - MARGIN, whole - LEAST), 0) & ~1
    return first, min(max(start + length + MARGIN + 1 & ~1, LEAST), whole)


def _samples(plane: Any) -> np.ndarray:  # uint8 [H, W]
    """The samples of a plane of a frame, which can be written if the plane itself can."""
    lines = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    return lines.reshape(plane.height, plane.line_size)[:, : plane.width]
