"""What each mini learns, and in which stages: recipes of `experiments.minis.train`."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.minis.pool import ViewConfig
from student.data.batch import Batch
from student.training.losses import TapirLossConfig, huber
from student.training.losses_cotracker import confidence_loss, position_loss, visibility_loss
from student.training.losses_matching import matching_loss
from student.training.losses_tapir import RASTER, TapirTargets, tapir_losses
from student.training.schedule import ScheduleConfig
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config
from teachers.cotracker.transformer import STRIDE
from teachers.errors import ConfigError
from teachers.layers.memory import Memory
from teachers.layers.sampling import sample_windows
from teachers.tapir.config import TapirConfig
from teachers.tapir.network import Tapir

MEMORY = Memory(frames_per_block=8, points_per_block=4096, recompute=False)
FINE_HUBER = partial(huber, knee=1.0)
"""What is near already goes on to improve."""
PAIRS = ViewConfig(batch=8, frames=2, size=128, points=48, stride=23, zoom=(0.7, 1.8))
"""Two frames, near or far: enough for an encoder."""


Start = Literal["query", "near", "between", "any"]
"""Where a tracker that looks around its present position begins: at the query, as it will be used;
near the truth, so that it learns first to find what is in sight; somewhere on the way from the
query to the truth, as after some iterations; or at one of these three by chance."""


STARTS: tuple[Start, ...] = ("query", "between", "near")
SHARES = (0.4, 0.2, 0.4)
"""How often "any" is each of these."""


@dataclass(frozen=True)
class Stage:
    """So many steps on such views."""

    steps: int
    view: ViewConfig
    pretraining: bool = False
    start: Start = "query"


def start_xy(
    batch: Batch, start: Start, rng: np.random.Generator
) -> np.ndarray:  # float32 [B, N, T, 2]
    """The positions that a tracker which looks around its present one refines first."""
    if start == "any":
        start = STARTS[rng.choice(len(STARTS), p=SHARES)]
    truth = batch.xy.numpy()
    query = np.broadcast_to(batch.queries.numpy()[:, :, None, 1:], truth.shape)
    clips, points, frames, _ = truth.shape
    if start == "query":
        return query.copy()
    if start == "between":
        share = np.maximum(0, rng.uniform(-0.5, 1, (clips, points, 1, 1)))
        return (query + share * (truth - query)).astype(np.float32)
    scale_px = 2 ** rng.uniform(0, 5, (clips, points, 1, 1))
    shift = rng.normal(size=(clips, points, 1, 2)) + 0.5 * rng.normal(
        size=(clips, points, frames, 2)
    )
    return (truth + scale_px * shift).astype(np.float32)


def between_frames(batch: Batch) -> Tensor:  # [B, N, T]
    """1 where the point is seen in another frame than its query's."""
    return (
        batch.visible & (torch.arange(batch.visible.shape[2]) != batch.queries[..., :1])
    ).float()


Network = TypeVar("Network", Tapir, CoTracker3)


class Recipe(abc.ABC, Generic[Network]):
    """How one mini is trained."""

    teacher: ClassVar[str]
    learning_rate: ClassVar[float]
    """Its highest value."""
    weight_decay: ClassVar[float]
    stages: ClassVar[tuple[Stage, ...]]

    def schedule(self, learning_rate: float | None = None) -> ScheduleConfig:
        """How weights move; another highest learning rate may be given."""
        return ScheduleConfig(
            learning_rate=learning_rate or self.learning_rate,
            weight_decay=self.weight_decay,
            clip_norm=1.0,
            warm_up=0.03,
        )

    @abc.abstractmethod
    def network(self) -> Network:
        """Untrained."""

    def losses(
        self, model: Network, batch: Batch, start: Tensor, pretraining: bool
    ) -> dict[str, Tensor]:
        """The parts of a step's loss; `start` [B, N, T, 2] are the positions that a tracker which
        looks around its present one begins at. In pretraining there is matching alone."""
        grids = self.encode(model, batch, pretraining)
        matching = torch.stack(self.matching(model, batch, grids)).mean()
        if pretraining:
            return {"matching": matching}
        return {"matching": 0.1 * matching} | self.tracking(model, batch, grids, start)

    @abc.abstractmethod
    def encode(self, model: Network, batch: Batch, pretraining: bool) -> Any:
        """What the network sees in the frames, for the two that follow; in pretraining, what
        matching needs."""

    @abc.abstractmethod
    def matching(self, model: Network, batch: Batch, grids: Any) -> list[Tensor]:
        """How badly each grid tells a query from the rest of every frame."""

    @abc.abstractmethod
    def tracking(
        self, model: Network, batch: Batch, grids: Any, start: Tensor
    ) -> dict[str, Tensor]:
        """The losses of the tracks."""


@dataclass(frozen=True)
class TapirView:
    """What TAPIR sees in the frames of a batch, and of its queries."""

    size: tuple[int, int]
    corner: Tensor
    """[B, N, 3]: queries, px from the corner."""
    features: Any
    described: Any


class TapirRecipe(Recipe[Tapir]):
    """TAPIR: matching over the whole frame from the first step on."""

    teacher = "tapir"
    # as steep as published beyond 4 px, and down to a quarter of a pixel
    loss_config = TapirLossConfig(position=0.8, huber_px=0.25)
    learning_rate = 1.2e-3
    weight_decay = 1e-2
    stages = (
        Stage(1000, PAIRS, pretraining=True),
        Stage(4000, ViewConfig(batch=2, frames=16, size=128, points=64)),
        Stage(1200, ViewConfig(batch=1, frames=16, size=256, points=64)),
    )

    def network(self) -> Tapir:
        return Tapir(TapirConfig.mini(scales=(1.0, 1.5), path=True))

    def encode(self, model: Tapir, batch: Batch, pretraining: bool) -> TapirView:
        frames = batch.frames.permute(0, 1, 4, 2, 3)
        size = (frames.shape[-2], frames.shape[-1])
        model.config = replace(model.config, raster=size[0])
        corner = batch.queries + torch.tensor([0, 0.5, 0.5])
        squares = () if pretraining else model.config.squares[:1]
        features = model.encode(frames, squares, MEMORY)
        return TapirView(size, corner, features, model.describe(features, corner, size))

    def matching(self, model: Tapir, batch: Batch, grids: TapirView) -> list[Tensor]:
        # the grid of stride 2 is too fine to tell a point from all others
        parts = zip(
            grids.features[0].grids[-2:],
            grids.described[0].split(model.config.channels, -1)[-2:],
            strict=True,
        )
        side, weight = grids.size[0], between_frames(batch)
        return [
            matching_loss(grid, points, (batch.xy + 0.5) * grid.shape[2] / side - 0.5, weight)
            for grid, points in parts
        ]

    def tracking(
        self, model: Tapir, batch: Batch, grids: TapirView, start: Tensor
    ) -> dict[str, Tensor]:
        steps = model.track(
            grids.features, grids.described, grids.size, grids.corner, memory=MEMORY
        ).steps
        targets = TapirTargets(batch.xy + 0.5, ~batch.visible)
        return vars(tapir_losses(steps, targets, (RASTER, RASTER), self.loss_config))


class CoTracker3Recipe(Recipe[CoTracker3]):
    """CoTracker3 offline: local correlation on a pyramid, from the query's place in every frame."""

    teacher = "cotracker3-offline"
    iterations = 3
    learning_rate = 1e-3
    weight_decay = 1e-3
    stages = (
        Stage(450, PAIRS, pretraining=True),
        Stage(250, ViewConfig(batch=2, frames=8, size=128, points=32, stride=1)),
        Stage(350, ViewConfig(batch=2, frames=8, size=128, points=48), start="near"),
        Stage(950, ViewConfig(batch=1, frames=16, size=128, points=48), start="between"),
        Stage(80, ViewConfig(batch=1, frames=24, size=160, points=48)),
        # as in each of the passes from coarse to fine
        Stage(
            3000, ViewConfig(batch=2, frames=16, size=128, points=48, zoom=(0.5, 3.0)), start="any"
        ),
    )

    def network(self) -> CoTracker3:
        return CoTracker3(CoTracker3Config.mini(sides=(128, 256, 512)))

    def encode(self, model: CoTracker3, batch: Batch, pretraining: bool) -> list[Tensor]:
        return model.encode_at(batch.frames.permute(0, 1, 4, 2, 3), 1.0, MEMORY)

    def matching(self, model: CoTracker3, batch: Batch, grids: list[Tensor]) -> list[Tensor]:
        frame, weight = batch.queries[..., :1].long(), between_frames(batch)
        losses = []
        for level, grid in enumerate(grids):
            cells = STRIDE * 2**level
            points = sample_windows(grid, frame, batch.queries[..., None, 1:] / cells, 0)
            described = F.normalize(points[:, :, 0, 0], dim=-1)
            losses.append(matching_loss(grid, described, batch.xy / cells, weight))
        return losses

    def tracking(
        self, model: CoTracker3, batch: Batch, grids: list[Tensor], start: Tensor
    ) -> dict[str, Tensor]:
        unknown = torch.zeros_like(start[..., 0])
        windows = model.query_windows(grids, batch.queries)
        found = model.refine(grids, windows, start, unknown, unknown, self.iterations, MEMORY)
        visible, hidden = batch.visible.float(), (~batch.visible).float()
        return {
            "position": 0.3 * position_loss([found], batch.xy, visible, FINE_HUBER),
            "occluded": 0.01 * position_loss([found], batch.xy, hidden, torch.abs),
            "visibility": visibility_loss([found], batch.visible),
            "confidence": confidence_loss([found], batch.xy, batch.visible),
        }


RECIPES: dict[str, type[Recipe[Any]]] = {
    "tapir": TapirRecipe,
    "cotracker3": CoTracker3Recipe,
}


def steps_of(recipe: Recipe[Any], more: int | None, number: int | None = None) -> list[Stage]:
    """The stage of every step: all stages; or for `more` steps the one of that number, from 0, or
    else the longest one.

    Raises:
        ConfigError: there is no stage of that number.
    """
    stages: tuple[Stage, ...] = recipe.stages
    if number is not None and number not in range(len(stages)):
        raise ConfigError(f"--stage {number}: this recipe has the stages 0 to {len(stages) - 1}.")
    if more is not None:
        longest = max(stages, key=lambda stage: stage.steps)
        stages = (replace(longest if number is None else stages[number], steps=more),)
    return [stage for stage in stages for _ in range(stage.steps)]
