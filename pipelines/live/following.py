"""Following: one tracker through a stream of frames, with points that come and go.

A stream that grows takes new points as further rows. Any other keeps the points that it began with:
points that are added later get a stream of their own, which is given the frames since they were
added.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from pipelines.tracking.stream import stream_of
from teachers import ConfigError, Teacher, Tracks
from teachers.stream import Stream

MOST_STREAMS = 4
"""The most streams of one tracker: each costs as much as the first."""
SMOOTHING = 0.1
"""The weight of the newest frame in the mean time for a frame."""


@dataclass(frozen=True)
class Positions:
    """A tracker's answer for some points in one frame."""

    ids: np.ndarray
    """int [n]"""
    xy: np.ndarray
    """float32 [n, 2] px, NaN where the tracker does not know."""
    visibility: np.ndarray
    """float32 [n]"""
    confidence: np.ndarray
    """float32 [n]"""
    seen: np.ndarray
    """bool [n]: the tracker's visible rule."""


_NONE = np.zeros(0, np.float32)
NOWHERE = Positions(np.zeros(0, int), np.zeros((0, 2), np.float32), _NONE, _NONE, np.zeros(0, bool))


@dataclass
class _Following:
    """A stream, the points in its rows, and its answers."""

    stream: Stream
    ids: list[int]
    first: int
    """The session's number of the stream's frame 0."""
    answered: int = 0
    """Frames."""
    answers: dict[int, Positions] = field(default_factory=dict)
    """Answers by the session's number of the frame, until they are taken."""


class LiveTracker:
    """One tracker in one session."""

    def __init__(self, title: str, teacher: Teacher) -> None:
        self.title, self.teacher = title, teacher
        self.frame_s = 0.0
        """How long it takes for a frame, in the mean of the last ones."""
        self._following: list[_Following] = []

    def push(self, frame: np.ndarray) -> None:  # uint8 [H, W, 3]
        """The next frame."""
        begun = time.perf_counter()
        for following in self._following:
            self._push(following, frame)
        spent = time.perf_counter() - begun
        self.frame_s += (spent - self.frame_s) * (SMOOTHING if self.frame_s else 1)

    def add(
        self,
        ids: Sequence[int],
        xy: np.ndarray,  # [n, 2] px
        number: int,
        frames: Sequence[np.ndarray],
    ) -> None:
        """Follow more points, which were added in frame `number`; `frames` are that one and all
        that have been pushed since.

        Raises:
            ConfigError: the tracker has `MOST_STREAMS` streams already.
        """
        growing = next((each for each in self._following if each.stream.grows), None)
        if growing is not None:
            growing.ids.extend(ids)  # first, so that `keep` takes back what was added in part
            growing.stream.add(_queries(xy, number - growing.first))
            return
        if len(self._following) >= MOST_STREAMS:
            raise ConfigError(
                f"{self.title} follows points together that were put together, and has "
                f"{MOST_STREAMS} such groups: remove points first."
            )
        stream = stream_of(self.teacher, _queries(xy, 0))
        following = _Following(stream, list(ids), number)
        self._following.append(following)
        for frame in frames:
            self._push(following, frame)

    def keep(self, ids: Sequence[int]) -> None:
        """Stop following all other points."""
        kept = set(ids)
        for following in self._following:
            rows = [row for row, each in enumerate(following.ids) if each in kept]
            if following.stream.grows and len(rows) < len(following.ids):
                following.stream.keep(np.array(rows, int))
                following.ids = [following.ids[row] for row in rows]
        self._following = [each for each in self._following if kept & set(each.ids)]

    def finish(self) -> None:
        """Answer for all frames that have come; no more can come."""
        for following in self._following:
            self._take(following, following.stream.finish())

    def has_answered(self, number: int) -> bool:
        """Whether all its streams have answered for that frame."""
        return all(
            number < following.first or number in following.answers for following in self._following
        )

    def positions(self, number: int) -> Positions:
        """Where its points are in that frame, as far as it has answered. Answers for this and
        earlier frames are dropped."""
        found = [each.answers[number] for each in self._following if number in each.answers]
        for following in self._following:
            for earlier in [each for each in following.answers if each <= number]:
                del following.answers[earlier]
        return _joined(found) if found else NOWHERE

    def _push(self, following: _Following, frame: np.ndarray) -> None:
        self._take(following, following.stream.push(frame[None]))

    def _take(self, following: _Following, tracks: Tracks) -> None:
        seen, ids = self.teacher.info.rule(tracks), np.array(following.ids, int)
        for t in range(tracks.xy.shape[1]):
            following.answers[following.first + following.answered] = Positions(
                ids,
                tracks.xy[:, t],
                tracks.visibility[:, t],
                tracks.confidence[:, t],
                seen[:, t],
            )
            following.answered += 1


def _queries(xy: np.ndarray, t: int) -> np.ndarray:  # float32 [n, 3]
    return np.concatenate([np.full((len(xy), 1), t), xy], 1).astype(np.float32)


def _joined(parts: Sequence[Positions]) -> Positions:
    return Positions(
        *(
            np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(Positions)
        )
    )
