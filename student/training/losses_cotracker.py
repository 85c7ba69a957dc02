"""Losses of CoTracker3: positions, visibility, confidence.

Paper     CoTracker3, arXiv 2410.11831, section 3.3. The sums are those of the published training
          scripts.
Windows   a model that goes window by window has its loss in every window, on the window's frames;
          windows then count the same, and so do passes over frames of several sizes.
Clips     count the same whatever their number of valid points: the published batch is one clip a
          device, averaged over devices.
Pixels    those of the training crop. An error's x and y parts are averaged, not combined into a
          distance.

What is masked may be NaN in the targets: it gets no weight and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from student.training.losses import LossConfig, huber
from teachers.cotracker.refinements import Refinements
from teachers.layers.branch import for_gpu

GAMMA = 0.8
"""The weight of an iteration is that of the next one times this factor; the last has weight 1."""
CONFIDENT_PX = 12.0
"""A position within this distance of the target should have confidence 1."""


@dataclass(frozen=True)
class CoTrackerTargets:
    """What the student should say about B clips."""

    xy: Tensor
    """[B, N, T, 2] px of the crop; may be NaN where `weight` is 0."""
    visible: Tensor
    """[B, N, T] bool"""
    weight: Tensor
    """[B, N, T] in [0, 1]: how much positions count. For a model that goes window by window, this
    should include `from_query_on`."""
    supervise_occluded: Tensor | None = None
    """[B] bool: False where the teacher has nothing to say about occluded points (TAPIR). None: all
    of them do."""
    clip_weight: Tensor | None = None
    """[B]: how much each clip counts. None: 1."""


def position_losses(
    windows: Sequence[Refinements], targets: CoTrackerTargets, config: LossConfig
) -> dict[str, Tensor]:
    """The published losses of positions, `visible` and `occluded`, with factors applied. `windows`
    may be in any order; an offline model has one, or one for each size of the frames on which it
    refines tracks."""
    unseen = ~targets.visible
    if targets.supervise_occluded is not None:
        unseen = unseen & targets.supervise_occluded[:, None, None]
    parts: tuple[tuple[str, float, Tensor, Callable[[Tensor], Tensor]], ...] = (
        ("visible", config.visible, targets.visible, partial(huber, knee=config.huber_px)),
        ("occluded", config.occluded, unseen, torch.abs),
    )
    return {
        name: factor
        * position_loss(windows, targets.xy, targets.weight * where, error, targets.clip_weight)
        for name, factor, where, error in parts
    }


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
    windows: Sequence[Refinements],
    visible: Tensor,  # [B, N, T]
    counted: Tensor | None = None,  # [B, N, T] in [0, 1], how much each counts; None: 1
    clip_weight: Tensor | None = None,  # [B]
) -> Tensor:
    """Cross entropy of visibility over all points and iterations, frames before the query
    included."""

    def of_window(window: Refinements) -> Tensor:
        frames = _frames(window)
        target = visible[:, :, frames].to(window.xy.dtype)
        return _mean_of(
            _cross_entropy(window.visibility, target),
            None if counted is None else counted[:, :, frames],
            clip_weight,
        )

    return _mean_over(windows, of_window)


def confidence_loss(
    windows: Sequence[Refinements],
    xy: Tensor,  # [B, N, T, 2] px
    visible: Tensor,  # [B, N, T]
    counted: Tensor | None = None,  # [B, N, T] in [0, 1], how much each counts; None: 1
    clip_weight: Tensor | None = None,  # [B]
) -> Tensor:
    """Cross entropy with "within 12 px of the target", where visible; the mean is over all points
    that count, visible or not."""

    def of_window(window: Refinements) -> Tensor:
        frames = _frames(window)
        near = (window.xy.detach() - xy[:, :, frames]).square().sum(-1) <= CONFIDENT_PX**2
        each = _cross_entropy(window.confidence, near.to(window.xy.dtype)) * visible[:, :, frames]
        return _mean_of(each, None if counted is None else counted[:, :, frames], clip_weight)

    return _mean_over(windows, of_window)


def held_losses(
    windows: Sequence[Refinements],
    before: Sequence[Refinements],  # of another network, for the same clips
    clip_weight: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:
    """Cross entropy of visibility, and of confidence, with what `before` gives after the same
    iteration; its gradient is 0 where both are equal."""

    def of(name: str) -> Tensor:
        return torch.stack(
            [
                _mean_of(
                    _cross_entropy(getattr(now, name), getattr(then, name).float()),
                    None,
                    clip_weight,
                )
                for now, then in zip(windows, before, strict=True)
            ]
        ).mean()

    return of("visibility"), of("confidence")


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    if for_gpu(probability):
        # a value that is not a probability would stop the device; `add_gradient` checks later
        # whether it was finite
        probability = probability.nan_to_num(0.5)
    # torch refuses this function in half precision
    with torch.autocast(probability.device.type, enabled=False):
        return F.binary_cross_entropy(
            probability.to(target.dtype), target.expand_as(probability), reduction="none"
        )


def _mean_of(
    each: Tensor,  # [I, B, N, S]
    counted: Tensor | None,  # [B, N, S] in [0, 1]
    clip_weight: Tensor | None,  # [B]
) -> Tensor:
    """The weighted mean, over iterations and clips, of each clip's mean over what counts in it;
    None: everything counts."""
    if counted is None:
        of_clip = each.mean((2, 3))
    else:
        of_clip = (each * counted).sum((2, 3)) / counted.sum((1, 2)).clamp(min=1)
    return (of_clip if clip_weight is None else of_clip * clip_weight).mean()


def _frames(window: Refinements) -> slice:
    return slice(window.first_frame, window.first_frame + window.xy.shape[3])


def _mean_over(windows: Sequence[Refinements], loss: Callable[[Refinements], Tensor]) -> Tensor:
    return torch.stack([loss(window) for window in windows]).mean()
