"""Students: the two networks that can learn here, and where their weights begin.

    offline   one window over the whole clip; every used frame enters the loss
    online    windows of 16 frames that start from one another; a point's frames before its query
              enter no loss, because the network is asked to follow forward only (the published
              masks: `valid` offline, `valid` and `query frame <= t` online)

Both have the same parameters under the same names. They differ in the time embedding alone, which
is computed and not learnt, so weights of one kind can begin a student of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from teachers.checkpoints.files import (
    TEACHER,
    load_weights,
    read_metadata,
    read_weights,
    stored_config,
)
from teachers.cotracker import cotracker3
from teachers.cotracker.cotracker3 import (
    WINDOW,
    CoTracker3,
    CoTracker3Config,
    CoTracker3Network,
    CoTracker3Online,
)
from teachers.cotracker.offline import CoTracker3OfflineTeacher
from teachers.cotracker.online import CoTracker3OnlineTeacher
from teachers.cotracker.refinements import Refinements
from teachers.cotracker.teacher import CoTrackerTeacher, Preset
from teachers.errors import CheckpointError
from teachers.layers.memory import Memory

Kind = Literal["offline", "online"]
TIME = "time_emb"
"""Key of the time embedding."""


@dataclass(frozen=True)
class Student:
    """What is peculiar to one kind of student."""

    kind: Kind
    teacher: str
    """Name of the teacher that its weights are for."""
    network: type[CoTracker3Network]
    presets: Mapping[str, Callable[[], CoTracker3Config]]
    adapter: type[CoTrackerTeacher]
    from_query_on: bool
    """Only frames from a point's query on enter the loss of positions."""

    def track(
        self,
        model: CoTracker3Network,
        frames: Tensor,  # uint8 [B, T, H, W, 3]
        queries: Tensor,  # [B, N, 3] (t, x, y) px of the frames
        iterations: int,
        memory: Memory,
    ) -> list[Refinements]:
        """Tracks in every window; an offline student has one."""
        found = model(frames.permute(0, 1, 4, 2, 3), queries, iterations, memory)
        return found if isinstance(found, list) else [found]

    def from_scratch(
        self, preset: Preset, frames: int, size_hw: tuple[int, int], seed: int
    ) -> CoTracker3Network:
        """A network with random weights. A mini is made for clips of that length and size."""
        sizes = self.presets[preset]()
        if preset == "mini":
            # windows advance by half of their frames
            shorter = min(sizes.window, frames + frames % 2)
            sizes = replace(
                sizes, window=frames if self.kind == "offline" else shorter, resolution=size_hw
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network(sizes)

    def from_file(self, path: str | Path, preset: Preset) -> CoTracker3Network:
        """The network with the weights of a file: official or one of ours, of this kind or of the
        other.

        Args:
            preset: sizes of the network, where the file does not say them.

        Raises:
            CheckpointError: no such file, or not of this network.
        """
        given = STUDENTS[kind_of_file(path)]
        model = given.network(stored_config(path, given.presets[preset]()))
        load_weights(model, path, given.teacher)
        if given is self:
            return model
        window = self.presets[preset]().window
        other = self.network(replace(model.config, window=window))
        other.load_state_dict({**model.state_dict(), TIME: other.time_emb})
        return other


STUDENTS: dict[Kind, Student] = {
    "offline": Student(
        kind="offline",
        teacher="cotracker3-offline",
        network=CoTracker3,
        presets=cotracker3.PRESETS,
        adapter=CoTracker3OfflineTeacher,
        from_query_on=False,
    ),
    "online": Student(
        kind="online",
        teacher="cotracker3-online",
        network=CoTracker3Online,
        presets=cotracker3.ONLINE_PRESETS,
        adapter=CoTracker3OnlineTeacher,
        from_query_on=True,
    ),
}


def kind_of_file(path: str | Path) -> Kind:
    """Which kind of student a file's weights are of: what it says itself, or else what the length
    of its time embedding says.

    Raises:
        CheckpointError: no such file, or it says that it is of another network.
    """
    stored = read_metadata(path).get(TEACHER)
    if stored is not None:
        for kind, student in STUDENTS.items():
            if stored.startswith(student.teacher):
                return kind
        names = " or ".join(student.teacher for student in STUDENTS.values())
        raise CheckpointError(
            f"{path}: weights of {stored}, and a student begins with those of {names}."
        )
    time = read_weights(path).get(TIME)
    return "online" if time is not None and time.shape[1:2] == (WINDOW,) else "offline"
