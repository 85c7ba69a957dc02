"""Track files: the tracks of one teacher on one video, as an npz that plain numpy reads.

    queries [N, 3]  xy [N, T, 2]  visibility [N, T]  confidence [N, T]     float32, as in `Tracks`,
                    px and numbers of the tracked frames
    info            a JSON string: the teacher's `TeacherInfo`, and under "clip" what was tracked

`TrackWriter` writes tracks that come bit by bit: it keeps them in a temporary file, not in memory,
and rewrites the npz now and then, so that it is valid whenever the process ends.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labeler.io.closing import ClosedAtExit
from teachers import DenseFlow, Tracks, TransientError

SAVE_EVERY_S = 10.0
"""The npz is rewritten at most this often, and so rarely that it takes a twentieth of the time."""
SAVING_SHARE = 1 / 20


@dataclass(frozen=True)
class TrackFile:
    """An npz file to be written."""

    path: Path
    info: dict[str, Any]


def save_tracks(file: TrackFile, queries: np.ndarray, tracks: Tracks) -> None:
    """Write the npz, whole or not at all. An existing file is replaced."""
    _save(
        file,
        queries=queries,
        xy=tracks.xy,
        visibility=tracks.visibility,
        confidence=tracks.confidence,
    )


def save_flow(file: TrackFile, t: int, dense: DenseFlow) -> None:
    """`save_tracks` for the flow from frame `t`: `t`, `flow` [T, H, W, 2], `visibility` and
    `confidence` [T, H, W], `info`."""
    _save(
        file,
        t=np.array(t),
        flow=dense.flow,
        visibility=dense.visibility,
        confidence=dense.confidence,
    )


def _save(file: TrackFile, **arrays: np.ndarray) -> None:
    part = file.path.with_name(f"{file.path.name}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, info=np.array(json.dumps(file.info)), **arrays)  # type: ignore[arg-type]
        os.replace(part, file.path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TransientError(f"{file.path}: cannot be written: {error.strerror}.") from error


class TrackWriter(ClosedAtExit):
    """Writes tracks into an npz as they come; use it as a context manager. Memory does not grow
    with the number of frames."""

    def __init__(self, file: TrackFile, queries: np.ndarray) -> None:
        self._file, self._queries = file, queries  # N >= 1
        self._rows = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        self._saved_at, self._saving_s = time.monotonic(), 0.0

    def append(self, tracks: Tracks) -> None:
        """Add the tracks [N, t] of the next t frames."""
        values = np.concatenate(
            [tracks.xy, tracks.visibility[..., None], tracks.confidence[..., None]],
            -1,
            dtype=np.float32,
        )
        self._rows.write(values.swapaxes(0, 1).tobytes())  # by frames, so that the file only grows
        if time.monotonic() - self._saved_at > max(SAVE_EVERY_S, self._saving_s / SAVING_SHARE):
            self.save()

    def save(self) -> None:
        """Write the npz with everything so far; nothing before the first tracks."""
        begun = time.monotonic()
        self._rows.flush()
        if not self._rows.tell():
            return
        rows = np.memmap(self._rows, np.float32, "r").reshape(-1, len(self._queries), 4)
        values = rows.swapaxes(0, 1)  # [N, T, 4], still in the temporary file
        save_tracks(
            self._file, self._queries, Tracks(values[..., :2], values[..., 2], values[..., 3])
        )
        self._saved_at = time.monotonic()
        self._saving_s = self._saved_at - begun

    def close(self) -> None:
        """Save for the last time, and close the temporary file."""
        with self._rows:
            self.save()
