"""What `tapdistill label` prints: what it will do, progress while it runs, and a summary; and how
the snapshot of a job reads in a line."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from labeler.shards.records import digests_of
from labeler.unit import UnitDone
from pipelines.engines.common import UnitOpen
from pipelines.jobs.estimate import WarmUp
from pipelines.jobs.events import LabelEvent, Note, Planned
from pipelines.jobs.labelling import LabelResult
from pipelines.jobs.progress import JobProgress, Snapshot
from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle, terminal_bar
from pipelines.terminal.tables import accounts_table
from pipelines.wording import counted, data_size, duration, harmless

REFRESH_S = 0.2
"""Between two looks of the bar."""
SLOW_S, SLOW_TIMES, QUICK_S = 60.0, 10.0, 5.0
"""A clip that is in flight for a minute is named, and one for ten times the median, if that is more
than some seconds."""


class LabelProgress:
    """Shows the events of a labelling job: a bar in a terminal, a line every ten seconds elsewhere;
    notes above it."""

    def __init__(self) -> None:
        self._lines, self._refreshed = LineThrottle(), 0.0
        self._job: JobProgress | None = None
        self._shown = ExitStack()
        self._bar = terminal_bar(
            TextColumn("labelling"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("videos · {task.fields[counts]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("labelling", counts="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.close()

    def show(self, event: LabelEvent) -> None:
        """Tell what happened."""
        match event:
            case Planned():
                say(what_is_to_do(event))
                self._bar.update(self._task, total=event.videos_to_do)
                self._shown.enter_context(self._bar)
                job = JobProgress(event.videos_to_do, self._refresh)
                self._job = self._shown.enter_context(job)
            case Note():
                say(event.text)
            case UnitOpen():
                say(f"unit {event.unit} stays open: {event.why}")
            case UnitDone():
                self._lines.soon()
        if self._job is not None:
            self._job.count(event)
            if time.monotonic() - self._refreshed >= REFRESH_S:
                self._refresh(self._job.snapshot())

    def _refresh(self, snapshot: Snapshot) -> None:
        if snapshot.ended:
            return
        self._refreshed = time.monotonic()
        self._bar.update(
            self._task, completed=snapshot.videos_done, counts=harmless(counts(snapshot))
        )
        if self._lines.due():
            say(
                f"labelling: {snapshot.videos_done}/{snapshot.videos} videos · "
                f"{counts(snapshot)}{left(snapshot)}"
            )


def what_is_to_do(planned: Planned) -> str:
    """ "3 videos in 1 unit, 1 to do -> labels"."""
    i, n = planned.share
    of_share = f" of share {i}/{n}" if n > 1 else ""
    filtered = f" ({planned.unwanted} left out by their words)" if planned.unwanted else ""
    return (
        f"{counted(planned.videos, 'video')}{filtered} in {counted(planned.units, 'unit')}, "
        f"{planned.units_to_do}{of_share} to do -> {planned.url}"
    )


def print_summary(result: LabelResult, out: str) -> None:
    """What went in, what became of it, and where it is."""
    say("")
    say(accounts_table(result.accounts))
    table = digests_of(result.records)
    clips, queries, kept, size = (
        int(table[name].sum()) for name in ("clips", "queries", "kept", "size_bytes")
    )
    names = sorted({name for text in table["teachers"].unique() for name in json.loads(str(text))})
    shards = int(table["tar"].notna().sum())
    say(
        f"{counted(clips, 'clip')}, {queries:,} queries of which {kept:,} kept "
        f"({kept / max(queries, 1):.0%}), teachers {', '.join(names)}; {data_size(size)} in "
        f"{counted(shards, 'shard')}; {result.seconds:.1f} s."
    )
    say(
        f"shards, clips.parquet, and failures.parquet are in {out}; look at them with `tapdistill "
        f"inspect {out}`"
    )


def counts(snapshot: Snapshot) -> str:
    """ "12 clips, 0.42 clips/s, 1,300 tracks/s, teachers 88 %, waiting for frames 10 % · 3
    static"; "no clip is done yet" before the first one, whose rate would be 0."""
    parts = ["no clip is done yet" if snapshot.ready else "the teachers are being started"]
    if snapshot.clips:
        parts = [
            counted(snapshot.clips, "clip"),
            f"{snapshot.clips_per_s:.2f} clips/s",
            f"{snapshot.tracks_per_s:,.0f} tracks/s",
        ]
    if snapshot.teachers_busy is not None and snapshot.waiting_for_frames is not None:
        parts += [
            f"teachers {snapshot.teachers_busy:.0%}",
            f"waiting for frames {snapshot.waiting_for_frames:.0%}",
        ]
    text = ", ".join(parts)
    if snapshot.reasons:
        text += " · " + ", ".join(
            f"{count} {reason}" for reason, count in Counter(snapshot.reasons).most_common(3)
        )
    if snapshot.oldest and is_slow(snapshot):
        text += f" · slow: {snapshot.oldest} for {duration(snapshot.oldest_s)}"
    return text


def is_slow(snapshot: Snapshot) -> bool:
    """Whether the oldest clip in flight takes strikingly long."""
    much = (
        SLOW_S
        if snapshot.median_s is None
        else min(SLOW_S, max(QUICK_S, SLOW_TIMES * snapshot.median_s))
    )
    return snapshot.oldest_s > much


def left(snapshot: Snapshot) -> str:
    """ " · about 12 min left", from the pace so far; "" before the first video is through."""
    if not snapshot.videos_done:
        return ""
    seconds = (
        (snapshot.now - snapshot.started)
        / snapshot.videos_done
        * (snapshot.videos - snapshot.videos_done)
    )
    return f" · about {duration(seconds)} left"


def estimate_table(found: WarmUp, videos: int) -> Table:
    """Time and bytes by step: for a clip, and for all clips of this many videos."""
    clips = videos * found.clips_found / found.videos
    steps: Mapping[str, float] = {
        "decoding and encoding": found.decoding_s / found.clips,
        **{
            f"teacher {name}": seconds / found.clips
            for name, seconds in sorted(found.teachers_s.items())
        },
        **({} if found.verifier_s is None else {"verifier": found.verifier_s / found.clips}),
    }
    opening = videos * found.opening_s / found.videos
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "a clip", f"about {clips:,.0f} clips"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("opening and cuts", "", duration(opening))
    for name, seconds in steps.items():
        table.add_row(name, f"{seconds:.2f} s", duration(seconds * clips))
    table.add_row(
        "one worker on this machine",
        "",
        duration(opening + sum(steps.values()) * clips),
        style="bold",
    )
    table.add_row(
        "bytes",
        data_size(found.bytes / found.clips),
        data_size(found.bytes / found.clips * clips),
    )
    return table
