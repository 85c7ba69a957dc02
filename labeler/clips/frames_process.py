"""Frames of one untrusted video, decoded in a process of its own.

    with IsolatedFrames(path, short_side=480) as video:
        video.size, video.fps, video.length
        while (frame := video.read()) is not None: ...

The decoder, its limits, and its errors are those of labelling: see `labeler.clips.process`. A video
that crashes or hangs it is a VideoError here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from labeler.clips.isolate import Isolated
from labeler.io.closing import ClosedAtExit
from labeler.video.container import VideoLimits
from labeler.video.decode import VideoReader, open_video, target_size

HOSTED = "labeler.clips.frames_process:FramesOfAVideo"
READ_AT_ONCE = 4
"""Frames that an answer of the process holds."""


class FramesOfAVideo:
    """What lives in the process."""

    def __init__(self, path: str, limits: VideoLimits, short_side: int | None) -> None:
        self._path, self._limits, self._short_side = path, limits, short_side
        self._video: VideoReader | None = None
        self._frames: Iterator[tuple[int, np.ndarray]] = iter(())

    def open(self) -> tuple[tuple[int, int], float, int]:
        """Size (H, W) px of the frames, frames a second, how many; reading begins at the first."""
        if self._video is None:
            self._video = open_video(self._path, limits=self._limits)
        video = self._video
        size = target_size(video.size, self._short_side, 1, name="the video")
        self._frames = video.stream(short_side=self._short_side)
        return size, video.fps, len(video)

    def read(self) -> list[np.ndarray]:
        """The next frames, uint8 [H, W, 3] RGB; none after the last."""
        return [frame for _, (_, frame) in zip(range(READ_AT_ONCE), self._frames, strict=False)]


class IsolatedFrames(ClosedAtExit):
    """An open video; use it as a context manager.

    Raises:
        VideoError: it cannot be opened or decoded, is above the limits, takes too long, or crashes
            its decoder; `read` and `rewind` raise it, too.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        short_side: int | None = None,
        limits: VideoLimits | None = None,
        deadline_s: float = 300.0,
        memory_gib: float = 8.0,
    ) -> None:
        """`name` is what messages call it; `short_side` as in `FramePart`; `deadline_s` of an
        answer of the process, and what it may allocate."""
        self._name, self._deadline_s = name, deadline_s
        self._process = Isolated(
            HOSTED, str(path), limits or VideoLimits(), short_side, memory_gib=memory_gib
        )
        self._ready: deque[np.ndarray] = deque()
        try:
            self.size, self.fps, self.length = self._call("open")
        except BaseException:
            self.close()
            raise

    def read(self) -> np.ndarray | None:
        """The next frame, uint8 [H, W, 3] RGB; None after the last."""
        if not self._ready:
            self._ready.extend(self._call("read"))
        return self._ready.popleft() if self._ready else None

    def rewind(self) -> None:
        """Read from the first frame again."""
        self._ready.clear()
        self._call("open")

    def _call(self, method: str) -> Any:
        return self._process.call(method, timeout_s=self._deadline_s, about=self._name)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.close()
