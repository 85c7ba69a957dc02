"""Interface: what the trainer knows about a student, a network that learns.

The trainer asks for tracks (`track`), gets an answer that only the student itself looks into, and
hands it back for the losses, for a check that it is finite, and for a picture. So an architecture
is added by one class and a row in `students.STUDENTS`.

What happens to visibility, and to what else a network says about itself (confidence, TAPIR's
expected distance), is a choice of its own:

    frozen      its layers stay as they are; only where they stand alone (CoTracker3)
    held        it goes on to say what the network said before training: soft targets from that
                network, on the same frames
    exact       learnt from the clips with exact tracks alone
    consensus   learnt from every clip's labels
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from student.data.batch import EXACT, Batch
from student.training.losses import LossConfig
from teachers.info import Preset
from teachers.interface import Teacher
from teachers.layers.device import sent
from teachers.layers.memory import Memory

Visibility = Literal["frozen", "held", "exact", "consensus"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a student is to learn from a batch."""

    batch: Batch
    clip_weight: Tensor
    """[B]: how much each clip counts."""
    visibility: Visibility
    config: LossConfig
    before: Any = None
    """What the network said about the same clips before training; only with visibility "held"."""

    @property
    def visibility_weight(self) -> Tensor:
        """[B]: how much each clip counts if visibility is learnt from labels."""
        if self.visibility == "consensus":
            return self.clip_weight
        exact = torch.tensor([source in EXACT for source in self.batch.sources])
        return self.clip_weight * sent(exact.to(self.clip_weight.dtype), self.clip_weight.device)


@dataclass(frozen=True, kw_only=True)
class Student(ABC):
    """A kind of student: everything that is specific to it."""

    kind: str
    """Its name in `--student`."""
    teacher: str
    """The name of the teacher that its weights are for."""
    adapter: Callable[..., Teacher]
    """Makes that teacher from `name`, `checkpoint`, and `device`."""
    network: Callable[[Any], nn.Module]
    """Makes its network from a config, with random weights."""
    config: Callable[..., Any]
    """Makes that config from its fields: sizes of the network."""
    presets: Mapping[str, Callable[..., Any]]
    """Configs by preset."""

    parts: ClassVar[tuple[str, ...]]
    """The names of its losses."""
    factors: ClassVar[tuple[str, ...]]
    """Fields of `LossConfig` that it reads, besides the weights of the sources."""
    head: ClassVar[str | None]
    """Part of the names of the parameters that give visibility and nothing else; None if the layers
    that give positions also give visibility."""
    visibility: ClassVar[Visibility]
    """What happens to visibility by default."""
    bf16: ClassVar[bool]
    """Whether it learns well in bfloat16; if so, it does on a GPU."""
    several_refinements: ClassVar[bool] = False
    """Whether `refinements` gives more than one way."""

    @abstractmethod
    def from_scratch(
        self, preset: Preset, frames: int, size_hw: tuple[int, int], seed: int
    ) -> nn.Module:
        """A network with random weights, drawn from `seed`. A mini is made for clips of that length
        and size."""

    @abstractmethod
    def from_file(self, path: str | Path, preset: Preset) -> nn.Module:
        """The network with the weights of a file: official, or one of ours.

        Args:
            preset: sizes of the network, if the file does not state them.

        Raises:
            CheckpointError: there is no such file, or it is not of this network.
        """

    @abstractmethod
    def prepare(self, model: nn.Module, size_hw: tuple[int, int], iterations: int | None) -> None:
        """Make a network ready for clips of (H, W) px. Its weights, and what it is exported as,
        stay as they are."""

    def refinements(self, model: Any) -> Sequence[Mapping[str, Any]]:
        """The ways to refine positions that trained weights allow, as changes of the fields of the
        network's config: that which is preferred if labels see no difference first, and no change,
        {}, among them."""
        return [{}]

    @abstractmethod
    def track(
        self,
        model: Any,
        frames: Tensor,  # uint8 [B, T, H, W, 3]
        queries: Tensor,  # [B, N, 3] (t, x, y) px of the frames, pixel centres
        iterations: int | None,  # refinements of a track; None: as published, or as the file says
        memory: Memory,
    ) -> Any:
        """The answer: tracks after every refinement."""

    @abstractmethod
    def finite_clips(self, answer: Any) -> Tensor:
        """[B] bool: whether everything that the network says about a clip is finite."""

    @abstractmethod
    def losses(self, answer: Any, goal: Goal) -> dict[str, Tensor]:
        """Scalars by the names of `parts`, factors applied; their sum is back-propagated. A mean
        over clips, so that parts of a batch add up."""

    @abstractmethod
    def last_tracks(self, answer: Any, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """xy [N, T, 2] px (pixel centres) and visible [N, T] of the first clip, after the last
        refinement."""
