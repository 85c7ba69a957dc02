"""Encode: a clip to the H.264 mp4 of its sample, and back.

In   frames uint8 [T, H, W, 3] RGB. Out: the bytes of an mp4, and from those the frames that
     teachers, labels, and student see.

Encoding loses a little (about 36-44 dB at crf 18), and costs trackers a point or two of delta-avg
(docs/log.md has the curve), so a clip is encoded first and labelled from what `decode_clip`
gives. That is exact: the same bytes always give the same pixels here, with one
thread and FFmpeg's bit-exact conversion. Other readers of the file may round colours by one or two
grey levels differently. `encode_clip` gives the same bytes for the same frames within one version
of PyAV: x264 decides differently with more threads, and writes its version into the stream.

Files play in browsers: yuv420p, BT.709 at limited range and tagged so, the index in front. Key
frames are close, for random access.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from labeler.video.colours import BIT_EXACT, ExactRGB, Region
from teachers import ConfigError, ShardError
from teachers.tracks import checked_frames

X264 = "mbtree=0:chromaloc=1"
"""x264's macroblock tree gives other bytes in some runs, on small frames with AVX-512 (12 of 150
runs at 48 x 64 px). The conversion to yuv420p puts colours in the middle of four pixels, and the
stream says so: untagged, every decoder would take them for those of the left two, and move them by
half a pixel."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How the stored clips are compressed."""

    crf: int = 18
    """Quality of x264, 0 (lossless, before colours are rounded) to 51. 18 looks like the source,
    but costs trackers 1.4 to 2.5 points of delta-avg on procedural clips; 8 costs a learnt one 0.4,
    and takes four times the bytes on noisy video."""

    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "fast"
    """Effort of x264. "slow" takes half as long again and saves 8 %."""

    key_frame_distance: int = 12
    """Frames from one key frame to the next at most: what a reader must decode to reach any
    frame."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ConfigError(
                f"crf = {self.crf}: must be in 0..51; 18 looks like the source, each 6 more halve "
                "the size."
            )
        if self.key_frame_distance < 1:
            raise ConfigError(
                f"key_frame_distance = {self.key_frame_distance}: must be at least 1, which makes "
                "every frame a key frame."
            )


DEFAULT = EncodeConfig()


def encode_clip(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB, H and W even
    fps: float,
    config: EncodeConfig = DEFAULT,
) -> bytes:
    """The clip as an mp4: T frames at `fps`, which is only its speed in a player and is brought
    into 1/1001..1000.

    Raises:
        ConfigError: odd sides, which yuv420p cannot hold, or an fps that is not a positive number.
    """
    _, height, width, _ = checked_frames(frames).shape
    if height % 2 or width % 2:
        raise ConfigError(
            f"a clip of {width} x {height} px cannot be encoded: both sides must be even. Resize "
            "or crop it first."
        )
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps = {fps}: a clip needs a positive number of frames a second.")
    # "faststart" reads the file again by its name, so memory will not do
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        with av.open(
            path, "w", options={"movflags": "+faststart", "fflags": "+bitexact"}
        ) as container:
            stream = add_h264(container, (height, width), fps, config)
            for index, rgb in enumerate(frames):
                container.mux(stream.encode(h264_frame(stream, rgb, index)))
            container.mux(stream.encode())
        return path.read_bytes()


def add_h264(
    container: av.container.OutputContainer,
    size: tuple[int, int],
    fps: float,
    config: EncodeConfig = DEFAULT,
) -> av.VideoStream:
    """A stream of frames of `size` (H, W) px in the container, encoded as described at the top of
    this module."""
    # 30000 / 1001 stays as it is
    rate = Fraction(min(max(fps, 1 / 1001), 1000)).limit_denominator(1001)
    options = {"crf": str(config.crf), "preset": config.preset, "x264-params": X264}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.thread_count = 1
    codec.gop_size = config.key_frame_distance
    codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
    codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def h264_frame(
    stream: av.VideoStream,
    rgb: np.ndarray,  # uint8 [H, W, 3]
    index: int,
) -> av.VideoFrame:
    """Frame `index` of a stream of `add_h264`, ready to be encoded."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=BIT_EXACT,
        threads=1,
    )
    frame.pts, frame.time_base = index, 1 / stream.codec_context.framerate
    return frame


@contextlib.contextmanager
def stored_clip(
    mp4: bytes, name: str = "clip.mp4"
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open an mp4 made by `encode_clip`: its container and its video stream. What goes wrong in
    reading them becomes a ShardError that names `name`."""
    try:
        with av.open(io.BytesIO(mp4), "r", format="mp4") as container:
            yield container, container.streams.video[0]
    except (av.FFmpegError, LookupError, ValueError, StopIteration) as error:
        raise ShardError(
            f"{name}: not a readable mp4 ({error}). Check its shard with `tapdistill verify`."
        ) from error


def decode_clip(
    mp4: bytes,
    name: str = "clip.mp4",
    only: Sequence[int] | np.ndarray | None = None,
    window: Region | None = None,
) -> np.ndarray:
    """Frames of an mp4 made by `encode_clip`: uint8 [T, H, W, 3] RGB, in the order of display.

    Args:
        name: what error messages call the file.
        only: numbers of the frames to return, in that order, repeats allowed; None: all. Decoding
            begins at the key frame before the first of them, ends with the last, and skips what
            none of them needs.
        window: the part of each frame to return, with exactly the pixels that the whole frame has
            there; None: the whole frame.

    Raises:
        ShardError: not an mp4, or damaged: frames that cannot be decoded, or fewer of them than its
            index says. What `only` does not need is not checked.
        IndexError: no such frame, or a window that is not within the frames.
    """
    if only is not None:
        numbers = np.asarray(only, np.intp)
        part = _decoded_part(mp4, name, numbers, window)
        # where times do not follow from the frame rate, all frames are decoded and counted
        return decode_clip(mp4, name, None, window)[numbers] if part is None else part
    with stored_clip(mp4, name) as (container, stream):
        stream.thread_type = "NONE"
        decoded = list(container.decode(stream))
        promised = stream.frames
    broken = sum(frame.is_corrupt or not _alike(frame, decoded[0]) for frame in decoded)
    if broken or not decoded or len(decoded) != promised:
        raise ShardError(
            f"{name}: damaged: {len(decoded)} of {promised} frames decoded, {broken} of them "
            "broken. Check its shard with `tapdistill verify`."
        )
    frames = _room(len(decoded), decoded[0], window)
    exact = ExactRGB(window)
    for number, frame in enumerate(decoded):
        exact.into(frames[number], frame)
    return frames


def _decoded_part(
    mp4: bytes, name: str, only: np.ndarray, window: Region | None
) -> np.ndarray | None:
    """The frames with these numbers; None if they cannot be found by their times, or are broken."""
    wanted, place = np.unique(only, return_inverse=True)
    row = {int(number): i for i, number in enumerate(wanted)}
    found: dict[int, av.VideoFrame] = {}
    with stored_clip(mp4, name) as (container, stream):
        stream.thread_type = "NONE"
        rate, base = stream.average_rate, stream.time_base
        if not rate or not base or not row:
            return None
        container.seek(int(int(wanted[0]) / rate / base), stream=stream)
        still = set(row)
        for packet in container.demux(stream):
            number = None if packet.pts is None else round(packet.pts * base * rate)
            # a frame that no other refers to is skipped unless it is wanted itself
            stream.codec_context.skip_frame = "DEFAULT" if number in row else "NONREF"
            still.discard(-1 if number is None else number)
            decoded = packet.decode()
            if not still and packet.size:  # a frame refers to earlier packets only
                decoded += stream.codec_context.decode(None)
            for frame in decoded:
                if frame.pts is None or frame.is_corrupt:
                    return None
                number = round(frame.pts * base * rate)
                if number in row:
                    found[number] = frame
            if not still:
                break
    if len(found) != len(wanted) or not all(_alike(a, b) for a, b in pairwise(found.values())):
        return None
    frames = _room(len(wanted), found[int(wanted[0])], window)
    exact = ExactRGB(window)
    for number, frame in found.items():
        exact.into(frames[row[number]], frame)
    return frames if np.array_equal(place, np.arange(len(frames))) else frames[place]


def _alike(frame: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two frames have the same size and format, as all frames of a clip do."""
    one, two = ((each.height, each.width, each.format.name) for each in (frame, other))
    return one == two


def _room(count: int, frame: av.VideoFrame, window: Region | None) -> np.ndarray:
    """An empty array for `count` frames, or windows, like this one: uint8 [T, H, W, 3]."""
    top, left, height, width = window or (0, 0, frame.height, frame.width)
    fits = top + height <= frame.height and left + width <= frame.width
    if min(top, left, height - 1, width - 1) < 0 or not fits:
        raise IndexError(f"{window}: not within frames of {frame.height} x {frame.width} px.")
    return np.empty((count, height, width, 3), np.uint8)
