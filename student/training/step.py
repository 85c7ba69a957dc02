"""Step: from clips to a gradient, which is what one process computes in a training step.

clips -> [inline labels] -> tracks after every refinement -> losses -> gradient, added to those
before
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from student.data.batch import EXACT, Batch
from student.training.config import TrainConfig
from student.training.interface import Goal, Student
from student.training.losses import LossConfig
from student.training.students import STUDENTS
from teachers.layers.branch import for_gpu
from teachers.layers.device import sent
from teachers.layers.memory import Memory


@dataclass(frozen=True)
class StepPart:
    """What a process computed from one batch of a step."""

    losses: dict[str, Tensor] | None
    """Losses by name. None if an answer was not finite; nothing was then added to the gradient."""
    unfit: tuple[str, ...]
    """Keys of the clips whose answers were not finite."""
    answer: Any
    """The answer of `Student.track`."""
    fit: Tensor | None = None
    """[B] bool: whose answers are finite, on a GPU, where nobody asked yet: a wait for each part of
    a step would empty its queue. `losses` and the gradient are then of all clips."""


def add_gradient(
    student: Student,
    model: nn.Module,
    batch: Batch,
    config: TrainConfig,
    parts: int,
    progress: float,
    before: nn.Module | None = None,
) -> StepPart:
    """Add a batch's gradient, divided by the `parts` of the step, to what the parameters hold.

    Args:
        batch: on the device of the model.
        progress: how much of the training is done, in [0, 1].
        before: the network before training; only with visibility "held".
    """
    with torch.autocast(
        batch.frames.device.type, torch.bfloat16, enabled=uses_bf16(config, batch.frames.device)
    ):
        held = None if before is None else _asked(student, before, batch, config)
        answer = student.track(
            model,
            batch.frames,
            batch.queries,
            config.iterations,
            Memory(recompute=config.recompute is not False),
        )
        fit = student.finite_clips(answer)
        later = for_gpu(fit)
        if not later and not fit.all():
            unfit = [key for key, good in zip(batch.keys, fit.tolist(), strict=True) if not good]
            return StepPart(None, tuple(unfit), answer)
        losses = student.losses(
            answer,
            Goal(
                batch=batch,
                clip_weight=clip_weights(batch, config.loss, progress),
                visibility=config.visibility_choice,
                config=config.loss,
                before=held,
            ),
        )
    total = torch.stack(list(losses.values())).sum()
    # on a GPU, the norm of the gradient, which is read anyway, shows it later
    if not later and not total.isfinite():
        return StepPart(None, batch.keys, answer)
    (total / parts).backward()
    return StepPart(losses, (), answer, fit if later else None)


@torch.no_grad()
def _asked(student: Student, model: nn.Module, batch: Batch, config: TrainConfig) -> Any:
    return student.track(model, batch.frames, batch.queries, config.iterations, Memory())


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 on that device."""
    if config.bf16 is not None:
        return config.bf16
    return device.type == "cuda" and STUDENTS[config.student].bf16


KEPT_GIB = {"offline": 28.0, "online": 48.0}
"""What autograd keeps for a clip of 64 x 384 x 512 px with 384 points and 4 refinements, in
bfloat16, for the official CoTracker3, without recomputing; in float32, it is 1.9 times as much.
Computed, not measured on a GPU: docs/log.md, 2026-11-24."""
ROOM = 1.3
"""Memory in addition to what is kept: what exists only during one operation, and what the allocator
cannot use."""


def recomputes(config: TrainConfig, device: torch.device) -> bool:
    """`config.recompute` or, if that is None, whether the free memory of a GPU is too small to keep
    the activations of the largest batch that goes through the network together."""
    if config.recompute is not None:
        return config.recompute
    kept = KEPT_GIB.get(config.student)
    if device.type != "cuda" or kept is None:
        return True
    data = config.data
    pixels = data.frames * data.height * data.width / (64 * 384 * 512)
    points = data.frames * data.queries * (config.iterations or 4) / (64 * 384 * 4)
    need = ROOM * kept * data.at_once * max(pixels, points)
    need *= 1.0 if uses_bf16(config, device) else 1.9
    try:
        free, _ = torch.cuda.mem_get_info(device)
    except (RuntimeError, AssertionError):
        return True
    return need > free / 2**30


def clip_weights(batch: Batch, config: LossConfig, progress: float) -> Tensor:  # [B]
    """How much each clip counts at this point of the training."""
    real, synthetic = (
        first + (last - first) * progress for first, last in (config.real, config.synthetic)
    )
    weights = [synthetic if source in EXACT else real for source in batch.sources]
    return sent(torch.tensor(weights), batch.xy.device)
