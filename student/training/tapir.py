"""TAPIR, BootsTAPIR, and causal BootsTAPIR as students, and the base of others that train with
their losses.

Losses    those of the published training code (`losses_tapir`), over the matched points and every
          refinement at the first of `TapirConfig.scales`, as published; every valid frame enters
          them, those before the query included.
Raster    a square crop below 256 px goes in at its own size, so a part of a frame looks to the
          network as it does in the whole frame, and errors are px of the crop. Any other crop is
          resized to 256 x 256 px, as published, and errors are px of that.
Visible   TAPIR says occlusion and expected distance with the layers that say positions, so they
          cannot stay as they are ("frozen"). "consensus" learns them from the labels, "held" keeps
          what the network said before training, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from labeler.labels.agreement import RASTER
from student.training.interface import Goal, Preset, Student, Visibility
from student.training.losses_tapir import TapirTargets, held_losses, tapir_losses
from teachers.checkpoints.files import TEACHER, load_weights, read_metadata, stored_config
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.device import constant
from teachers.layers.memory import Memory
from teachers.tapir.config import BOOTSTAPIR, CAUSAL_BOOTSTAPIR, PRESETS, STRIDE, TapirConfig
from teachers.tapir.network import Tapir, TapirSteps
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher

CORNER_PX = 0.5
"""From pixel centres to the network's raster, in which (0, 0) is the corner of a pixel."""
AT_ONCE = {"cpu": Memory(8, 4096), "cuda": Memory(32, 65_536)}
"""What is computed at once in training, by device."""
LARGEST_REFINED = 2.0
"""Side of the frames that a finished student may refine positions on, in rasters."""
SURE = 0.8
"""Certainty from which a finished student may ask again for points that are lost."""
LIKELY = 0.5
"""In pictures, a point counts as visible if the probability that it is visible and near is above
this."""


@dataclass(frozen=True)
class TapirAnswer:
    """TAPIR's answer for B clips."""

    steps: Tensor
    """[S, B, N, T, 4]: those of `TapirSteps`."""
    last: Tensor
    """[B, N, T, 4]: the last step."""
    size: tuple[float, float]
    """(H, W): errors count as if the frames had this size; see `tapir_losses`."""


@dataclass(frozen=True, kw_only=True)
class TapirStudent(Student):
    """TAPIR in one of its forms, and the base of students that give the same values for a point."""

    network: Callable[[Any], nn.Module] = Tapir
    config: Callable[..., Any] = TapirConfig
    presets: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: PRESETS)
    variant: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `config` in which this form differs."""

    parts: ClassVar[tuple[str, ...]] = ("position", "occlusion", "distance")
    factors: ClassVar[tuple[str, ...]] = ("tapir",)
    head: ClassVar[str | None] = None
    visibility: ClassVar[Visibility] = "consensus"
    # bfloat16 would round the mean of cells, a position, to half a pixel
    bf16: ClassVar[bool] = False
    several_refinements: ClassVar[bool] = True

    def from_scratch(
        self, preset: Preset, frames: int, size_hw: tuple[int, int], seed: int
    ) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network(self.presets[preset](**self.variant))

    def from_file(self, path: str | Path, preset: Preset) -> nn.Module:
        stored = read_metadata(path).get(TEACHER, self.teacher)
        if stored.removesuffix("-mini") != self.teacher:
            raise CheckpointError(
                f"{path}: weights of {stored}, and this student begins with those of "
                f"{self.teacher}."
            )
        model = self.network(stored_config(path, self.presets[preset](**self.variant)))
        load_weights(model, path, self.teacher)
        return model

    def prepare(self, model: nn.Module, size_hw: tuple[int, int], iterations: int | None) -> None:
        """Set the raster of the network to that of the crop (see above), and how often it
        refines."""
        tapir: Any = model
        height, width = size_hw
        raster = min(tapir.config.raster, height) if height == width else tapir.config.raster
        if raster % STRIDE:
            raise ConfigError(
                f"height = width = {height}: a square crop of less than {tapir.config.raster} px "
                f"needs sides that are multiples of {STRIDE}."
            )
        tapir.config = replace(
            tapir.config,
            raster=raster,
            iterations=iterations or tapir.config.iterations,
        )
        tapir.to(memory_format=torch.channels_last)

    def refinements(self, model: Any) -> Sequence[Mapping[str, Any]]:
        """Refined as before, and on frames of twice the raster too; if that is how it was, without
        them. Either with a second query for points that are lost, and without. The second query is
        preferred: where tracks are exact it gains more than labels, which lack such points, can
        say."""
        own, sizes = model.config.scales, list[Mapping[str, Any]]([{}])
        if own[-1] < LARGEST_REFINED:
            sizes.append({"scales": (*own, LARGEST_REFINED)})
        elif len(own) > 1:
            sizes.append({"scales": own[:-1]})
        if model.config.causal:
            return sizes
        asks = model.config.requery < 1
        again, once = ({}, {"requery": 1.0}) if asks else ({"requery": SURE}, {})
        return [{**size, **asked} for asked in (again, once) for size in sizes]

    def track(
        self, model: Any, frames: Tensor, queries: Tensor, iterations: int | None, memory: Memory
    ) -> TapirAnswer:
        """The network's answer, with the iterations that `prepare` was given."""
        size, device = (frames.shape[2], frames.shape[3]), frames.device.type
        memory = memory.filled(AT_ONCE[device])
        corner = queries + constant(queries, 0, CORNER_PX, CORNER_PX)
        steps, answer = self._steps(model, frames.permute(0, 1, 4, 2, 3), corner, memory)
        scale = RASTER / model.config.raster
        return TapirAnswer(steps.float(), answer.float(), (size[0] * scale, size[1] * scale))

    def _steps(
        self, model: Any, frames: Tensor, corner: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:  # [B, T, 3, H, W], [B, N, 3] -> [I, B, N, T, 4], [B, N, T, 4]
        """Every step of the network, and its answer."""
        size = (frames.shape[3], frames.shape[4])
        features = model.encode(frames, model.config.squares[:1], memory)
        described = model.describe(features, corner, size)
        found: TapirSteps = model.track(features, described, size, corner, memory=memory)
        return found.steps, found.answer

    def finite_clips(self, answer: TapirAnswer) -> Tensor:
        return answer.steps.isfinite().transpose(0, 1).flatten(1).all(1)

    def losses(self, answer: TapirAnswer, goal: Goal) -> dict[str, Tensor]:
        batch, config = goal.batch, goal.config.tapir
        positions, visibility = (
            batch.weight * weight[:, None, None]
            for weight in (goal.clip_weight, goal.visibility_weight)
        )
        targets = TapirTargets(
            batch.xy + CORNER_PX,
            ~batch.visible,
            batch.valid * positions,
            batch.visibility_valid * visibility,
            batch.valid * visibility,
        )
        found = tapir_losses(answer.steps, targets, answer.size, config)
        occlusion, distance = found.occlusion, found.distance
        if goal.visibility == "held":
            occlusion, distance = held_losses(
                answer.steps, goal.before.steps, goal.clip_weight, config
            )
        return {"position": found.position, "occlusion": occlusion, "distance": distance}

    def last_tracks(self, answer: TapirAnswer, frames: int) -> tuple[np.ndarray, np.ndarray]:
        last = answer.last[0].detach()
        near = torch.sigmoid(-last[..., 2:]).prod(-1) > LIKELY
        return last[..., :2].cpu().numpy() - np.float32(CORNER_PX), near.cpu().numpy()


TAPIRS: dict[str, TapirStudent] = {
    name: TapirStudent(kind=name, teacher=name, adapter=adapter, variant=variant)
    for name, adapter, variant in (
        ("tapir", TapirTeacher, {}),
        ("bootstapir", BootsTapirTeacher, BOOTSTAPIR),
        ("bootstapir-causal", CausalBootsTapirTeacher, CAUSAL_BOOTSTAPIR),
    )
}
