"""Events: what a labelling job reports while it runs. `pipelines.label` calls its `watch` with
each."""

from __future__ import annotations

from dataclasses import dataclass

from labeler.unit import Event
from pipelines.engines.common import Note as Note
from pipelines.engines.common import UnitOpen


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan is made, and the first unit begins."""

    url: str
    """The address of the data set."""
    videos: int
    """Videos of the data set, each counted once."""
    unwanted: int
    """How many of them a filter on their words leaves out."""
    units: int
    """Units of the data set."""
    units_to_do: int
    """Units that this job has to do."""
    videos_to_do: int
    """Videos in those units."""
    share: tuple[int, int]
    """(i, N): this job does every N-th unit, from unit i on."""


LabelEvent = Planned | Note | UnitOpen | Event
