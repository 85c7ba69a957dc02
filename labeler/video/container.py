"""Container: a video file opened for libav, within limits.

In   a local file. Out: an open container and its stream of moving pictures, or a VideoError that
     says what the file is.
Sizes in headers are compared with `VideoLimits` before a decoder may allocate anything.
"""

from __future__ import annotations

import errno
import math
import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from teachers.errors import ConfigError, VideoError

CONTAINERS = (
    "mov,mp4,matroska,webm,mpegts,mpeg,avi,flv,asf,ogg,gif,mxf,ivf,h264,hevc,mpegvideo,obu,dv,nut,"
    "yuv4mpegpipe,mjpeg,mpjpeg,m4v,h261,vc1,apng,rm,wtv,gxf,"
    "wav,mp3,flac,aac"  # sound, so that its error is clear
)
"""Demuxers that may open a file. Without such a list, libav would take a text for the output of a
terminal, and a playlist as permission to open the files that it names."""

NO_FILE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOTDIR, errno.EILSEQ)
"""Errors of a disk for a name that none of its files can have."""

PYAV = int(av.__version__.partition(".")[0])


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """Limits for a video that is opened, which are checked before anything is allocated."""

    max_side_px: int = 8192
    """The longest side of a frame."""

    max_frames: int = 1_000_000
    """The most frames, counted as packets."""

    max_gib: float = 64.0
    """The largest file."""

    def __post_init__(self) -> None:
        if not all(0 < each < math.inf for each in vars(self).values()):
            raise ConfigError(f"{self}: every limit must be above 0, and finite.")


def open_container(path: Path, limits: VideoLimits) -> av.container.InputContainer:
    """The file opened for demuxing; close it. A VideoError says what it is if it is no video."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise VideoError("not-a-video", f"{path}: a device or a pipe, not a file.")
        with path.open("rb") as file:
            head = file.read(12)
    except FileNotFoundError:
        raise VideoError("not-found", f"{path}: there is no such file.") from None
    except PermissionError:
        raise VideoError("forbidden", f"{path}: this user may not read it.") from None
    except IsADirectoryError:
        raise VideoError("not-a-video", f"{path}: it is a folder, not a video file.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in NO_FILE:
            raise
        raise VideoError("not-found", f"{path}: not a name of a file ({error}).") from None
    gib = path.stat().st_size / 2**30
    if not head:
        raise VideoError("empty", f"{path}: the file is empty.")
    if gib > limits.max_gib:
        raise VideoError(
            "too-large",
            f"{path}: {gib:.1f} GiB are above the limit of {limits.max_gib:g} GiB (max_gib).",
        )
    try:
        # an absolute path, because libav would take "a:b.mp4" for a protocol
        return open_input(str(path.absolute()), options={"format_whitelist": CONTAINERS})
    except MemoryError:
        raise
    except av.FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise VideoError(
                "decode-error",
                f"{path}: an MP4 or MOV file without its index (moov): it was cut, or its "
                "recording never ended.",
            ) from error
        raise VideoError(
            "not-a-video", f"{path}: not a video container that can be read here."
        ) from error


def open_input(file: Any, **settings: Any) -> av.container.InputContainer:
    """`av.open` for reading, whatever the text in the file: PyAV before 19 stops at a title that is
    not UTF-8 unless it is told, and PyAV from 19 on cannot be told."""
    told: dict[str, Any] = {} if PYAV >= 19 else {"metadata_errors": "replace"}
    return av.open(file, "r", **settings, **told)


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The first stream with moving pictures, set to decode in one thread.

    One thread is as fast per core (jobs decode many files at once), needs the least memory, and,
    unlike frame threads, does not end early without an error where a file is broken.
    """
    streams = [stream for stream in container.streams.video if not is_picture(stream)]
    # AVIF has a still picture beside its moving one
    films = [stream for stream in streams if stream.frames > 1]
    if streams and streams[0].frames == 1 and films:
        streams = films
    if not streams:
        kinds = {
            "a cover picture" if stream.type == "video" else str(stream.type)
            for stream in container.streams
        }
        raise VideoError(
            "no-video-stream",
            f"{path}: no video in it, only {', '.join(sorted(kinds)) or 'an empty container'}.",
        )
    if streams[0].codec_context is None:
        raise VideoError("decode-error", f"{path}: libav has no decoder for its video.")
    if not streams[0].codec_context.is_open:  # an open decoder keeps its threads
        streams[0].thread_type = "NONE"
        streams[0].codec_context.thread_count = 1
    return streams[0]


def decoding_options(limits: VideoLimits) -> dict[str, str]:
    """Options for a decoder context, by which a frame that grows in the middle of a file stays
    within the limits, too."""
    return {"max_pixels": str(limits.max_side_px**2)}


def is_picture(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def check_sizes(
    path: Path, size: tuple[int, int], sar: Fraction, frames: int, limits: VideoLimits
) -> None:
    """Raise a VideoError if frames of `size` (H, W), or their number, are above the limits."""
    (height, width), shown = size, display_size(size, sar, 0)
    if height < 1 or width < 1:
        raise VideoError(
            "decode-error", f"{path}: its header tells no frame size that libav accepts."
        )
    if max(height, width, *shown) > limits.max_side_px:
        shape = f" (sample aspect ratio {sar})" if sar != 1 else ""
        raise VideoError(
            "too-large",
            f"{path}: frames of {width} x {height} px{shape} are above the limit of "
            f"{limits.max_side_px} px a side (max_side_px).",
        )
    check_frames(path, frames, limits)


def check_frames(path: Path, frames: int, limits: VideoLimits) -> None:
    if frames > limits.max_frames:
        raise VideoError("too-large", f"{path}: more than {limits.max_frames} frames (max_frames).")


def display_size(size: tuple[int, int], sar: Fraction, rotation: int) -> tuple[int, int]:
    height, width = size[0], max(1, round(size[1] * sar))
    return (width, height) if rotation % 180 else (height, width)
