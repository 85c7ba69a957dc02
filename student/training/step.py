"""Step: from clips to a gradient. What one process computes of a training step.

clips -> [inline labels] -> tracks in every window, after every refinement -> losses -> gradient,
added to those before
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from student.data.batch import EXACT, Batch
from student.training.config import TrainConfig
from student.training.losses import (
    LossConfig,
    Losses,
    Targets,
    confidence_loss,
    from_query_on,
    student_losses,
    visibility_loss,
)
from student.training.students import Student
from teachers.cotracker.cotracker3 import CoTracker3Network
from teachers.cotracker.refinements import Refinements
from teachers.layers.memory import Memory


@dataclass(frozen=True)
class StepPart:
    """What a process did with one batch of a step."""

    losses: Losses | None
    """None where an answer was not finite; nothing was then added to the gradient."""
    unfit: tuple[str, ...]
    """Keys of the clips whose answer was not finite."""
    windows: list[Refinements]


def add_gradient(
    student: Student,
    model: CoTracker3Network,
    batch: Batch,
    config: TrainConfig,
    parts: int,
    progress: float,
) -> StepPart:
    """Add a batch's gradient, divided by the `parts` of the step, to what the parameters hold.

    Args:
        batch: on the device of the model.
        progress: how much of the training is done, in [0, 1].
    """
    memory = Memory(recompute=config.recompute)
    with torch.autocast(
        batch.frames.device.type, torch.bfloat16, enabled=uses_bf16(config, batch.frames.device)
    ):
        windows = student.track(model, batch.frames, batch.queries, config.iterations, memory)
        fit = finite_clips(windows)
        if not fit.all():  # the cross entropy of such a probability would be an error on a GPU
            return StepPart(
                None,
                tuple(key for key, good in zip(batch.keys, fit.tolist(), strict=True) if not good),
                windows,
            )
        losses = batch_losses(student, windows, batch, config.loss, progress)
    if not losses.total.isfinite():
        return StepPart(None, batch.keys, windows)
    (losses.total / parts).backward()
    return StepPart(losses, (), windows)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 there."""
    return device.type == "cuda" if config.bf16 is None else config.bf16


def finite_clips(windows: Sequence[Refinements]) -> Tensor:  # [B] bool
    """Whether everything that the network says about a clip is finite."""
    answers = [
        part
        for window in windows
        for part in (window.xy, window.visibility_logit, window.confidence_logit)
    ]
    return torch.stack(
        [answer.isfinite().transpose(0, 1).flatten(1).all(1) for answer in answers]
    ).all(0)


def batch_losses(
    student: Student,
    windows: Sequence[Refinements],
    batch: Batch,
    config: LossConfig,
    progress: float = 0.0,
) -> Losses:
    """The published sum: positions are learnt from every clip, visibility and confidence from those
    with exact tracks alone."""
    used = batch.valid
    if student.from_query_on:
        used = used & from_query_on(batch.queries[..., 0].long(), used.shape[2])
    weight = clip_weights(batch, config, progress)
    targets = Targets(batch.xy, batch.visible, used, batch.supervise_occluded, weight)
    losses = student_losses(windows, targets, replace(config, visibility=0.0, confidence=0.0))
    exact = [clip for clip, source in enumerate(batch.sources) if source in EXACT]
    if not exact or not (config.visibility or config.confidence):
        return losses
    share = weight[exact[0]] * len(exact) / len(batch.sources)
    visible, xy, counted = batch.visible[exact], batch.xy[exact], batch.valid[exact]
    of_exact = [
        replace(
            window,
            xy=window.xy[:, exact],
            visibility_logit=window.visibility_logit[:, exact],
            confidence_logit=window.confidence_logit[:, exact],
        )
        for window in windows
    ]
    return replace(
        losses,
        visibility=config.visibility * share * visibility_loss(of_exact, visible, counted),
        confidence=config.confidence * share * confidence_loss(of_exact, xy, visible, counted),
    )


def clip_weights(batch: Batch, config: LossConfig, progress: float) -> Tensor:  # [B]
    """How much each clip counts at this point of the training."""
    real, synthetic = (
        first + (last - first) * progress for first, last in (config.real, config.synthetic)
    )
    return torch.tensor(
        [synthetic if source in EXACT else real for source in batch.sources], device=batch.xy.device
    )
