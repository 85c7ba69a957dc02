"""Frames: the pictures of a video file or of a folder, one after another, exactly as they are.

    with open_frames("clip.mp4", FramePart(stride=2)) as source:
        for frame in source.frames: ...             # uint8 [H, W, 3] RGB

file      as `labeler.video.decode` finds it: every frame by its number, turned and with square
          pixels, nothing encoded again
folder    its png and jpg pictures in natural order (frame 2 before frame 10), 8 bits a channel, all
          of one size
"-", 0, rtsp://...    a pipe, a camera, a stream: `labeler.video.live`

Nothing is resized unless `short_side` asks for it. One frame is held at a time; `read_all` holds
them all, within a limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from labeler.sources.rules import PICTURES
from labeler.video.decode import open_video, resized, target_size
from labeler.video.live import is_live, open_live
from labeler.video.pictures import FOLDER_FPS, pictures_in, read_picture
from teachers import ConfigError, VideoError


@dataclass(frozen=True, kw_only=True)
class FramePart:
    """Which frames are taken, and of what size."""

    start: int = 0
    """First frame, counted from 0."""
    stride: int = 1
    """Take every n-th frame."""
    max_frames: int | None = None
    """Stop after this many frames."""
    short_side: int | None = None
    """Shrink frames whose short side is longer than this many px; without it, frames keep their
    size."""

    def __post_init__(self) -> None:
        for name in ("stride", "max_frames", "short_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: must be at least 1.")
        if self.start < 0:
            raise ConfigError(f"start = {self.start}: frames count from 0.")


@dataclass(frozen=True)
class FrameSource:
    """Frames to come."""

    name: str
    size: tuple[int, int]
    """(H, W) px of the frames."""
    fps: float
    """Frames per second at which they play at their real speed."""
    length: int | None
    """How many there are; None for a live source."""
    frames: Iterator[np.ndarray] = field(repr=False)
    """uint8 [H, W, 3] RGB; can be iterated over once."""
    damage: str = ""
    """What is missing, if the file was cut."""


@contextlib.contextmanager
def open_frames(source: str, part: FramePart | None = None) -> Iterator[FrameSource]:
    """Open a video file (path or fsspec URL), a folder of pictures, or a live source.

    Raises:
        VideoError: there is no such file, it is not a video, or a picture is broken or has another
            size.
        ConfigError: a folder has no pictures, or `start` is after the last frame.
    """
    part = part or FramePart()
    with contextlib.ExitStack() as stack:
        if is_live(source):
            yield _from_live(source, part, stack)
        elif Path(source).is_dir():
            yield _from_folder(Path(source), part)
        else:
            yield _from_file(source, part, stack)


def read_all(
    source: FrameSource,
    max_gib: float,
    watch: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]] = iter,
) -> np.ndarray:  # uint8 [T, H, W, 3] RGB
    """Every frame at once; `watch` wraps the iterator, to show progress.

    Raises:
        ConfigError: more than `max_gib` would be needed, or the source has no end.
    """
    if source.length is None:
        raise ConfigError(
            f"{source.name}: a live source has no last frame: track it with --stream, or give "
            "--max-frames."
        )
    height, width = source.size
    gib = source.length * height * width * 3 / 2**30
    if gib > max_gib:
        raise ConfigError(
            f"{source.name}: its {source.length} frames of {width} x {height} px take {gib:.1f} "
            f"GiB, the limit is {max_gib:g} GiB: take fewer (--max-frames, --stride), smaller ones "
            "(--short-side), go through them with --stream, or raise --max-gib."
        )
    frames = np.empty((source.length, height, width, 3), np.uint8)
    count = 0
    for frame in watch(source.frames):
        frames[count] = frame
        count += 1
    return frames[:count]  # a live source may end early


def _from_file(source: str, part: FramePart, stack: contextlib.ExitStack) -> FrameSource:
    video = stack.enter_context(open_video(source))
    indices = _taken(source, len(video), part)
    frames = video.stream(indices.start, indices.stop, indices.step, part.short_side)
    size = target_size(video.size, part.short_side, 1, name=source)
    damage = video.scan.truncation if video.truncated else ""
    return FrameSource(
        source,
        size,
        video.fps / part.stride,
        len(indices),
        (frame for _, frame in frames),
        damage,
    )


def _from_folder(folder: Path, part: FramePart) -> FrameSource:
    files = pictures_in(folder)
    if not files:
        raise ConfigError(
            f"{folder}: a folder without pictures: frames are read from {', '.join(PICTURES)}."
        )
    files = [files[index] for index in _taken(str(folder), len(files), part)]
    first = read_picture(files[0]).shape[:2]
    size = target_size((first[0], first[1]), part.short_side, 1, name=str(folder))

    def frames() -> Iterator[np.ndarray]:
        for file in files:
            picture = read_picture(file)
            if picture.shape[:2] != first:
                raise VideoError(
                    "decode-error",
                    f"{file}: {picture.shape[1]} x {picture.shape[0]} px, but {files[0].name} has "
                    f"{first[1]} x {first[0]} px: the frames of a folder must be of one size.",
                )
            yield resized(picture, size)

    return FrameSource(str(folder), size, FOLDER_FPS / part.stride, len(files), frames())


def _from_live(source: str, part: FramePart, stack: contextlib.ExitStack) -> FrameSource:
    live = stack.enter_context(open_live(source))
    size = target_size(live.size, part.short_side, 1, name=source)
    stop = None if part.max_frames is None else part.start + part.max_frames * part.stride
    frames = (resized(frame, size) for frame in islice(live.frames, part.start, stop, part.stride))
    return FrameSource(source, size, live.fps / part.stride, part.max_frames, frames)


def _taken(name: str, length: int, part: FramePart) -> range:
    """Numbers of the frames that `part` takes."""
    indices = range(length)[part.start :: part.stride][: part.max_frames]
    if not indices:
        raise ConfigError(f"--start {part.start}: {name} has {length} frames, 0..{length - 1}.")
    return indices
