"""Writer: an mp4 that grows frame by frame, and that can be played however the process ends.

Until `close` makes an ordinary mp4 of it, the file is a fragmented one: after a kill, it holds all
but the last frames.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import av
import cv2
import numpy as np

from labeler.io.closing import ClosedAtExit
from labeler.video.encode import add_h264, h264_frame
from teachers import TransientError


class VideoWriter(ClosedAtExit):
    """Writes frames into an mp4 as they come; use it as a context manager."""

    def __init__(self, path: Path, fps: float) -> None:
        """A file that exists is replaced, with the first frame.

        Raises:
            TransientError: the file cannot be written; `write` and `close` raise it, too.
        """
        self._path, self._fps, self._frames = path, fps, 0
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def write(self, frame: np.ndarray) -> None:  # uint8 [H, W, 3] RGB, always of one size
        """Append a frame. If a side is odd, its last row or column is repeated, because H.264 needs
        even ones."""
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        try:
            if self._container is None or self._stream is None:
                movflags = {"movflags": "+hybrid_fragmented", "fflags": "+bitexact+flush_packets"}
                self._container = av.open(
                    str(self._path.absolute()), "w", format="mp4", options=movflags
                )
                self._stream = add_h264(
                    self._container, (frame.shape[0], frame.shape[1]), self._fps
                )
            self._container.mux(self._stream.encode(h264_frame(self._stream, frame, self._frames)))
        except (OSError, av.FFmpegError) as error:
            self._give_up()
            raise TransientError(f"{self._path}: cannot be written: {error.strerror}.") from error
        self._frames += 1

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        if self._container is None or self._stream is None:
            return
        try:
            self._container.mux(self._stream.encode())
            container, self._container = self._container, None
            container.close()
        except (OSError, av.FFmpegError) as error:
            self._give_up()
            raise TransientError(f"{self._path}: cannot be written: {error.strerror}.") from error

    def _give_up(self) -> None:
        """Close a file that cannot be written: libav crashes when it gets more packets after the
        header has failed."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(OSError, av.FFmpegError):
                container.close()
