"""Session: the points, frames, and trackers of one page, frame by frame.

    session = Session((360, 480), trackers, fps=25)
    session.push(frame, jpeg)                # -> what is answered now: `LiveAnswer`, in order
    session.add(frame_number, [[x, y], ...]) # a click on a picture that is a little old by now

Memory does not grow: it holds the last `RECENT_FRAMES` frames, frames for which a tracker has not
answered yet, and what `Recent` keeps for saving. Only one thread at a time may use it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from labeler.labels.agreement import RASTER, AgreementConfig, judge, medoids
from pipelines.live.following import LiveTracker, Positions
from pipelines.live.recent import Kept, Recent
from teachers import ConfigError, Teacher
from teachers.stream import RECENT_FRAMES
from teachers.tracks import checked_queries

MOST_POINTS = 256
MOST_WAITING = 64
"""The most frames that may wait for a tracker."""
RATE_OVER_S = 4.0


@dataclass(frozen=True)
class Point:
    """A point that a person added."""

    id: int
    frame: int
    x: float
    """px of the frame, an integer is a pixel centre."""
    y: float


@dataclass(frozen=True)
class Agreed:
    """What the trackers agree on in one frame, for n points."""

    ids: np.ndarray
    """int [n]"""
    xy: np.ndarray
    """[n, 2] px: the position of the tracker nearest to all that see the point; NaN where none
    does."""
    support: np.ndarray
    """[n] and `state` [n]: as in `labeler.labels.agreement.Labels`."""
    state: np.ndarray


@dataclass(frozen=True)
class LiveAnswer:
    """Where the points are in one frame."""

    frame: int
    positions: Mapping[str, Positions]
    """The positions by the title of the tracker."""
    agreed: Agreed | None
    """None with a single tracker, which has nobody to agree with."""

    def to_json(self) -> dict[str, Any]:
        """The rows that the page gets: id, x, y, and 1 if the point is seen, or support and
        state."""
        tracks = {
            title: [
                [int(i), round(float(x), 2), round(float(y), 2), int(seen)]
                for i, (x, y), seen in zip(each.ids, each.xy, each.seen, strict=True)
                if np.isfinite(x + y)
            ]
            for title, each in self.positions.items()
        }
        if self.agreed is None:
            return {"frame": self.frame, "tracks": tracks, "agreement": None}
        a = self.agreed
        agreement = [
            [int(i), round(float(x), 2), round(float(y), 2), round(float(support), 3), int(state)]
            for i, (x, y), support, state in zip(a.ids, a.xy, a.support, a.state, strict=True)
            if np.isfinite(x + y)
        ]
        return {"frame": self.frame, "tracks": tracks, "agreement": agreement}


class Session:
    """See above."""

    def __init__(
        self,
        size: tuple[int, int],  # (H, W) px of every frame
        trackers: Mapping[str, Teacher],
        *,
        fps: float,
        source: str = "camera",
    ) -> None:
        self.size, self.fps, self.source = size, fps, source
        self.points: dict[int, Point] = {}
        self.recent = Recent()
        self._trackers = {title: LiveTracker(title, each) for title, each in trackers.items()}
        self._frames: deque[np.ndarray] = deque(maxlen=RECENT_FRAMES)
        self._pushed = self._answered = self._next_id = 0
        self._answered_at: deque[float] = deque(maxlen=256)
        self._waiting: deque[Kept] = deque()
        self._last: dict[int, tuple[float, float]] = {}
        """Where a tracker last saw each point."""

    @property
    def titles(self) -> list[str]:
        return list(self._trackers)

    def push(self, frame: np.ndarray, jpeg: bytes) -> list[LiveAnswer]:  # uint8 [H, W, 3] RGB
        """Take the next frame, and the same as a JPEG, which is kept. Returns the answers for all
        frames for which every tracker has answered by now.

        Raises:
            ConfigError: the frame has another size than those before.
        """
        if frame.shape != (*self.size, 3):
            raise ConfigError(
                f"a frame of {frame.shape[1]} x {frame.shape[0]} px in a session of "
                f"{self.size[1]} x {self.size[0]} px."
            )
        self._frames.append(frame)
        self._waiting.append(Kept(self._pushed, time.monotonic(), jpeg))
        self._pushed += 1
        for tracker in self._trackers.values():
            tracker.push(frame)
        return self._answers()

    def add(self, number: int, xy: Sequence[Sequence[float]]) -> list[LiveAnswer]:
        """Add points [n, 2] px that were clicked in frame `number`, or in the oldest frame that is
        held.

        Raises:
            ConfigError: no frame has come yet, a point is outside it, or there are too many points.
        """
        if not self._frames:
            raise ConfigError("there is no frame yet to put a point into.")
        oldest = self._pushed - len(self._frames)
        number = min(max(number, oldest), self._pushed - 1)
        positions = np.asarray(xy, np.float32).reshape(-1, 2)
        if len(self.points) + len(positions) > MOST_POINTS:
            raise ConfigError(f"at most {MOST_POINTS} points: remove some first.")
        if not len(positions):
            return []
        checked_queries(
            np.pad(positions, ((0, 0), (1, 0))), (1, *self.size, 3)
        )  # refuses what lies outside
        ids = range(self._next_id, self._next_id + len(positions))
        self._next_id = ids.stop  # also of points that a tracker refuses
        since = list(self._frames)[number - oldest :]
        try:
            for tracker in self._trackers.values():
                tracker.add(ids, positions, number, since)
        except Exception:
            self.remove([])  # the others forget them too
            raise
        for i, (x, y) in zip(ids, positions.tolist(), strict=True):
            self.points[i] = Point(i, number, x, y)
        return self._answers()

    def remove(self, ids: Sequence[int]) -> None:
        """Forget points; unknown ids are ignored."""
        for i in ids:
            self.points.pop(i, None)
            self._last.pop(i, None)
        for tracker in self._trackers.values():
            tracker.keep(list(self.points))

    def change_trackers(self, trackers: Mapping[str, Teacher]) -> list[LiveAnswer]:
        """Change the trackers. A new one follows each point from where the others last saw it; a
        point that none has seen since it was added begins there again."""
        new = {
            title: LiveTracker(title, teacher)
            for title, teacher in trackers.items()
            if title not in self._trackers
        }
        if self.points and self._frames:
            ids = list(self.points)
            xy = np.array([self._last.get(i, (p.x, p.y)) for i, p in self.points.items()])
            for tracker in new.values():
                tracker.add(ids, xy.astype(np.float32), self._pushed - 1, [self._frames[-1]])
        self._trackers = {
            title: new[title] if title in new else self._trackers[title] for title in trackers
        }
        return self._answers()

    def finish(self) -> list[LiveAnswer]:
        """The answers for all remaining frames; no more may be pushed."""
        for tracker in self._trackers.values():
            tracker.finish()
        return self._answers()

    def rate(self) -> dict[str, Any]:
        """Frames answered per second, and how long each tracker takes for a frame, in ms."""
        now = time.monotonic()
        lately = [at for at in self._answered_at if now - at < RATE_OVER_S]
        spent = now - lately[0] if len(lately) > 1 else 0.0
        return {
            "fps": round((len(lately) - 1) / spent, 1) if spent else 0.0,
            "ms": {title: round(1000 * each.frame_s) for title, each in self._trackers.items()},
            "points": len(self.points),
        }

    def _answers(self) -> list[LiveAnswer]:
        found = []
        while self._waiting:
            number = self._waiting[0].frame
            late = not all(each.has_answered(number) for each in self._trackers.values())
            if late and len(self._waiting) <= MOST_WAITING:
                break
            kept = self._waiting.popleft()
            alive = {
                title: self._alive(each.positions(number)) for title, each in self._trackers.items()
            }
            found.append(LiveAnswer(number, alive, self._agreed(alive)))
            self.recent.keep(kept, alive, self.points)
            self._answered_at.append(time.monotonic())
        return found

    def _alive(self, positions: Positions) -> Positions:
        """The answer without points that have been removed."""
        alive = np.isin(positions.ids, list(self.points))
        for i, xy, seen in zip(positions.ids, positions.xy, positions.seen, strict=True):
            if seen and i in self.points:
                self._last[int(i)] = (float(xy[0]), float(xy[1]))
        return Positions(*(getattr(positions, each.name)[alive] for each in fields(Positions)))

    def _agreed(self, positions: Mapping[str, Positions]) -> Agreed | None:
        if len(positions) < 2:
            return None
        ids = np.array(
            sorted(set().union(*(each.ids.tolist() for each in positions.values()))), int
        )
        xy = np.full((len(positions), len(ids), 2), np.nan, np.float32)
        sees = np.zeros((len(positions), len(ids)), bool)
        for k, each in enumerate(positions.values()):
            rows = np.searchsorted(ids, each.ids)
            xy[k, rows], sees[k, rows] = each.xy, each.seen
        sees &= np.isfinite(xy).all(-1)
        height, width = self.size
        scaled = (xy * np.array([RASTER / width, RASTER / height], np.float32))[:, :, None]
        families = [self._trackers[title].teacher.info.evidence for title in positions]
        medoid, distance = medoids(scaled, sees[..., None], families)
        labels = judge(
            scaled,
            sees[..., None],
            np.zeros(len(ids), int),
            medoid,
            distance,
            AgreementConfig(),
            families,
        )
        nearest = medoid[:, 0]
        centre = xy[np.maximum(nearest, 0), np.arange(len(ids))]
        centre[nearest < 0] = np.nan
        return Agreed(ids, centre, labels.support[:, 0], labels.state[:, 0])
