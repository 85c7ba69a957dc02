"""LocoTrack as a student.

For a point in a frame, it gives what TAPIR gives, step by step (position, logits of occlusion and
of "farther than 6 px off"), and it is trained with TAPIR's losses over the matched points and every
refinement; so raster, visibility, and losses are those of `tapir`. CoTracker3's paper trains it on
pseudo-labels too (arXiv 2410.11831, figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from student.training.tapir import (
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

    several_refinements: ClassVar[bool] = False

    def refinements(self, model: Any) -> Sequence[Mapping[str, Any]]:
        return [{}]

    def _steps(
        self, model: Any, frames: Tensor, corner: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        steps = model(frames, corner, [(model.config.raster, model.config.raster)], memory)
        return steps, steps[-1]


LOCOTRACKS: dict[str, LocoTrackStudent] = {
    name: LocoTrackStudent(kind=name, teacher=name, adapter=adapter, variant=variant)
    for name, adapter, variant in (
        ("locotrack-base", LocoTrackTeacher, {}),
        ("locotrack-small", LocoTrackSmallTeacher, SMALL),
    )
}
