"""Thumbnail: the small picture of a clip, with one teacher's labels on the key frame nearest the
middle, coloured by support.

A key frame can be decoded without any other, and it is drawn at the size at which it is shown:
`benchmarks/inspect_report.py` measures how long a clip takes.
"""

from __future__ import annotations

import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from labeler.dataset import Clip
from labeler.labels.agreement import VISIBLE
from labeler.show.draw import colour_by, draw_picture, to_jpeg
from labeler.show.player import evenly
from labeler.video.encode import stored_clip

JPEG_QUALITY = 86
WIDTH_PX = 288
"""Twice the width that it has in the table of clips, for high-resolution screens."""
POINTS = 80
"""The most kept points that are drawn."""
MARKER_PX, TRAIL_FRAMES = 2.5, 12


def thumbnail(clip: Clip, teacher: str) -> bytes:
    """JPEG of `WIDTH_PX` width. ShardError if the stored clip is damaged."""
    index, picture = key_frame(clip.mp4, clip.size_hw, f"{clip.key}.mp4")
    kept = np.flatnonzero(clip.labels.keep)
    shown = kept[evenly(len(kept), POINTS)] if len(kept) else kept
    steps = slice(max(0, index - TRAIL_FRAMES), index + 1)
    height, width = picture.shape[:2]
    scale = width / clip.size_hw[1], height / clip.size_hw[0]
    at = (clip.tracks[teacher].xy[shown, steps] + 0.5) * scale - 0.5
    label = (clip.labels.valid & (clip.labels.state == VISIBLE))[shown, steps]
    drawn = draw_picture(
        picture,
        np.where(label[..., None], at, np.nan),
        clip.visible(teacher)[shown, steps],
        colour_by(clip.labels.support[shown, index]),
        trail_frames=TRAIL_FRAMES,
        point_radius=MARKER_PX,
        scale=1,
    )
    return to_jpeg(drawn, JPEG_QUALITY)


def key_frame(mp4: bytes, size_hw: tuple[int, int], name: str) -> tuple[int, np.ndarray]:
    """Number of the key frame nearest the middle of a clip of `size_hw` px, and its picture: uint8
    [h, WIDTH_PX, 3] RGB.

    ShardError, which says `name`, if it cannot be decoded.
    """
    height, width = size_hw
    with stored_clip(mp4, name) as (container, stream):
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
        shown = sorted(pts for pts, _ in packets)
        numbers = [shown.index(pts) for pts, is_key in packets if is_key]
        number = min(numbers, key=lambda each: abs(each - (len(shown) - 1) / 2))
        container.seek(shown[number], stream=stream)
        frame = next(container.decode(stream))
    size = {"width": WIDTH_PX, "height": max(1, round(WIDTH_PX * height / width))}
    rgb = frame.reformat(
        **size,
        format="rgb24",
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
        threads=1,
    )
    return number, rgb.to_ndarray()
