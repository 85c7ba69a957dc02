"""Progress of a long job: a bar in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from labeler.unit import ClipDone, Event, UnitDone, VideoDone
from pipelines.console import console, say
from pipelines.engine_local import UnitOpen

LINE_EVERY_S = 10.0


class Lines:
    """When the next line is due, where no terminal shows a bar."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def due(self) -> bool:
        """True every ten seconds; never in a terminal."""
        if console.is_terminal or time.monotonic() - self._said <= LINE_EVERY_S:
            return False
        self._said = time.monotonic()
        return True

    def soon(self) -> None:
        """Bring the next line forward: something happened."""
        self._said = min(self._said, time.monotonic() - LINE_EVERY_S / 2)


def duration(seconds: float) -> str:
    """A time span in words: "45 s", "12 min"."""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


class JobProgress:
    """Counts events and shows them: videos done of all, clips/s, tracks/s, time left, rows by reason."""

    def __init__(self, videos: int) -> None:
        self._videos, self._videos_done = videos, 0
        self._clips = self._tracks = 0
        self._reasons: Counter[str] = Counter()
        self._started = time.monotonic()
        self._lines = Lines()
        self._bar = Progress(
            TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TextColumn("videos · {task.fields[counts]}"),
            TimeElapsedColumn(), TextColumn("· left"), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("labelling", total=videos, counts="")

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line above the bar."""
        say(text)

    def show(self, event: Event | UnitOpen) -> None:
        """Count one event."""
        if isinstance(event, ClipDone):
            self._clips += 1
            self._tracks += event.tracks
        elif isinstance(event, VideoDone):
            self._videos_done = min(self._videos_done + 1, self._videos)  # a unit that was done again counts once
            self._reasons.update(row.reason for row in event.rows)
        elif isinstance(event, UnitOpen):
            say(f"unit {event.unit} stays open: {event.why}")
        elif isinstance(event, UnitDone):
            self._lines.soon()
        self._bar.update(self._task, completed=self._videos_done, counts=self._counts())
        if self._lines.due():
            say(f"labelling: {self._videos_done}/{self._videos} videos · {self._counts()} · about {self._left()} left")

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rows = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common(3))
        return f"{self._clips} clips, {self._clips / seconds:.2f} clips/s, {self._tracks / seconds:,.0f} tracks/s" + (
            f" · {rows}" if rows else ""
        )

    def _left(self) -> str:
        if not self._videos_done:
            return "?"
        return duration((time.monotonic() - self._started) / self._videos_done * (self._videos - self._videos_done))
