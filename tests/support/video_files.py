"""Small videos of every kind, written with PyAV, whose frames tell their own number.

The top half of a frame holds its number twice: a row of 8 blocks, white for 1 and black for 0, and
below it the complement. That survives lossy coding, and a mixed or broken frame is hardly read by
accident. The bottom half is a moving texture, so that the codecs predict between frames.

    write_video(path, codec="libx264", options={"bf": "3"})
    number_in(frame)        # 17
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, FRAMES, RATE = 48, 64, 60, 24


def painted(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:  # uint8 [H, W, 3]
    """A frame that carries `number` (0..255)."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack(
        [128 + 80 * np.sin((x + s * number) / 5 + y / (4 + s)) for s in (1, 2, 3)], -1
    ).astype(np.uint8)
    band, block = height // 4, width // 8
    for i, bit in enumerate(f"{number:08b}"):
        frame[:band, i * block : (i + 1) * block] = 235 if bit == "1" else 20
        frame[band : 2 * band, i * block : (i + 1) * block] = 20 if bit == "1" else 235
    return frame


def number_in(frame: np.ndarray) -> int:
    """The number painted in `frame`, whatever its size; AssertionError if its two rows don't
    agree."""
    height, width = frame.shape[:2]

    def bits(row: float) -> list[bool]:
        y, xs = int(height * row), [int(width * (i + 0.5) / 8) for i in range(8)]
        return [bool(frame[y, x].mean() > 128) for x in xs]

    plain, complement = bits(1 / 8), bits(3 / 8)
    assert plain == [not bit for bit in complement], (
        "this frame carries no number: it is turned, mixed, or broken"
    )
    return int("".join("01"[bit] for bit in plain), 2)


def numbers_in(frames: np.ndarray) -> list[int]:
    return [number_in(frame) for frame in frames]


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    frames: int = FRAMES,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pts: Sequence[int] | None = None,  # in 1/1000 s; None: one frame each 1/RATE s
    rotation: int = 0,  # degrees counter-clockwise that the player has to turn the frames
    sar: Fraction | None = None,
    audio: bool = False,
    video_streams: int = 1,
    container: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container or {}) as out:
        streams = [
            out.add_stream(codec, rate=RATE, options={**SETTINGS.get(codec, {}), **(options or {})})
            for _ in range(video_streams)
        ]
        sound = out.add_stream("aac", rate=8000, layout="mono") if audio else None
        for stream in streams:
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            if pts is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if sar is not None:
                stream.codec_context.sample_aspect_ratio = sar
            if rotation:
                stream.set_display_rotation(rotation)
        if sound is not None:
            for packet in sound.encode(_silence(frames * 8000 // RATE)):
                out.mux(packet)
            for packet in sound.encode():
                out.mux(packet)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(painted(i, *size), format="rgb24")
            frame.pts = i if pts is None else pts[i]
            frame.time_base = Fraction(1, RATE) if pts is None else Fraction(1, 1000)
            for stream in streams:
                for packet in stream.encode(frame.reformat(format=pix_fmt)):
                    out.mux(packet)
        for stream in streams:
            for packet in stream.encode():
                out.mux(packet)
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # run by root, it makes this thread a real-time one
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


SETTINGS = {
    "libx264": {"g": "20", "crf": "10", "preset": "veryfast", "bf": "3"},
    "libx265": {
        "crf": "10",
        "preset": "superfast",
        "x265-params": "keyint=20:bframes=3:open-gop=0:log-level=none:pools=1",
    },
    "libvpx-vp9": {"g": "20", "crf": "10", "b": "0", "cpu-used": "8"},
    "libvpx": {"g": "20", "crf": "6", "b": "4M", "cpu-used": "8"},
    "libsvtav1": {"g": "20", "crf": "10", "preset": "8", "svtav1-params": "lp=1"},
    "mjpeg": {"qmin": "2", "qmax": "2"},
    "mpeg4": {"g": "20", "qmin": "2", "qmax": "2"},
    "mpeg2video": {"g": "20", "qmin": "2", "qmax": "2"},
}


def _silence(samples: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, samples), np.float32), format="fltp", layout="mono"
    )
    frame.rate, frame.pts = 8000, 0
    return frame


def write_audio(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000, layout="mono")
        for packet in [*stream.encode(_silence(8000)), *stream.encode()]:
            out.mux(packet)
    return path


def trim_without_coding(source: Path, path: Path, first: int) -> Path:
    """Cut the `first` frames off as `ffmpeg -ss -c copy` does: the packets stay, an edit list hides
    them."""
    with (
        av.open(str(source)) as there,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        old = there.streams.video[0]
        new = out.add_stream_from_template(old)
        shift = round(Fraction(first, RATE) / old.time_base)
        for packet in there.demux(old):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, new
                out.mux(packet)
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The first `share` of the bytes of `source`, as a broken download leaves them."""
    path.write_bytes(source.read_bytes()[: int(os.path.getsize(source) * share)])
    return path
