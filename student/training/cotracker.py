"""CoTracker3 as a student.

    offline   one window over the whole clip; every valid frame enters the loss
    online    windows of 16 frames that start from one another; a point's frames before its query
              enter no loss, because the network is asked to follow forward only (the published
              masks: `valid` offline, `valid` and `query frame <= t` online)

Both have the same parameters under the same names. They differ only in the time embedding, which is
computed, not learnt, so a student of one kind can start from weights of the other.

A network that refines tracks on frames of several sizes (`CoTracker3Config.sides`) learns on all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from student.training.interface import Goal, Preset, Student, Visibility
from student.training.losses import from_query_on
from student.training.losses_cotracker import (
    CoTrackerTargets,
    confidence_loss,
    held_losses,
    position_losses,
    visibility_loss,
)
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
from teachers.errors import CheckpointError
from teachers.layers.memory import Memory

ITERATIONS = 4
"""Refinements of a track, as published."""
TIME = "time_emb"
"""Key of the time embedding in a file."""
LIKELY = 0.5
"""Visibility above which a point counts as visible in pictures."""


@dataclass(frozen=True, kw_only=True)
class CoTrackerStudent(Student):
    """CoTracker3, offline or online."""

    network: Callable[[CoTracker3Config], CoTracker3Network]
    config: Callable[..., CoTracker3Config] = CoTracker3Config
    presets: Mapping[str, Callable[..., CoTracker3Config]]
    windowed: bool
    """Whether it goes window by window; then only frames from the query of a point on enter the
    loss of positions."""

    parts: ClassVar[tuple[str, ...]] = ("visible", "occluded", "visibility", "confidence")
    factors: ClassVar[tuple[str, ...]] = (*parts, "huber_px")
    head: ClassVar[str | None] = "vis_conf_head"
    visibility: ClassVar[Visibility] = "frozen"
    bf16: ClassVar[bool] = True

    def from_scratch(
        self, preset: Preset, frames: int, size_hw: tuple[int, int], seed: int
    ) -> CoTracker3Network:
        sizes = self.presets[preset]()
        if preset == "mini":
            # windows advance by half of their frames
            shorter = min(sizes.window, frames + frames % 2)
            sizes = replace(sizes, window=shorter if self.windowed else frames, resolution=size_hw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network(sizes)

    def from_file(self, path: str | Path, preset: Preset) -> CoTracker3Network:
        """The network with the weights of a file, which may be of this kind or of the other."""
        given = COTRACKERS[kind_of_file(path)]
        model = given.network(stored_config(path, given.presets[preset]()))
        load_weights(model, path, given.teacher)
        if given is self:
            return model
        window = self._window(model.config, preset)
        other = self.network(replace(model.config, window=window))
        other.load_state_dict({**model.state_dict(), TIME: other.time_emb})
        return other

    def _window(self, other: CoTracker3Config, preset: Preset) -> int:
        """That of the network of this kind which has the sizes of `other`, one of the other
        kind."""
        for make in self.presets.values():
            sizes = make()
            told = replace(other, window=sizes.window)
            if replace(sizes, resolution=other.resolution, sides=other.sides) == told:
                return sizes.window
        return self.presets[preset]().window

    def prepare(self, model: nn.Module, size_hw: tuple[int, int], iterations: int | None) -> None:
        """Nothing to do: the network takes clips of any size."""

    def track(
        self, model: Any, frames: Tensor, queries: Tensor, iterations: int | None, memory: Memory
    ) -> list[Refinements]:
        """Tracks in every window, by each of its passes; an offline student has one window."""
        frames, iterations = frames.permute(0, 1, 4, 2, 3), iterations or ITERATIONS
        track = model if self.windowed else model.passes
        found: list[Refinements] = track(frames, queries, iterations, memory)
        return found

    def finite_clips(self, answer: Sequence[Refinements]) -> Tensor:
        said = [
            part
            for window in answer
            for part in (window.xy, window.visibility_logit, window.confidence_logit)
        ]
        return torch.stack(
            [part.isfinite().transpose(0, 1).flatten(1).all(1) for part in said]
        ).all(0)

    def losses(self, answer: Sequence[Refinements], goal: Goal) -> dict[str, Tensor]:
        batch, config = goal.batch, goal.config
        valid = batch.valid
        if self.windowed:
            valid = valid & from_query_on(batch.queries[..., 0].long(), valid.shape[2])
        targets = CoTrackerTargets(
            batch.xy,
            batch.visible,
            valid * batch.weight,
            batch.supervise_occluded,
            goal.clip_weight,
        )
        positions = position_losses(answer, targets, config)
        if goal.visibility == "frozen":
            visibility = confidence = positions["visible"].new_zeros(())
        elif goal.visibility == "held":
            visibility, confidence = held_losses(answer, goal.before, goal.clip_weight)
        else:
            weight = goal.visibility_weight
            said, placed = (mask * batch.weight for mask in (batch.visibility_valid, batch.valid))
            visibility = visibility_loss(answer, batch.visible, said, weight)
            confidence = confidence_loss(answer, batch.xy, batch.visible, placed, weight)
        return {
            **positions,
            "visibility": config.visibility * visibility,
            "confidence": config.confidence * confidence,
        }

    def last_tracks(
        self, answer: Sequence[Refinements], frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tracks; where windows overlap, the later one counts."""
        points = answer[0].xy.shape[2]
        xy = np.full((points, frames, 2), np.nan, np.float32)
        visible = np.zeros((points, frames), bool)
        with torch.no_grad():
            for window in answer:
                part = slice(window.first_frame, window.first_frame + window.xy.shape[3])
                xy[:, part] = window.xy[-1, 0].float().cpu().numpy()
                visible[:, part] = (window.visibility[-1, 0] > LIKELY).cpu().numpy()
        return xy, visible


COTRACKERS: dict[str, CoTrackerStudent] = {
    kind: CoTrackerStudent(
        kind=kind,
        teacher=f"cotracker3-{kind}",
        network=network,
        presets=presets,
        adapter=adapter,
        windowed=kind == "online",
    )
    for kind, network, presets, adapter in (
        ("offline", CoTracker3, cotracker3.PRESETS, CoTracker3OfflineTeacher),
        ("online", CoTracker3Online, cotracker3.ONLINE_PRESETS, CoTracker3OnlineTeacher),
    )
}


def kind_of_file(path: str | Path) -> str:
    """The kind of CoTracker3 that the weights in a file belong to: what the file states, or else
    what the length of its time embedding tells.

    Raises:
        CheckpointError: there is no such file, or it states that it is of another network.
    """
    stored = read_metadata(path).get(TEACHER)
    if stored is not None:
        for kind, student in COTRACKERS.items():
            if stored.startswith(student.teacher):
                return kind
        names = " or ".join(student.teacher for student in COTRACKERS.values())
        raise CheckpointError(
            f"{path}: weights of {stored}, and this student begins with those of {names}."
        )
    time = read_weights(path).get(TIME)
    return "online" if time is not None and time.shape[1:2] == (WINDOW,) else "offline"
