"""Stream: track points through frames that come bit by bit, from a camera, a pipe, or a file that
is too long to hold.

    stream = teacher.stream(queries)              # online teachers
    for frames in source:
        tracks = stream.push(frames)              # of the frames that are final now
    tracks = stream.finish()                      # of the rest

Every frame is answered once, in order: the parts, joined along time, are the tracks of the whole.
How frames are grouped into pushes changes nothing, and what a stream holds does not grow with the
frames. A query may lie in a frame that is still to come.
"""

from __future__ import annotations

import abc
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from teachers.errors import ConfigError
from teachers.tracks import Tracks, checked_frames, checked_queries

if TYPE_CHECKING:
    from teachers.interface import Teacher

ENDLESS = 2**24
"""More frames than a stream has, and more px than a frame; float32 counts so far."""


class Stream(abc.ABC):
    """A subclass says what becomes of new frames, and what of those that are not answered when the
    stream ends."""

    def __init__(self, queries: np.ndarray, teacher: Teacher | None = None) -> None:
        """Args:
        queries: [N >= 1, 3] as for `Teacher.track`; frames count from the first that is pushed.
        teacher: whose `computing` is around what the stream computes.
        """
        self._computing = teacher.computing if teacher else nullcontext
        self._queries = checked_queries(queries, (ENDLESS, ENDLESS, ENDLESS, 3))
        if len(self._queries) == 0:
            raise ConfigError("a stream needs at least one query.")
        self._size: tuple[int, int] | None = None
        """(H, W) of the frames, once there are some."""
        self._frames = 0
        """How many have been pushed, those that `_advance` is called with not counted."""
        self._finished = False

    def push(self, frames: np.ndarray) -> Tracks:  # uint8 [T, H, W, 3]
        """Tracks [N, t] of the t frames that are now final, which follow those given before; t may
        be 0.

        Raises:
            ConfigError: frames or queries that `track` refuses, frames of another size than before,
                or a stream that has finished.
            TeacherError: the network computes what is no number.
        """
        if self._finished:
            raise ConfigError("the stream has finished: start another one for more frames.")
        frames = checked_frames(frames)
        size = (frames.shape[1], frames.shape[2])
        if self._size is None:
            self._queries = checked_queries(self._queries, (ENDLESS, *size, 3))
            self._size = size
        if size != self._size:
            raise ConfigError(
                f"frames of {size[1]} x {size[0]} px in a stream of {self._size[1]} x "
                f"{self._size[0]} px."
            )
        with self._computing():
            tracks = self._advance(frames)
        self._frames += len(frames)
        return tracks

    def finish(self) -> Tracks:
        """Tracks of the remaining frames.

        Raises:
            ConfigError: the frame of a query never came.
        """
        self._finished = True
        late = np.flatnonzero(self._queries[:, 0] >= self._frames)
        if len(late):
            raise ConfigError(
                f"query {late[0]} is in frame {self._queries[late[0], 0]:g}, but the stream ended "
                f"after {self._frames} frames ({len(late)} of {len(self._queries)} queries came "
                "too late)."
            )
        with self._computing():
            return self._rest()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames, px.

        Raises:
            ConfigError: no frame has been pushed yet.
        """
        if self._size is None:
            raise ConfigError("push a frame first: it says the size of all others.")
        return self._size

    @abc.abstractmethod
    def _advance(self, frames: np.ndarray) -> Tracks:
        """`push` for checked frames."""

    @abc.abstractmethod
    def _rest(self) -> Tracks:
        """`finish` for a stream in which every query has come."""
