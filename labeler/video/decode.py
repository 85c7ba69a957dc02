"""Decode: exact frames of a video by their numbers, whatever the file, through decord or PyAV.

In   a path, the bytes of a file, or any fsspec URL. Out: uint8 [T, H, W, 3] RGB as a player shows
     it: rotated, square pixels.
PyAV with a verified seek reads any file, resizes inside the conversion to RGB, and is the cheapest;
decord is used only if it is asked for and the packet scan finds nothing against it. `decoder` and
`why` of a reader say which is used. Frame i is the same frame in whatever order frames are read.

    with open_video("clip.mp4") as video:
        frames = video.read([0, 10, 20], short_side=384, multiple=8)

A reader belongs to one thread of one process: readers of decord abort when threads share them, and
hang after a fork. Decoders hang and crash on some broken files: jobs open videos inside
`labeler.clips.isolate.Isolated`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import av
import cv2
import numpy as np

from labeler.io.closing import ClosedAtExit
from labeler.video.colours import ShownRGB
from labeler.video.container import VideoLimits, decoding_options, open_container, video_stream
from labeler.video.fetch import local_file, shown
from labeler.video.pictures import PictureReader, scan_folder
from labeler.video.scan import Scan, scan_container
from teachers.errors import ConfigError, VideoError

Decoder = Literal["auto", "decord", "pyav"]

BATCH_BYTES = 64 * 2**20
"""The most bytes of full-size frames that are held at a time."""

INDEXED = frozenset({"mov", "matroska"})
"""Containers with an index, in which a seek is right after the file was read to its end."""

SEEK_BACK_S = 5.0
"""How much earlier the second try of a seek goes."""

SEEK_COST_FRAMES = 8
"""A seek costs about as much as decoding this many frames."""


def open_video(
    source: str | Path | bytes,
    *,
    span: tuple[int, int] | None = None,
    decoder: Decoder = "auto",
    unsafe: bool = False,
    limits: VideoLimits | None = None,
) -> VideoReader:
    """Open a video; use it as a context manager.

    Args:
        source: path; bytes of a file; or fsspec URL, copied to a temporary file that `close`
            deletes. A folder of pictures is a video too; a URL of one ends with a slash.
        span: of a member of a tar, "archive.tar#member.mp4": the offset and the number of its
            bytes.
        decoder: "auto" is "pyav"; frames of "decord" are resized after their conversion to RGB, so
            their pixels are slightly different.
        unsafe: let a forced decord read files on which it is known to return wrong frames.
        limits: what is too large to open.

    Raises:
        VideoError: the file cannot be opened or decoded, see `labeler.video.scan.scan`;
            "unsafe-decoder" if decord is forced on a file that the scan flags; "unreachable" if
            its storage does not answer, which may pass.
        TransientError: the disk failed.
        ConfigError: a protocol that is not installed.
    """
    limits = limits or VideoLimits()
    with contextlib.ExitStack() as stack:
        name, path = shown(source), local_file(source, limits, stack, span)
        if os.path.isdir(path):  # False for a name that no file can have
            with _named(path, name):
                found = scan_folder(path, limits)
            return VideoReader(
                path, found, name, "pictures", "a folder", PictureReader(path), stack.pop_all()
            )
        with _named(path, name):
            container = stack.enter_context(open_container(path, limits))
            found = scan_container(path, container, limits)
        taken, why = _choose(found, name, decoder, unsafe)
        backend: _Backend
        if taken == "decord":
            container.close()
            try:
                backend = _Decord(path, found)
            except _Refused as refused:
                raise VideoError(
                    "unsafe-decoder", f"{name}: {refused}: use --decoder auto or pyav."
                ) from refused
        else:
            backend = _PyAV(path, found, limits, container)
        stack.callback(backend.close)
        return VideoReader(path, found, name, taken, why, backend, stack.pop_all())


class VideoReader(ClosedAtExit):
    """An open video. Made by `open_video`; see there."""

    scan: Scan
    decoder: Literal["decord", "pyav", "pictures"]
    """The one that is used."""
    why: str
    """Why this decoder is used."""
    timestamps_s: np.ndarray
    """float64 [len]: seconds from the presentation of the first frame to that of each frame, from
    the file, or number / fps if it stores no times."""

    path: Path
    """The local file: the video itself, or its copy until `close`."""

    def __init__(
        self,
        path: Path,
        found: Scan,
        name: str,
        decoder: Literal["decord", "pyav", "pictures"],
        why: str,
        backend: _Backend,
        stack: contextlib.ExitStack,
    ) -> None:
        self.path, self.scan, self.decoder, self.why = path, found, decoder, why
        self.timestamps_s = (found.pts - found.pts[0]) * float(found.time_base)
        self._name, self._backend, self._stack = name, backend, stack

    def __len__(self) -> int:
        return len(self.scan.pts)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as displayed, before `short_side`."""
        return self.scan.display_size

    @property
    def fps(self) -> float:
        return self.scan.fps

    @property
    def truncated(self) -> bool:
        """The file is cut; `len` counts the frames that decode. `scan.truncation` says what is
        missing."""
        return self.scan.truncated

    def read(
        self, indices: Sequence[int] | np.ndarray, short_side: int | None = None, multiple: int = 1
    ) -> np.ndarray:  # uint8 [T, H, W, 3] RGB
        """Frames by number, in the given order, repeats allowed; resized as `target_size` says.

        Raises:
            ConfigError: an index outside 0..len - 1.
            VideoError: "decode-error" for a frame that cannot be decoded (others stay readable),
                "too-small" as in `target_size`.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        self._check(wanted)
        height, width = target_size(self.size, short_side, multiple, name=self._name)
        frames = np.empty((len(wanted), height, width, 3), np.uint8)
        unique, place = np.unique(wanted, return_inverse=True)
        for i, frame in enumerate(self._resized(unique, (height, width))):
            frames[place == i] = frame
        return frames

    def stream(
        self,
        start: int = 0,
        stop: int | None = None,
        step: int = 1,
        short_side: int | None = None,
        multiple: int = 1,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(index, uint8 [H, W, 3]) of every `step`-th frame in start..stop - 1, in a bounded amount
        of memory."""
        if step < 1:
            raise ConfigError(f"step = {step}: must be at least 1.")
        indices = np.arange(start, len(self) if stop is None else stop, step)
        self._check(indices)
        size = target_size(self.size, short_side, multiple, name=self._name)
        yield from zip(indices.tolist(), self._resized(indices, size), strict=True)

    def close(self) -> None:
        """Free the decoder and delete the temporary file, if there is one."""
        self._stack.close()

    def _check(self, indices: np.ndarray) -> None:
        outside = indices[(indices < 0) | (indices >= len(self))]
        if outside.size:
            raise ConfigError(
                f"{self._name}: no frame {outside[0]}: the video has frames 0..{len(self) - 1}."
            )

    def _resized(self, indices: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Frames of rising `indices`, resized to `size` (H, W)."""
        frames = self._backend.frames(indices.tolist(), size)
        for index in indices.tolist():
            try:
                frame = next(frames)
            except _Undecodable as error:
                raise VideoError(
                    "decode-error", f"{self._name}: frame {index} cannot be decoded: {error}."
                ) from error
            if self.decoder == "pictures" and frame.shape[:2] != self.scan.turned_size:
                raise VideoError(
                    "decode-error",
                    f"{self._name}: frame {index} is {frame.shape[:2]}, the frames before "
                    f"{self.scan.turned_size}.",
                )
            # also if its size differs from that of the first frame, as a player does
            yield resized(frame, size)


def target_size(
    display_size: tuple[int, int],  # (H, W) px
    short_side: int | None,
    multiple: int,
    *,
    name: str = "the video",
) -> tuple[int, int]:  # (H, W) px
    """The size to which frames are resized.

    The short side becomes at most `short_side`, nothing is enlarged, and each side is floored to a
    multiple of `multiple`, but not to 0. VideoError("too-small") if a side has fewer px than
    `multiple`.
    """
    if multiple < 1 or (short_side is not None and short_side < 1):
        raise ConfigError(
            f"short_side = {short_side}, multiple = {multiple}: both must be at least 1."
        )
    short = min(display_size)
    if short < multiple:
        raise VideoError(
            "too-small",
            f"{name}: {display_size[1]} x {display_size[0]} px are fewer than {multiple} px a "
            "side.",
        )
    goal = short if short_side is None else min(short, short_side)

    def fitted(side: int) -> int:
        return max(side * goal // short // multiple, 1) * multiple

    return fitted(display_size[0]), fitted(display_size[1])


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`frame` (uint8 [H, W, 3]) at `size` (H, W), by area, in one step: pictures, and the frames of
    decord."""
    if frame.shape[:2] == size:
        return frame
    try:
        return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    except cv2.error as error:
        raise (MemoryError() if error.code == cv2.Error.StsNoMem else error) from error


@contextlib.contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Make messages name the source, not its temporary copy."""
    try:
        yield
    except VideoError as error:
        raise VideoError(error.reason, str(error).replace(str(path), name)) from error.__cause__


# --- the two decoders


def _choose(
    found: Scan, name: str, decoder: Decoder, unsafe: bool
) -> tuple[Literal["decord", "pyav"], str]:
    reasons = "; ".join(found.unsafe)
    if decoder == "pyav":
        return "pyav", "asked for"
    if decoder == "decord":
        if found.unsafe and not unsafe:
            raise VideoError(
                "unsafe-decoder",
                f"{name}: decord may return wrong frames here: {reasons}. Use --decoder auto, or "
                "--unsafe-decode to get them anyway.",
            )
        return "decord", f"asked for, although {reasons}" if reasons else "asked for"
    if decoder != "auto":
        raise ConfigError(f"no decoder {decoder!r}: there are auto, decord, pyav.")
    return "pyav", "right for every file, and the cheapest"


class _Undecodable(Exception):
    """A frame that the decoder refuses."""


class _Refused(Exception):
    """decord cannot be used for this file."""


class _Backend(Protocol):
    def frames(self, indices: list[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Frames of rising `indices`: uint8 [H, W, 3] RGB, already of `size` (H, W) if the decoder
        resizes them, otherwise of `Scan.turned_size`."""

    def close(self) -> None: ...


class _Decord:
    """decord, one thread. It rotates by itself."""

    def __init__(self, path: Path, found: Scan) -> None:
        try:
            import decord
        except (ImportError, OSError) as error:
            raise _Refused(f"decord cannot be imported ({error})") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._error = decord.DECORDError
        try:
            self._reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        except (decord.DECORDError, RuntimeError) as error:
            raise _Refused("decord cannot open it") from error
        if len(self._reader) != len(found.pts):
            raise _Refused(
                f"decord counts {len(self._reader)} frames, but a player shows {len(found.pts)}"
            )
        height, width = found.coded_size
        self._batch = max(1, BATCH_BYTES // (height * width * 3))
        try:
            first = next(self.frames([0], found.turned_size))
        except _Undecodable as error:  # happens on small frames of some widths, such as 16, 48, 72
            raise _Refused("decord cannot decode its first frame") from error
        if first.shape[:2] != found.turned_size:
            raise _Refused(
                f"decord returns frames of {first.shape[:2]}, but a player shows "
                f"{found.turned_size}"
            )

    def frames(self, indices: list[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
        for first in range(0, len(indices), self._batch):
            try:
                yield from self._reader.get_batch(indices[first : first + self._batch]).asnumpy()
            except self._error as error:
                raise _Undecodable("decord fails in this part of the file") from error

    def close(self) -> None:
        self._reader = None


class _PyAV:
    """PyAV with a verified seek: a frame is returned only if its pts is the wanted one.

    A seek may land after the target (MPEG-TS, edit lists), and pictures between it and the next key
    frame may lack their references. So a seek counts only if a key frame comes out at or before the
    target; otherwise, it is repeated from earlier, and finally from the start.
    """

    def __init__(
        self,
        path: Path,
        found: Scan,
        limits: VideoLimits,
        container: av.container.InputContainer,  # that was scanned
    ) -> None:
        self._path, self._scan, self._limits = path, found, limits
        self._shown = ShownRGB(found.rotation, found.mirrored)
        self._count = 0
        """How many frames have come out since the start, if the file is `counted`."""
        if found.container in INDEXED and not found.counted:
            self._use(container)
        else:
            container.close()
            self._open()

    def frames(self, indices: list[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
        for index in indices:
            frame = self._counted(index) if self._scan.counted else self._verified(index)
            try:
                yield self._shown.of(frame, size)
            except MemoryError:
                raise
            except av.FFmpegError as error:
                raise _Undecodable(error.strerror) from error

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        """Decode from the start of the file."""
        container = open_container(self._path, self._limits)
        self._use(container)
        self._stream.codec_context.options = decoding_options(self._limits)
        self._count, self._at_start = 0, True

    def _use(self, container: av.container.InputContainer) -> None:
        """Decode from where an open container is."""
        self._container = container
        self._stream = video_stream(self._path, container)
        self._decoded: Iterator[av.VideoFrame] = container.decode(self._stream)
        self._last: av.VideoFrame | None = None
        """The frame that came out last: the next one asked for may be the same."""
        self._at_start = False

    def _restart(self) -> None:
        """Go to the start of the file."""
        if not self._at_start:
            self.close()
            self._open()

    def _next(self) -> av.VideoFrame | None:
        """The next frame that comes out, or None at the end."""
        self._at_start = False
        try:
            self._last = next(self._decoded, None)
        except MemoryError:
            raise
        except av.FFmpegError as error:
            self._last = None
            raise _Undecodable(error.strerror) from error
        return self._last

    def _counted(self, index: int) -> av.VideoFrame:
        if self._last is None or index < self._count - 1:
            self._restart()
        frame = self._last
        while frame is None or self._count <= index:
            frame = self._next()
            if frame is None:
                raise _Undecodable(f"only {self._count} frames come out")
            self._count += 1
        return frame

    def _verified(self, index: int) -> av.VideoFrame:
        pts = int(self._scan.pts[index])
        back = int(SEEK_BACK_S / self._scan.time_base)
        ways = [lambda: self._seek(pts, pts), lambda: self._seek(pts - back, pts), self._restart]
        if self._scan.from_start:
            ways = [self._restart]
        if self._near(index):
            ways.insert(0, lambda: None)
        trouble = _Undecodable(f"no frame with pts {pts} comes out")
        for way in ways:
            try:
                way()
                if frame := self._search(pts):
                    return frame
            except _Undecodable as error:
                trouble = error
        raise trouble

    def _near(self, index: int) -> bool:
        """Whether continuing to decode costs no more than a seek to the key frame before
        `index`."""
        if self._last is None or self._last.pts is None or self._last.pts > self._scan.pts[index]:
            return False
        if self._scan.from_start:
            return True
        here = int(np.searchsorted(self._scan.pts, self._last.pts))
        keys = self._scan.key_pts[self._scan.key_pts <= self._scan.pts[index]]
        key = int(np.searchsorted(self._scan.pts, keys[-1])) if keys.size else 0
        return here + SEEK_COST_FRAMES >= key

    def _seek(self, start: int, pts: int) -> None:
        """Go to a key frame at or before `start`; after it, the last frame is one from which
        decoding to `pts` is right."""
        self._at_start = False
        try:
            self._container.seek(start, stream=self._stream)
        except av.FFmpegError as error:
            raise _Undecodable(error.strerror) from error
        self._decoded = self._container.decode(self._stream)
        while frame := self._next():
            if frame.key_frame:
                return
            if frame.pts is not None and frame.pts >= pts:
                break
        raise _Undecodable(f"no key frame comes out at or before pts {pts}")

    def _search(self, pts: int) -> av.VideoFrame | None:
        """The frame with that pts, decoding on from the last one; None if it does not come out, or
        is damaged."""
        frame = self._last or self._next()
        while frame is not None and (frame.pts is None or frame.pts < pts):
            frame = self._next()
        return frame if frame is not None and frame.pts == pts and not frame.is_corrupt else None
