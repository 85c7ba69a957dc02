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
class InlineRequest:
    """Which teacher labels a clip inside the training step (`--labels inline`), and the seed of
    what it draws."""

    teacher: str
    seed: int


@dataclass(frozen=True)
class TrainClip:
    """One clip and what its N points should do; positions are px of these frames, pixel centres."""

    key: str
    source: Source
    frames: np.ndarray
    """uint8 [T, H, W, 3] RGB."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y). While a part is being cut out, t = -1 where the query's frame is
    not among the frames."""
    xy: np.ndarray
    """float32 [N, T, 2]; of a part 0 where not `valid`."""
    visible: np.ndarray
    """bool [N, T], only where `visibility_valid`."""
    valid: np.ndarray
    """bool [N, T]: frames whose position enters the loss."""
    visibility_valid: np.ndarray
    """bool [N, T]: frames of which the label says whether the point is visible; those of `valid`,
    and those of a hidden point whose teacher does not know where it is."""
    supervise_occluded: bool
    """False: the teacher does not know where a hidden point is, so only visible frames may enter
    the loss of positions."""
    weight: np.ndarray | None = None
    """float32 [N, T] in [0, 1]: how much a frame counts where it enters a loss. None: 1."""
    gap: np.ndarray | None = None
    """int64 [N, T]: how many stored frames lie between a frame and that which the query was made
    for. None of a clip that no part has been cut from."""
    moved: np.ndarray | None = None
    """float32 [N]: how many stored frames a query was moved by on its track, inf where it lies
    behind the part of the clip in which queries are preferred. None: none is preferred."""
    inline: InlineRequest | None = None
    """Labels are still to be made; until then each query is valid in its own frame alone."""


@dataclass(frozen=True)
class Batch:
    """B clips, and where reading goes on after them."""

    frames: Tensor
    """uint8 [B, T, H, W, 3] RGB."""
    queries: Tensor
    """float32 [B, N, 3] as (t, x, y), px of the frames."""
    xy: Tensor
    """float32 [B, N, T, 2] px; 0 where not `valid`."""
    visible: Tensor
    """bool [B, N, T]"""
    valid: Tensor
    """bool [B, N, T]: frames whose position enters the loss."""
    visibility_valid: Tensor
    """bool [B, N, T]: frames of which the label says whether the point is visible; see
    `TrainClip`."""
    supervise_occluded: Tensor
    """bool [B]: see `TrainClip`."""
    weight: Tensor
    """float32 [B, N, T] in [0, 1]: how much a frame counts where it enters a loss."""
    keys: tuple[str, ...]
    sources: tuple[Source, ...]
    position: int
    """The `start` with which reading goes on after the step that this batch belongs to, on every
    rank."""
    inline: tuple[InlineRequest | None, ...]
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
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


def collate(clips: Sequence[TrainClip], position: int, skipped: Counter[str]) -> Batch:
    """Clips of one shape as a batch."""

    def stacked(name: str) -> Tensor:
        arrays = [getattr(clip, name) for clip in clips]
        if len(arrays) == 1:  # of one clip, the frames need no copy
            return torch.from_numpy(np.ascontiguousarray(arrays[0])[None])
        return torch.from_numpy(np.stack(arrays))

    return Batch(
        frames=stacked("frames"),
        queries=stacked("queries"),
        xy=stacked("xy"),
        visible=stacked("visible"),
        valid=stacked("valid"),
        visibility_valid=stacked("visibility_valid"),
        supervise_occluded=torch.tensor([clip.supervise_occluded for clip in clips]),
        weight=torch.from_numpy(
            np.stack(
                [
                    np.ones(clip.valid.shape, np.float32) if clip.weight is None else clip.weight
                    for clip in clips
                ]
            )
        ),
        keys=tuple(clip.key for clip in clips),
        sources=tuple(clip.source for clip in clips),
        position=position,
        inline=tuple(clip.inline for clip in clips),
        skipped=skipped,
    )
