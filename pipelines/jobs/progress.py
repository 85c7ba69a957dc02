"""Progress of a labelling job: counts its events, and reports its state every ten seconds.

A thread keeps reporting while nothing happens, so that it shows when a job waits for its last, slow
video.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median

from labeler.shards.checked_json import check_types
from labeler.unit import ClipDone, ClipStarted, TeachersReady, UnitDone, VideoDone
from pipelines.engines.common import UnitOpen
from pipelines.jobs.events import LabelEvent

REPORT_EVERY_S = 10.0
LATEST = 256
"""The median is taken over this many clips."""
Kind = tuple[str, str, str]
"""Of a row: video, clip, or teacher; status; reason."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a job at one moment, as shown by `status`, the JSON lines of --metrics, and
    Ray's metrics."""

    host: str
    pid: int
    started: float
    """Seconds since 1970."""
    now: float
    videos: int
    """Videos that this job has to do."""
    videos_done: int
    clips: int
    clips_per_s: float
    tracks_per_s: float
    teachers_busy: float | None
    """Share of the unit workers' time in which teachers work; None before the first video is
    done."""
    waiting_for_frames: float | None
    """Share of that time in which they wait for the decoder."""
    oldest_s: float
    """How long the oldest clip in flight, or the longest wait for frames, has taken so far."""
    oldest: str
    """The video of that clip, and what is being done with it; "" if nothing is in flight."""
    median_s: float | None = None
    """How long the teachers take for a clip: the median of the latest clips; None before the first
    one is done."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Number of rows by reason."""
    ended: bool = False
    ready: bool = True
    """Whether the teachers have been started."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Snapshot:
        """The snapshot in JSON text; a ValueError or TypeError if there is none."""
        snapshot = cls(**json.loads(text))
        check_types(snapshot)
        return snapshot


class VideosDone:
    """The videos that a job has done, and their rows, each once: a unit that begins again, after a
    fault or a lost race, reports its videos anew, and one that stays open has done none."""

    def __init__(self) -> None:
        self.number = 0
        self.rows = Counter[Kind]()
        self.failed = Counter[str]()
        """Videos of which nothing could be labelled, by reason."""
        self._at_work: dict[int, dict[str, VideoDone]] = {}
        """The videos that the units at work have done so far."""

    def count(self, event: LabelEvent) -> bool:
        """Count one event; True where it tells that its unit has begun again."""
        if isinstance(event, UnitOpen):
            self._forget(event.unit)
        elif isinstance(event, UnitDone):
            self._at_work.pop(event.unit, None)
        elif isinstance(event, VideoDone):
            again = event.uri in self._at_work.get(event.unit, {})
            if again:
                self._forget(event.unit)
            self._at_work.setdefault(event.unit, {})[event.uri] = event
            self.number += 1
            self.rows += _kinds(event)
            self.failed += _failure(event)
            return again
        return False

    def _forget(self, unit: int) -> None:
        for event in self._at_work.pop(unit, {}).values():
            self.number -= 1
            self.rows -= _kinds(event)
            self.failed -= _failure(event)


def _kinds(event: VideoDone) -> Counter[Kind]:
    return Counter[Kind]((row.what, row.status, row.reason) for row in event.rows)


def _failure(event: VideoDone) -> Counter[str]:
    return Counter([event.why_failed] if event.why_failed else [])


class JobProgress:
    """Counts the events of a job: videos done of all, clips/s, tracks/s, shares of time, rows by
    reason.

    Args:
        videos: how many there are to do.
        reports: called with a `Snapshot` every ten seconds, and at the end, from a thread.
    """

    def __init__(self, videos: int, *reports: Callable[[Snapshot], None]) -> None:
        self._videos, self._ready = videos, False
        self._done = VideosDone()
        self._clips = self._tracks = 0
        self._seconds: dict[int, Mapping[str, float]] = {}
        """Seconds by step of the units at work, so far."""
        self._spent: Counter[str] = Counter()
        """Seconds by step of all units, so far."""
        self._doing: dict[int, tuple[float, str]] = {}
        self._tracking: dict[int, float] = {}
        """When the teachers began with the current clip of a unit."""
        self._took: deque[float] = deque(maxlen=LATEST)
        """Seconds that the teachers took for each of the latest clips."""
        self._started, self._started_at = time.monotonic(), time.time()
        self._reports = [*reports]
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="progress", daemon=True)

    def __enter__(self) -> JobProgress:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._report(ended=True)

    def also_report(self, report: Callable[[Snapshot], None]) -> None:
        """Add a function that is called with reports from now on."""
        self._reports.append(report)

    def count(self, event: LabelEvent) -> None:
        """Count one event."""
        with self._lock:
            now = time.monotonic()
            again = self._done.count(event)
            self._ready |= isinstance(event, TeachersReady | ClipDone | VideoDone)
            if isinstance(event, ClipStarted):
                self._tracking[event.unit] = now
                self._doing[event.unit] = (now, f"{event.uri}: teachers")
            elif isinstance(event, ClipDone):
                self._clips += 1
                self._tracks += event.tracks
                if event.unit in self._tracking:
                    self._took.append(now - self._tracking.pop(event.unit))
                self._doing[event.unit] = (now, f"unit {event.unit}: waiting for frames")
            elif isinstance(event, VideoDone):
                before = {} if again else self._seconds.get(event.unit, {})
                self._spent.update(
                    {step: spent - before.get(step, 0.0) for step, spent in event.seconds.items()}
                )
                self._seconds[event.unit] = event.seconds
                self._doing[event.unit] = (now, f"unit {event.unit}: waiting for frames")
            elif isinstance(event, UnitOpen | UnitDone):
                self._doing.pop(event.unit, None)
                self._seconds.pop(event.unit, None)

    def snapshot(self, *, ended: bool = False) -> Snapshot:
        """What has happened so far."""
        with self._lock:
            now = time.monotonic()
            elapsed = max(now - self._started, 1e-9)
            spent, total = self._spent, sum(self._spent.values())
            reasons = Counter[str]()
            for (_, _, reason), count in self._done.rows.items():
                reasons[reason] += count
            since, what = min(self._doing.values(), default=(now, ""))
            return Snapshot(
                host=socket.gethostname(),
                pid=os.getpid(),
                started=self._started_at,
                now=time.time(),
                videos=self._videos,
                videos_done=self._done.number,
                clips=self._clips,
                clips_per_s=self._clips / elapsed,
                tracks_per_s=self._tracks / elapsed,
                teachers_busy=spent["teachers"] / total if total else None,
                waiting_for_frames=spent["waiting for frames"] / total if total else None,
                oldest_s=now - since,
                oldest="" if ended else what,
                median_s=median(self._took) if self._took else None,
                reasons=dict(reasons),
                ended=ended,
                ready=self._ready,
            )

    def _report(self, *, ended: bool = False) -> None:
        snapshot = self.snapshot(ended=ended)
        for report in self._reports:
            report(snapshot)

    def _keep_reporting(self) -> None:
        while not self._over.wait(REPORT_EVERY_S):
            self._report()
