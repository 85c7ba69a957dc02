"""Losses of a CoTracker3 student: positions, visibility, confidence.

Paper     CoTracker3, arXiv 2410.11831, section 3.3. The sums are those of the published training
          scripts.
Windows   a model that goes window by window has its loss in every window, on the window's frames;
          windows then count the same.
Clips     count the same whatever their number of valid points: the published batch is one clip a
          device, averaged over devices.
Pixels    those of the training crop. An error's x and y parts are averaged, not combined into a
          distance.

What is masked may be NaN in the targets: it gets no weight and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.cotracker.refinements import Refinements
from teachers.errors import ConfigError

GAMMA = 0.8
"""An iteration weighs this factor less than the next one; the last weighs 1."""
HUBER_PX = 6.0
CONFIDENT_PX = 12.0
"""A position this near to the target should have confidence 1."""


@dataclass(frozen=True)
class Targets:
    """What the student should say about B clips."""

    xy: Tensor
    """[B, N, T, 2] px of the crop; may be NaN where `weight` is 0."""
    visible: Tensor
    """[B, N, T] bool"""
    weight: Tensor
    """[B, N, T] 0 or 1: where positions count. For a model that goes window by window
    `from_query_on` belongs in it."""
    supervise_occluded: Tensor | None = None
    """[B] bool: False where the teacher has nothing to say about occluded points (TAPIR). None: all
    of them do."""
    clip_weight: Tensor | None = None
    """[B]: how much each clip counts. None: 1."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Factors of the parts. The defaults are those of pseudo-label training; its visibility head is
    frozen."""

    visible: float = 0.05
    """Huber loss of positions where the point is visible."""
    occluded: float = 0.01
    """L1 loss of positions where it is not."""
    visibility: float = 0.0
    """Cross entropy of visibility, on clips with exact tracks."""
    confidence: float = 0.0
    """Cross entropy of confidence, on clips with exact tracks."""
    real: tuple[float, float] = (1.0, 1.0)
    """How much a labelled clip counts in the first step and in the last; linear between.
    Track-On-R: 1 2."""
    synthetic: tuple[float, float] = (1.0, 1.0)
    """How much a clip with exact tracks counts in the first step and in the last. Track-On-R: 1
    0."""

    def __post_init__(self) -> None:
        for name in ("real", "synthetic"):
            if min(getattr(self, name)) < 0:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: weights in the first and the last step, none "
                    "below 0."
                )

    @classmethod
    def pseudo_label(cls) -> LossConfig:
        return cls()

    @classmethod
    def supervised(cls) -> LossConfig:
        """Training on synthetic video with exact tracks (Kubric)."""
        return cls(visibility=1.0, confidence=1.0)


@dataclass(frozen=True)
class Losses:
    """Scalars, factors applied."""

    visible: Tensor
    occluded: Tensor
    visibility: Tensor
    confidence: Tensor

    @property
    def total(self) -> Tensor:
        """What is back-propagated."""
        return self.visible + self.occluded + self.visibility + self.confidence


def student_losses(windows: Sequence[Refinements], targets: Targets, config: LossConfig) -> Losses:
    """The published sum. `windows` in any order; an offline model has one."""
    unseen = ~targets.visible
    if targets.supervise_occluded is not None:
        unseen = unseen & targets.supervise_occluded[:, None, None]
    return Losses(
        visible=config.visible
        * position_loss(
            windows, targets.xy, targets.weight * targets.visible, huber, targets.clip_weight
        ),
        occluded=config.occluded
        * position_loss(
            windows, targets.xy, targets.weight * unseen, torch.abs, targets.clip_weight
        ),
        visibility=config.visibility * visibility_loss(windows, targets.visible),
        confidence=config.confidence * confidence_loss(windows, targets.xy, targets.visible),
    )


def position_loss(
    windows: Sequence[Refinements],
    xy: Tensor,  # [B, N, T, 2] px
    weight: Tensor,  # [B, N, T]
    error: Callable[[Tensor], Tensor],  # px to loss, element by element
    clip_weight: Tensor | None = None,  # [B]
) -> Tensor:
    """Weighted mean error of every iteration, the later ones counting more; summed and divided by
    the number of iterations."""
    weight = weight * xy.isfinite().all(-1)
    xy = xy.nan_to_num()
    clips = xy.new_ones(len(xy)) if clip_weight is None else clip_weight

    def of_window(window: Refinements) -> Tensor:
        frames = _frames(window)
        iterations = len(window.xy)
        each = error(window.xy - xy[:, :, frames]).mean(-1)  # [I, B, N, S]
        share = weight[:, :, frames].to(each.dtype)
        mean = (share * each).sum((2, 3)) / (1e-6 + share.sum((1, 2)))  # [I, B]
        gamma = GAMMA ** torch.arange(iterations - 1, -1, -1, dtype=each.dtype, device=each.device)
        return (clips * (gamma[:, None] * mean).sum(0)).mean() / iterations

    return _mean_over(windows, of_window)


def visibility_loss(
    windows: Sequence[Refinements], visible: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Cross entropy over all points and iterations alike, those before the query included; of
    [B, N, T] `counted`, if it is given."""

    def of_window(window: Refinements) -> Tensor:
        frames = _frames(window)
        target = visible[:, :, frames].to(window.xy.dtype)
        return _mean_of(
            _cross_entropy(window.visibility, target),
            None if counted is None else counted[:, :, frames],
        )

    return _mean_over(windows, of_window)


def confidence_loss(
    windows: Sequence[Refinements], xy: Tensor, visible: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Cross entropy with "within 12 px of the target", where visible; the mean is over the same
    points as for visibility."""

    def of_window(window: Refinements) -> Tensor:
        frames = _frames(window)
        near = (window.xy.detach() - xy[:, :, frames]).square().sum(-1) <= CONFIDENT_PX**2
        each = _cross_entropy(window.confidence, near.to(window.xy.dtype)) * visible[:, :, frames]
        return _mean_of(each, None if counted is None else counted[:, :, frames])

    return _mean_over(windows, of_window)


def huber(error: Tensor) -> Tensor:
    """Quadratic up to 6 px, linear beyond."""
    size = error.abs()
    return torch.where(size <= HUBER_PX, error.square() / 2, HUBER_PX * (size - HUBER_PX / 2))


def from_query_on(query_frames: Tensor, frames: int) -> Tensor:
    """[B, N] frames of the queries to [B, N, T] bool: True from a point's query on."""
    return torch.arange(frames, device=query_frames.device) >= query_frames[..., None]


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    # torch refuses this function in half precision
    with torch.autocast(probability.device.type, enabled=False):
        return F.binary_cross_entropy(
            probability.to(target.dtype), target.expand_as(probability), reduction="none"
        )


def _mean_of(each: Tensor, counted: Tensor | None) -> Tensor:  # [I, B, N, S], [B, N, S] bool
    """The mean over iterations and clips of each clip's mean over what counts in it; None:
    everything does."""
    if counted is None:
        return each.mean()
    return ((each * counted).sum((2, 3)) / counted.sum((1, 2)).clamp(min=1)).mean()


def _frames(window: Refinements) -> slice:
    return slice(window.first_frame, window.first_frame + window.xy.shape[3])


def _mean_over(windows: Sequence[Refinements], loss: Callable[[Refinements], Tensor]) -> Tensor:
    return torch.stack([loss(window) for window in windows]).mean()
