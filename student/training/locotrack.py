"""LocoTrack as a student.

It says of a point in a frame what TAPIR says, step by step (position, logits of occlusion and of
"farther than 6 px off"), and is trained with TAPIR's losses over the matched points and every
refinement; so raster, visibility, and losses are those of `tapir`. CoTracker3's paper trains it on
pseudo-labels too (arXiv 2410.11831, figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from labeler.labels.agreement import RASTER
from student.training.tapir import (
    CORNER_PX,
    FRAMES_PER_BLOCK,
    POINTS_PER_BLOCK,
    TapirAnswer,
    TapirStudent,
)
from teachers.layers.memory import Memory
from teachers.locotrack.config import PRESETS, LocoTrackConfig
from teachers.locotrack.network import SMALL, LocoTrack
from teachers.locotrack.teacher import LocoTrackSmallTeacher, LocoTrackTeacher


@dataclass(frozen=True, kw_only=True)
class LocoTrackStudent(TapirStudent):
    """LocoTrack-B or -S."""

    network: Callable[[Any], nn.Module] = LocoTrack
    config: Callable[..., LocoTrackConfig] = LocoTrackConfig
    presets: Mapping[str, Callable[..., LocoTrackConfig]] = field(default_factory=lambda: PRESETS)

    def track(
        self, model: Any, frames: Tensor, queries: Tensor, iterations: int | None, memory: Memory
    ) -> TapirAnswer:
        """With the iterations that `prepare` was given."""
        size, device = (frames.shape[2], frames.shape[3]), frames.device.type
        memory = replace(
            memory,
            frames_per_block=memory.frames_per_block or FRAMES_PER_BLOCK[device],
            points_per_block=memory.points_per_block or POINTS_PER_BLOCK[device],
        )
        corner = queries + queries.new_tensor([0, CORNER_PX, CORNER_PX])
        raster = model.config.raster
        steps = model(frames.permute(0, 1, 4, 2, 3), corner, [(raster, raster)], memory).float()
        scale = RASTER / raster
        return TapirAnswer(steps, steps[-1], (size[0] * scale, size[1] * scale))


LOCOTRACKS: dict[str, LocoTrackStudent] = {
    name: LocoTrackStudent(kind=name, teacher=name, adapter=adapter, variant=variant)
    for name, adapter, variant in (
        ("locotrack-base", LocoTrackTeacher, {}),
        ("locotrack-small", LocoTrackSmallTeacher, SMALL),
    )
}
