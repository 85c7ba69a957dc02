"""Tracking: what `tapdistill track` prints, which is progress while it runs, and a table at its
end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.progress import track
from rich.table import Table

from pipelines.terminal.console import console, say
from pipelines.terminal.progress import LineThrottle
from teachers import Tracks


@dataclass
class Counts:
    """What a tracker found, for the table."""

    frames: int = 0
    seconds: float = 0.0
    visible: int = 0
    """How many points it sees, summed over frames."""

    def add(self, tracks: Tracks, visible: np.ndarray, seconds: float) -> None:
        self.frames += tracks.xy.shape[1]
        self.seconds += seconds
        self.visible += int((visible & np.isfinite(tracks.xy).all(-1)).sum())


def watched(frames: Iterator[np.ndarray], what: str, total: int | None) -> Iterator[np.ndarray]:
    """The same frames; a bar in a terminal, a line every ten seconds elsewhere."""
    lines, begun = LineThrottle(), time.monotonic()
    bar = track(
        frames, what, total=total, console=console, transient=True, disable=not console.is_terminal
    )
    for count, frame in enumerate(bar, 1):
        yield frame
        if lines.due():
            of = "" if total is None else f"/{total}"
            say(f"{what}: {count}{of} frames, {count / (time.monotonic() - begun):.1f} frames/s")


def summary(counts: Mapping[str, Counts], points: int) -> Table:
    """One row per tracker; "visible" is a share of all points in all frames. Most trackers give a
    position even to a lost point, so counting positions would say nothing."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "frames", "points", "visible", "seconds", "frames/s"):
        table.add_column(column, justify="right" if column else "left")
    for title, one in counts.items():
        table.add_row(
            title,
            str(one.frames),
            str(points),
            f"{one.visible / max(1, one.frames * points):.1%}",
            f"{one.seconds:.1f}",
            f"{one.frames / max(one.seconds, 1e-9):.1f}",
        )
    return table
