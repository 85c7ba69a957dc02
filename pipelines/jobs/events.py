"""What a labelling job says while it runs: `pipelines.label` calls its `watch` with each."""

from __future__ import annotations

from dataclasses import dataclass

from labeler.unit import Event
from pipelines.engines.common import UnitOpen


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The job knows its videos; the first unit begins."""

    url: str
    """Of the data set."""
    videos: int
    """Of the data set, each counted once."""
    unwanted: int
    """Of them, those that a filter on their words leaves out."""
    units: int
    """Of the data set."""
    units_to_do: int
    videos_to_do: int
    """In those units."""
    share: tuple[int, int]
    """(i, N): this job does every N-th unit, from unit i on."""


@dataclass(frozen=True)
class Note:
    """A sentence that whoever started the job should read."""

    text: str


LabelEvent = Planned | Note | UnitOpen | Event
