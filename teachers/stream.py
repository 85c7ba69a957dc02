"""Stream: track points through frames that come bit by bit, from a camera, a pipe, or a file that
is too long to hold.

    stream = teacher.stream(queries)              # online teachers
    for frames in source:
        tracks = stream.push(frames)              # of the frames that are final now
    tracks = stream.finish()                      # of the rest

Every frame is answered once, in order: the parts, joined along time, are the tracks of the whole
clip. How frames are grouped into pushes changes nothing, and the memory of a stream does not grow
with the number of frames. A query may be in a frame that is still to come.

If the points of a tracker do not see each other, points can be added and dropped on the way: its
stream `grows`.
"""

from __future__ import annotations

import abc
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from teachers.errors import ConfigError
from teachers.tracks import Tracks, checked_frames, checked_queries

if TYPE_CHECKING:
    from teachers.interface import Teacher

RECENT_FRAMES = 8
"""How many of the newest frames a stream that `grows` still holds, so that a point can be added in
them."""
ENDLESS = 2**24
"""More frames than a stream has, and more px than a frame has; float32 holds whole numbers up to
here."""


class Stream(abc.ABC):
    """Tracks through a stream of frames. A subclass defines what happens to new frames, and to
    those that have not been answered when the stream ends."""

    grows: ClassVar[bool] = False
    """Whether it has `add` and `keep`, and answers every frame at once."""

    def __init__(self, queries: np.ndarray, teacher: Teacher | None = None) -> None:
        """Args:
        queries: [N >= 1, 3] as for `Teacher.track`; frames count from the first that is pushed.
        teacher: the teacher whose `computing` is entered around whatever the stream computes.
        """
        self._computing = teacher.computing if teacher else nullcontext
        self._queries = checked_queries(queries, (ENDLESS, ENDLESS, ENDLESS, 3))
        if len(self._queries) == 0:
            raise ConfigError("a stream needs at least one query.")
        self._size: tuple[int, int] | None = None
        """(H, W) of the frames, once there are some."""
        self._frames = 0
        """How many frames have been pushed, not counting those that `_advance` is called with."""
        self._finished = False

    def push(self, frames: np.ndarray) -> Tracks:  # uint8 [T, H, W, 3]
        """Tracks [N, t] of the t frames that are now final, which follow those given before; t may
        be 0.

        Raises:
            ConfigError: `track` would refuse the frames or queries, the frames have another size
                than before, or the stream has finished.
            TeacherError: the network computes NaN or infinity.
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

    def add(self, queries: np.ndarray) -> None:
        """Follow more points, as further rows of all answers to come. Only a stream that `grows`.

        Args:
            queries: [M, 3] as for `Teacher.track`, in one of the last `RECENT_FRAMES` frames or in
                frames to come.

        Raises:
            ConfigError: `track` would refuse a query, or it is in an earlier frame.
        """
        queries = checked_queries(queries, (ENDLESS, *(self._size or (ENDLESS, ENDLESS)), 3))
        if (late := queries[:, 0] < self._frames - RECENT_FRAMES).any():
            raise ConfigError(
                f"a point in frame {queries[late][0, 0]:g} cannot be added after {self._frames} "
                f"frames: the last {RECENT_FRAMES} are held."
            )
        first = len(self._queries)
        self._queries = np.concatenate([self._queries, queries])
        with self._computing():
            self._take_held(np.flatnonzero(queries[:, 0] < self._frames) + first)

    def keep(self, rows: np.ndarray) -> None:  # int [M], each row at most once
        """Follow these rows only, in this order; M may be 0. Only a stream that `grows`."""
        self._keep_rows(np.asarray(rows, int))
        self._queries = self._queries[rows]

    def _take_held(self, rows: np.ndarray) -> None:
        """Begin to follow new rows of `_queries`, whose frames are held."""
        raise NotImplementedError

    def _keep_rows(self, rows: np.ndarray) -> None:
        """Drop all rows but these; `_queries` are still the former ones."""
        raise NotImplementedError

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
        """`push`, for frames that are checked."""

    @abc.abstractmethod
    def _rest(self) -> Tracks:
        """`finish`, for a stream in which the frames of all queries have come."""


def stayed(
    points: np.ndarray,  # int [n]: rows of the queries that are followed
    rows: np.ndarray,  # int [M]: rows that are kept, as in `Stream.keep`
) -> tuple[np.ndarray, np.ndarray]:  # int [m], int [m]
    """Which of `points` are among the rows that are kept, and their new rows."""
    new = {row: number for number, row in enumerate(rows.tolist())}
    stay = np.flatnonzero([row in new for row in points.tolist()])
    return stay, np.array([new[row] for row in points[stay].tolist()], int)
