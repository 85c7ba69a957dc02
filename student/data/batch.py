"""Batch: clips as the trainer takes them.

A `TrainClip` is one clip in numpy, ready for the network; `collate` stacks B of them into a `Batch`
of torch tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Source = Literal["shards", "procedural", "kubric"]
EXACT: tuple[Source, ...] = ("procedural", "kubric")
"""Sources whose tracks and visibility are the truth."""


@dataclass(frozen=True)
class Ask:
    """Which teacher labels a clip inside the training step (`--labels inline`), and the seed of
    what it draws."""

    teacher: str
    seed: int


@dataclass(frozen=True)
class TrainClip:
    """One clip; places are px of these frames, pixel centres."""

    key: str
    source: Source
    frames: np.ndarray
    """uint8 [T, H, W, 3] RGB."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y)."""
    xy: np.ndarray
    """float32 [N, T, 2]; 0 where not used."""
    visible: np.ndarray
    """bool [N, T], only where used."""
    used: np.ndarray
    """bool [N, T]: frames that enter the loss."""
    occluded_too: bool
    """False: the teacher does not know where a hidden point is, so only visible frames may enter
    the loss."""
    ask: Ask | None = None
    """Labels are still to be made; until then no frame is used."""


@dataclass(frozen=True)
class Batch:
    """B clips, and where reading goes on after them."""

    frames: Tensor
    """uint8 [B, T, H, W, 3] RGB."""
    queries: Tensor
    """float32 [B, N, 3] as (t, x, y), px of the frames."""
    xy: Tensor
    """float32 [B, N, T, 2] px; 0 where not used."""
    visible: Tensor
    """bool [B, N, T]"""
    used: Tensor
    """bool [B, N, T]: frames that enter the loss."""
    occluded_too: Tensor
    """bool [B]: see `TrainClip`."""
    keys: tuple[str, ...]
    sources: tuple[Source, ...]
    position: int
    """The `start` with which reading goes on after the step that this batch belongs to, on every
    rank."""
    asks: tuple[Ask | None, ...]
    """See `TrainClip`."""
    skipped: Counter[str]
    """Samples whose place another one took, by reason: "corrupt", "no-labels"."""

    def to(self, device: torch.device | str) -> Batch:
        """The same on `device`; a copy from pinned memory runs beside what the GPU does."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in pinned memory; a DataLoader with `pin_memory=True` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = ("frames", "queries", "xy", "visible", "used", "occluded_too")
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)


def collate(clips: Sequence[TrainClip], position: int, skipped: Counter[str]) -> Batch:
    """Clips of one shape as a batch."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(clip, name) for clip in clips]))

    return Batch(
        frames=stacked("frames"),
        queries=stacked("queries"),
        xy=stacked("xy"),
        visible=stacked("visible"),
        used=stacked("used"),
        occluded_too=torch.tensor([clip.occluded_too for clip in clips]),
        keys=tuple(clip.key for clip in clips),
        sources=tuple(clip.source for clip in clips),
        position=position,
        asks=tuple(clip.ask for clip in clips),
        skipped=skipped,
    )
