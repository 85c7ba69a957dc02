"""Scan: what a video file is and which frames it shows, from its packets, before anything is
decoded.

In   a local file. Out: a `Scan`: size, rotation, the pts of every frame that a player shows, and
     why decord may be wrong about it.
Demuxing costs milliseconds and finds every kind of file for which decord was seen to return wrong
frames without an error (open GOPs, edit lists, MPEG-TS). Sizes in headers are compared with
`VideoLimits` before a decoder may allocate anything. Three things still need a decoder: the
rotation (one frame), where a cut file really ends (its last two groups of pictures), and the pts of
files that store none (all frames, once).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from labeler.video.container import (
    VideoLimits,
    check_frames,
    check_sizes,
    decoding_options,
    display_size,
    is_picture,
    open_container,
    video_stream,
)
from labeler.video.joins import Incomplete, Join
from labeler.video.orientation import orientation
from labeler.video.rate import ASSUMED_FPS, header_fps, own_fps
from teachers.errors import VideoError

CLAIM_DURATION = frozenset({"matroska", "flv"})
"""Containers whose header states the duration to the frame, so that it can be seen that a file was
cut."""

PROBED_FRAMES = 250
"""Of a file whose packets lie in the order of their pts, although its codec shows frames in
another: so many are decoded to see whose pts these are."""

STREAMS = frozenset({"mpegts", "mpeg"})
"""Containers made for broadcasting: their files may start and end anywhere."""

STATED_END = frozenset({"mov", "avi", *CLAIM_DURATION})
"""Containers whose header states how much follows. Of others, the end is decoded to see whether
they were cut."""


UNTIMED = frozenset({"mpegvideo", "m4v", "h261", "vc1", "mjpeg"})
"""Streams without a container, whose times libav makes up: others after a seek than before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What the packets tell about a video. Sizes are (H, W) in px."""

    codec: str
    container: str
    """The container, by libav's first name for it: "mov" for MP4, "matroska" for WebM."""
    coded_size: tuple[int, int]
    rotation: int
    """Degrees counter-clockwise by which a player turns the frames: 0, 90, 180, or 270."""
    mirrored: bool = False
    """Whether it mirrors them left to right before it turns them."""
    sample_aspect_ratio: Fraction
    """Width of a coded pixel over its height."""
    display_size: tuple[int, int]
    """The size as displayed: after applying the sample aspect ratio (along x), then the
    rotation."""
    pts: np.ndarray
    """int64 [T], ascending: the presentation time of each shown frame, in `time_base`."""
    time_base: Fraction
    fps: float
    """The average frame rate; `ASSUMED_FPS` if the file tells none."""
    key_pts: np.ndarray
    """int64, ascending: pts of the frames at which decoding may start."""
    counted: bool
    """Whether the file has no usable pts, so that a frame is known only by its number, and every
    read decodes from the start."""
    from_start: bool = False
    """Whether decoding may begin only at the start, because a seek loses the palette or, in
    MPEG-PS, gives a frame the time of its neighbour."""
    interlaced: bool
    """Whether the video is interlaced. It is not deinterlaced: moving edges will show combs."""
    truncated: bool
    truncation: str
    """What is missing, if the file was cut."""
    unsafe: tuple[str, ...]
    """Why decord may return wrong frames; empty where it may be trusted."""

    @property
    def turned_size(self) -> tuple[int, int]:
        """(H, W) of a coded frame after rotation, before the sample aspect ratio: what decord
        returns."""
        height, width = self.coded_size
        return (width, height) if self.rotation % 180 else (height, width)

    def key_frame_after(self, index: int) -> int:
        """Number of the first frame after frame `index` at which decoding may start; that of all
        frames if there is none, or none is known."""
        later = np.isin(self.pts[index + 1 :], self.key_pts)
        return len(self.pts) if self.counted or not later.any() else index + 1 + int(later.argmax())


@dataclass(frozen=True)
class _Packets:
    """The packets of the video stream, in the order of the file."""

    pts: list[int | None]
    """pts of the shown frames."""
    key_pts: list[int]
    hidden: int
    """How many packets give no picture: discarded by an edit list, or never meant to be shown."""
    leading: int
    """How many packets follow a key frame and are shown before it, so may lack references."""
    only_keys: bool
    restarts: int
    """How many key frames are shown before the key frame that they follow, as in recordings that
    were joined."""
    dropped: int
    """How many frames AVI counts without a packet: the frame before stays on screen."""
    end_s: float
    """The latest end of a packet of any stream."""
    damage: str
    """What stopped the demuxer, or which packet is incomplete; "" if it reached the end."""
    joins: list[Join]
    """Where another recording may have been joined to the one before; in `_rejoined`, was."""

    @property
    def without_pts(self) -> int:
        """How many shown packets have no pts, or the same pts as another one."""
        return len(self.pts) - len(set(self.pts) - {None})


def scan(source: str | Path, limits: VideoLimits | None = None) -> Scan:
    """Scan a local file.

    Raises:
        VideoError: "not-found", "forbidden", "empty", "not-a-video", "no-video-stream",
            "too-large", or "decode-error" (no frame can be decoded).
    """
    path, limits = Path(source), limits or VideoLimits()
    with open_container(path, limits) as container:
        return scan_container(path, container, limits)


def scan_container(path: Path, container: av.container.InputContainer, limits: VideoLimits) -> Scan:
    """`scan` of the file `path`, just opened as `container`, which is read to its end; raises the
    same errors."""
    stream = video_stream(path, container)
    context = stream.codec_context
    context.options = decoding_options(limits)
    name = container.format.name.split(",")[0]
    size = context.height, context.width
    sar = Fraction(stream.sample_aspect_ratio or 1)
    check_sizes(path, size, sar, stream.frames, limits)
    # what decoding may change
    interlaced, reorders = context.field_order > 1, bool(context.has_b_frames)
    codec, fps = context.codec.canonical_name, header_fps(stream)
    packets, first = _packets(path, container, stream, limits)
    packets = _rejoined(path, limits, packets)
    truncation = packets.damage or _truncation(container, stream, name, packets, fps)
    time_base = stream.time_base or Fraction(1, 1_000_000)
    several = sum(not is_picture(other) for other in container.streams.video) > 1
    pts, counted, numbers = _shown_pts(
        path, limits, packets, name, interlaced, reorders, cut=bool(truncation)
    )
    if numbers:
        time_base = 1 / Fraction(fps or ASSUMED_FPS).limit_denominator(100_000)
        if len(pts) < len(packets.pts) and not truncation:
            truncation = f"{len(packets.pts)} packets give {len(pts)} frames"
    else:
        end = max(pts, default=0)
        lost = sum(value is not None and value > end for value in packets.pts)
        # of interlaced video, the last packet may be half a frame
        if lost and name not in STREAMS and not (interlaced or truncation):
            last = "packet gives no frame" if lost == 1 else f"{lost} packets give no frames"
            truncation = f"its last {last}"
        # a recording may start between key frames
        pts = [value for value in pts if first.pts is None or value >= first.pts]
    if not pts:
        why = f" ({truncation})" if truncation else ""
        raise VideoError("decode-error", f"{path}: no frame can be decoded{why}.")

    rotation, mirrored, plain = orientation(first)
    palette = first.format.name == "pal8"
    others = {
        "its frames are mirrored, or its display matrix is not a rotation": mirrored or not plain,
        "it has a palette, which a seek loses": palette,
        "its container stores no pts of its frames": counted and not packets.without_pts,
        f"its first frame has pts {pts[0]}, not 0": not counted and pts[0] != 0,
        "it is interlaced, and a packet may be half a frame": interlaced and name != "mov",
        "it has several video streams": several,
        f"it is cut: {truncation}": bool(truncation),
    }
    return Scan(
        codec=codec,
        container=name,
        coded_size=size,
        rotation=rotation,
        mirrored=mirrored,
        from_start=palette or name == "mpeg",
        sample_aspect_ratio=sar,
        display_size=display_size(size, sar, rotation),
        pts=np.array(pts, np.int64),
        time_base=time_base,
        fps=(fps if numbers else own_fps(pts, time_base, fps)) or ASSUMED_FPS,
        key_pts=np.array(sorted(packets.key_pts), np.int64),
        counted=counted,
        interlaced=interlaced or bool(first.interlaced_frame),
        truncated=bool(truncation),
        truncation=truncation,
        unsafe=_against_decord(packets, name, codec, others),
    )


def _against_decord(
    packets: _Packets, name: str, codec: str, others: dict[str, bool]
) -> tuple[str, ...]:
    """Why decord may return wrong frames: what the container and the packets say, and `others`."""
    open_gop = (
        f"{packets.leading} packets are shown before the key frame that they follow (open GOP)"
    )
    found = {
        "its container is MPEG-TS": name == "mpegts",
        "its container is MPEG-PS": name == "mpeg",
        f"decord does not read {codec}": codec in ("av1", "gif"),
        open_gop: packets.leading > 0,
        f"{packets.hidden} packets are hidden (edit list)": packets.hidden > 0,
        f"{packets.without_pts} packets have no pts of their own": packets.without_pts > 0,
        **others,
    }
    return tuple(reason for reason, fires in found.items() if fires)


def _packets(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, limits: VideoLimits
) -> tuple[_Packets, av.VideoFrame]:
    """The packets, and the first frame that they decode to."""
    pts: list[int | None] = []
    key_pts: list[int] = []
    first = _FirstFrame()
    hidden = leading = packets = restarts = dropped = 0
    incomplete = Incomplete()
    in_frames = stream.time_base and stream.average_rate == 1 / stream.time_base
    end_s, damage, only_keys = 0.0, "", True
    is_vp8 = stream.codec_context.name == "vp8"
    try:
        for packet in container.demux():
            if packet.stream.index == stream.index:
                first.see(packet)
            if packet.size == 0:  # libav's end marker
                continue
            if packet.pts is not None and packet.time_base:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            packets += 1
            if in_frames and packet.dts is not None:
                dropped = max(dropped, packet.dts + 1 - packets)
            check_frames(path, packets, limits)
            if incomplete.has(packet, packets - 1):
                continue
            if packet.is_keyframe and key_pts and packet.pts is not None:
                restarts += packet.pts < key_pts[-1]
            if packet.pts is not None and packet.is_keyframe:
                key_pts.append(packet.pts)
            if packet.pts is not None and key_pts and packet.pts < key_pts[-1]:
                leading += 1
            # VP8's show_frame bit, RFC 6386, 9.1
            if packet.is_discard or (is_vp8 and not bytes(packet)[0] & 0x10):
                hidden += 1
            else:
                pts.append(packet.pts)
            only_keys = only_keys and packet.is_keyframe
    except MemoryError:
        raise
    except av.FFmpegError as error:
        damage = f"reading stops after {packets} packets ({error.strerror})"
    if not packets:
        raise VideoError("decode-error", f"{path}: its video stream has no packets.")
    damage = damage or incomplete.damage()
    joins = incomplete.joins
    found = _Packets(
        pts, key_pts, hidden, leading, only_keys, restarts, dropped, end_s, damage, joins
    )
    return found, first.frame(path)


class _FirstFrame:
    """Decodes the packets of a stream until a frame comes out."""

    def __init__(self) -> None:
        self._frame: av.VideoFrame | None = None
        self._error: av.FFmpegError | None = None

    def see(self, packet: av.Packet[Any]) -> None:
        """The next packet, or libav's end marker."""
        if self._frame is None and self._error is None:
            try:
                self._frame = next(iter(packet.decode()), None)
            except MemoryError:
                raise
            except av.FFmpegError as error:
                self._error = error

    def frame(self, path: Path) -> av.VideoFrame:
        if self._frame is None:
            raise VideoError(
                "decode-error", f"{path}: its first frame cannot be decoded."
            ) from self._error
        return self._frame


def _rejoined(path: Path, limits: VideoLimits, packets: _Packets) -> _Packets:
    """The packets, with those that libav calls incomplete only because another recording was joined
    to theirs: all that is shown up to there decodes without an error."""
    left, last = list(packets.joins), -math.inf
    frames = _decoded(path, limits, start=None) if left else iter(())
    for frame in frames:
        if frame.pts is not None:
            if frame.pts == left[0].key_pts and (frame.key_frame or frame.pts > last):
                left.pop(0)
            last = max(last, frame.pts)
        if not left:
            break
    found = packets.joins[: len(packets.joins) - len(left)]
    whole = [pts for join in found for pts in join.pts]
    damage = left[0].damage if left and not packets.damage else packets.damage
    return replace(packets, pts=packets.pts + whole, joins=found, damage=damage)


def _truncation(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    name: str,
    packets: _Packets,
    fps: float,
) -> str:
    """What the header promises and the file does not have; "" if nothing."""
    dropped = packets.dropped if name == "avi" else 0
    here = len(packets.pts) + packets.hidden + dropped
    promised = {"mov": len(stream.index_entries), "avi": int(0.99 * stream.frames)}.get(name, 0)
    if promised > here:
        return f"its header promises {promised} frames, but {here} are there"
    if name in CLAIM_DURATION and container.duration:
        promised_s = container.duration / av.time_base
        if promised_s - packets.end_s > max(0.1, 3 / fps if fps else 0):
            return f"its header promises {promised_s:.2f} s, but {packets.end_s:.2f} s are there"
    return ""


def _shown_pts(
    path: Path,
    limits: VideoLimits,
    packets: _Packets,
    name: str,
    interlaced: bool,
    reorders: bool,
    cut: bool,
) -> tuple[list[int], bool, bool]:
    """pts of the frames that are shown, rising; whether frames are known by their number only,
    because the packets have no usable pts; and whether these pts are mere numbers, too."""
    # AVI has none, and libav's guesses are out of order
    no_pts = (
        packets.without_pts > 0
        or packets.restarts > 0
        or (name == "avi" and not packets.only_keys)
        or name in UNTIMED
    )
    rising = sorted(pts for pts in packets.pts if pts is not None)
    of_decoding = (
        not no_pts and reorders and rising == packets.pts and not _come_in_order(path, limits)
    )
    if no_pts or of_decoding or (interlaced and name != "mov"):
        # outside MP4 a packet of interlaced video may be half a frame
        decoded = list(_decoded_pts(path, limits, start=None))
        in_order = sorted({pts for pts in decoded if pts is not None})
        count = min(len(decoded), len(packets.pts))
        if of_decoding:
            return rising[:count], True, False
        if not no_pts and decoded == in_order:
            return in_order, False, False
        # of AVI, the times at which frames come out tell where some were dropped
        if name == "avi" and decoded == in_order and packets.dropped:
            return in_order[:count], True, False
        return list(range(count)), True, True
    if cut or name not in STATED_END:
        # where recordings were joined, a decoder may lose a frame
        keys = [] if packets.joins else sorted(packets.key_pts)
        return _really_decodable(path, limits, rising, keys), False, False
    return rising, False, False


def _come_in_order(path: Path, limits: VideoLimits) -> bool:
    """Whether frames come out with rising pts. They do not if the file's writer stored the times
    of decoding as pts: then each frame has the time of another one."""
    some = list(itertools.islice(_decoded_pts(path, limits, start=None), PROBED_FRAMES))
    return all(one < other for one, other in itertools.pairwise(p for p in some if p is not None))


def _decoded_pts(path: Path, limits: VideoLimits, start: int | None) -> Iterator[int | None]:
    """pts of the frames of `_decoded`."""
    return (frame.pts for frame in _decoded(path, limits, start))


def _decoded(path: Path, limits: VideoLimits, start: int | None) -> Iterator[av.VideoFrame]:
    """The frames that decode, from the key frame at or before `start`, up to the first that
    doesn't."""
    with open_container(path, limits) as container:
        stream = video_stream(path, container)
        stream.codec_context.options = decoding_options(limits)
        try:
            if start is not None:
                container.seek(start, stream=stream)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    return
                yield frame
        except MemoryError:
            raise
        except av.FFmpegError:
            return


def _really_decodable(
    path: Path, limits: VideoLimits, pts: list[int], key_pts: list[int]
) -> list[int]:
    """`pts` (rising), without those that the file promises and cannot show: at its end if it is
    cut, before its first key frame if it was recorded from the air."""
    start = key_pts[-2] if len(key_pts) > 2 else None
    decoded = set(_decoded_pts(path, limits, start))
    if start not in decoded:  # the seek went too far, as it may in MPEG-TS
        start, decoded = None, set(_decoded_pts(path, limits, None))
    return [value for value in pts if value in decoded or (start is not None and value < start)]
