"""Making: one video -> its clips, inside a process that can be killed.

`VideoSource` is the object that `labeler.clips.isolate` hosts. It opens a video, finds its shots,
plans its clips, and gives one clip after another: decoded, resized, encoded, and decoded again, so
that teachers see exactly the pixels that are stored. Whatever a broken file can do to a decoder
happens here and nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from labeler.clips.choice import (
    ClipPlan,
    analysed_ranges,
    clip_key,
    plan_clips,
    reason_to_leave_out,
)
from labeler.clips.queries import sample_queries
from labeler.clips.recipe import SCHEMA, ClipRecipe
from labeler.clips.shots import find_cuts, shots
from labeler.io.scratch import is_full
from labeler.io.storage import is_url
from labeler.sources import Source
from labeler.video import VideoReader, decode_clip, encode_clip, open_video
from labeler.video.check import check_decoding
from labeler.video.pictures import content_sha256
from teachers import VideoError

ANALYSIS_SIDE = 64
"""Short side in px of the frames that are searched for cuts."""
OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What a system answers that has no room for another open file."""
DECODED_AGAIN = 10
"""How many times the frames that are analysed may be decoded to look for shots behind frames that
cannot be decoded: each of these may cost as much as decoding from the start up to it."""


@dataclass(frozen=True)
class OpenedVideo:
    """A video that could be opened, and the clips that it will give."""

    uri: str
    sha256: str
    clips: list[ClipPlan]


@dataclass(frozen=True)
class UnlabelledClip:
    """A clip with its queries, before any teacher has seen it."""

    key: str
    mp4: bytes
    frames: np.ndarray
    """uint8 [T, H, W, 3] RGB, decoded from `mp4`."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y)."""
    sampler: np.ndarray
    """unicode [N]."""
    meta: dict[str, Any]
    """The json of the sample, without `teachers`."""


class VideoSource:
    """Opens one video at a time; asking for another one closes the first."""

    def __init__(self, recipe: ClipRecipe) -> None:
        cv2.setNumThreads(1)
        self._recipe = recipe
        self._reader: VideoReader | None = None
        self._opened = OpenedVideo("", "", [])
        self._damage = ""

    def check(self) -> None:
        """Decode the clip that comes with the installation; an InstallationError if that fails."""
        check_decoding(self._recipe.decoder)

    def open(self, source: Source) -> OpenedVideo:
        """Hash, scan, and cut a video into clips.

        Raises:
            VideoError: the video gives no clip at all; the reason becomes the row of the video.
        """
        with _disk_of(source):
            self._open(source)
        return self._opened

    def _open(self, source: Source) -> VideoReader:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._opened = OpenedVideo("", "", [])
        config, uri = self._recipe.clips, source.uri
        reader = open_video(
            uri,
            span=source.span,
            decoder=self._recipe.decoder,
            unsafe=self._recipe.unsafe_decode,
            limits=self._recipe.limits,
        )
        self._reader, self._damage = reader, reader.scan.truncation
        if len(reader) < config.min_frames and not self._damage:
            raise VideoError(
                "too-short", f"{uri} has {len(reader)} frames; a clip needs {config.min_frames}."
            )
        if min(reader.size) < config.min_side:
            raise VideoError(
                "too-small",
                f"{uri} is {reader.size[1]} x {reader.size[0]} px; a clip needs {config.min_side} "
                "a side.",
            )
        digest = content_sha256(reader.path)
        plans = plan_clips(self._shots(reader), digest, config)
        if not plans and self._damage:
            raise VideoError(
                "decode-error",
                f"{uri}: no {config.min_frames} frames in a row were found that decode: "
                f"{self._damage}",
            )
        if not plans:
            raise VideoError(
                "too-short", f"{uri}: none of its shots has {config.min_frames} frames."
            )
        self._opened = OpenedVideo(uri, digest, plans)
        return reader

    def clip(self, source: Source, number: int) -> UnlabelledClip:
        """Clip `number` of `open(source).clips`.

        Raises:
            VideoError: "static" or "dark", or a decoding error; the reason becomes the row of the
                clip.
        """
        with _disk_of(source):
            return self._clip(source, number)

    def _clip(self, source: Source, number: int) -> UnlabelledClip:
        _return_freed_memory()
        reader, recipe = self._reader, self._recipe
        if reader is None or self._opened.uri != source.uri:
            reader = self._open(source)
        opened = self._opened
        plan = opened.clips[number]
        source_frames = reader.read(plan.indices, short_side=recipe.clips.short_side, multiple=8)
        unwanted = reason_to_leave_out(source_frames, recipe.clips)
        if unwanted is not None:
            raise VideoError(*unwanted)
        fps = reader.fps / plan.stride
        mp4 = encode_clip(source_frames, fps, recipe.encode)
        del source_frames
        frames = decode_clip(mp4)
        key = clip_key(opened.sha256, plan.start, plan.stride)
        drawn = sample_queries(frames, recipe.queries, seed=seed_of(key))
        meta = {
            "schema": SCHEMA,
            "key": key,
            "uri": source.uri,
            "sha256": opened.sha256,
            "clip": number,
            "stride": plan.stride,
            "source_frames": list(plan.indices),
            "source_timestamps_s": [
                round(float(second), 6) for second in reader.timestamps_s[list(plan.indices)]
            ],
            "source_height": reader.size[0],
            "source_width": reader.size[1],
            "source_fps": round(reader.fps, 6),
            "codec": reader.scan.codec,
            "decoder": reader.decoder,
            "decoder_why": reader.why,
            "truncated": bool(self._damage),
            "interlaced": bool(reader.scan.interlaced),
            "fps": round(fps, 6),
            "frames": len(frames),
            "height": frames.shape[1],
            "width": frames.shape[2],
            "metadata": json.loads(source.metadata) if source.metadata else {},
        }
        return UnlabelledClip(key, mp4, frames, drawn.points, drawn.sampler, meta)

    def _shots(self, reader: VideoReader) -> list[range]:
        """Runs of frames without a cut, within the frames that are analysed. A frame that cannot be
        decoded ends a shot, and the next one begins with the key frame after it: what is shown in
        between may be made from it."""
        found: list[range] = []
        again, most = 0, DECODED_AGAIN * self._recipe.clips.analysed_frames
        for window in analysed_ranges(len(reader), self._recipe.clips):
            start = window.start
            while start < window.stop:
                decoded: list[int] = []
                cuts = find_cuts(self._decodable(reader, range(start, window.stop), decoded))
                found += [
                    range(start + shot.start, start + shot.stop)
                    for shot in shots(cuts, len(decoded))
                ]
                start += len(decoded)
                if start < window.stop:
                    start = reader.scan.key_frame_after(start)
                    again += start
                    if again > most:
                        break
        return found

    def _decodable(
        self, reader: VideoReader, wanted: range, decoded: list[int]
    ) -> Iterator[np.ndarray]:
        """The frames of `wanted` up to the first that cannot be decoded; `decoded` gets their
        numbers."""
        try:
            for index, frame in reader.stream(wanted.start, wanted.stop, short_side=ANALYSIS_SIDE):
                decoded.append(index)
                yield frame
        except VideoError as error:
            self._damage = str(error)


@contextlib.contextmanager
def _disk_of(source: Source) -> Iterator[None]:
    """Turn what the disk of a local video refuses into a VideoError, as `labeler.video.fetch` does
    for a server; what this machine lacks stays an OSError."""
    try:
        yield
    except OSError as error:
        if is_url(source.uri) or is_full(error) or error.errno in OF_THE_MACHINE:
            raise
        raise VideoError(
            "unreachable",
            f"{source.uri}: reading failed ({error.strerror or error}): try again later.",
        ) from error


def _return_freed_memory() -> None:
    """Give the system back what the last clip's frames took: otherwise this process grows by a
    third over its first dozen videos."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def seed_of(key: str) -> int:
    """The seed of everything random about a clip: a hash of its key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
