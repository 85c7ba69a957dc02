"""Train a mini teacher from nothing on procedural video, on one CPU core.

    python -m experiments.minis.train render --pool POOL
    python -m experiments.minis.train tapir --pool POOL --out OUT
    python -m experiments.minis.train cotracker3 --pool POOL --out OUT
    python -m experiments.minis.train tapir --pool POOL --out OUT --init FILE --more 4200

First the encoder learns to match points between frames of a clip (cheap, see
`student.training.losses_matching`), then the whole network learns to track: small frames at first,
frames of the size it is meant for at the end. The learning rate falls to 0 by the last step, and
what is shipped is a running mean of the weights, with the visible rule that fits it
(`experiments.minis.calibrate`). Killed and started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.minis.calibrate import calibrate
from experiments.minis.pool import ViewConfig, draw_view, render_pool
from student.data.batch import Batch
from student.training.losses import TapirLossConfig, huber
from student.training.losses_cotracker import confidence_loss, position_loss, visibility_loss
from student.training.losses_matching import matching_loss
from student.training.losses_tapir import RASTER, TapirTargets, tapir_losses
from student.training.schedule import Optimiser, ScheduleConfig
from teachers.checkpoints.files import CONFIG, LICENCE, TEACHER
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config
from teachers.cotracker.transformer import STRIDE
from teachers.layers.memory import Memory
from teachers.layers.sampling import sample_windows
from teachers.tapir.network import Tapir, TapirConfig

MEMORY = Memory(frames_per_block=8, points_per_block=4096, recompute=False)
EMA_DECAY = 0.995
SAVE_EVERY, SAY_EVERY = 50, 50
CALIBRATION_CLIPS = 12
FINE_HUBER = partial(huber, knee=1.0)
"""What is near already goes on to improve."""
PAIRS = ViewConfig(batch=8, frames=2, size=128, points=48, stride=23, zoom=(0.7, 1.8))
"""Two frames, near or far: enough for an encoder."""


Start = Literal["query", "near", "between"]
"""Where a tracker that looks around its present position begins: at the query, as it will be used;
near the truth, so that it learns first to find what is in sight; or somewhere on the way from the
query to the truth, as after some iterations."""


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


class TapirRecipe:
    """TAPIR: matching over the whole frame from the first step on."""

    teacher = "tapir"
    schedule = ScheduleConfig(
        learning_rate=1.2e-3, weight_decay=1e-2, clip_norm=1.0, warm_up=0.03, frozen=None
    )
    stages = (
        Stage(1000, PAIRS, pretraining=True),
        Stage(4000, ViewConfig(batch=2, frames=16, size=128, points=64)),
        Stage(1200, ViewConfig(batch=1, frames=16, size=256, points=64)),
    )
    # as steep as published beyond 4 px, and down to a quarter of a pixel
    loss_config = TapirLossConfig(position=0.8, huber_px=0.25)

    def network(self) -> Tapir:
        return Tapir(TapirConfig.mini())

    def losses(
        self, model: Tapir, batch: Batch, start: Tensor, pretraining: bool
    ) -> dict[str, Tensor]:
        frames = batch.frames.permute(0, 1, 4, 2, 3)
        size = (frames.shape[-2], frames.shape[-1])
        model.config = replace(model.config, raster=size[0])
        corner = batch.queries + torch.tensor([0, 0.5, 0.5])
        features = model.encode(frames, [size], MEMORY)
        described = model.describe(features, corner, size)
        # the grid of stride 2 is too fine to tell a point from all others
        parts = zip(
            features[0].grids[-2:],
            described[0].split(model.config.channels, -1)[-2:],
            strict=True,
        )
        weight = between_frames(batch)
        matching = [
            matching_loss(grid, points, (batch.xy + 0.5) * grid.shape[2] / size[0] - 0.5, weight)
            for grid, points in parts
        ]
        losses = {"matching": torch.stack(matching).mean()}
        if pretraining:
            return losses
        steps = model.track(features, described, size, corner, memory=MEMORY).steps
        found = tapir_losses(
            steps,
            TapirTargets(batch.xy + 0.5, ~batch.visible),
            (RASTER, RASTER),
            self.loss_config,
        )
        return {"matching": 0.1 * losses["matching"]} | vars(found)


class CoTracker3Recipe:
    """CoTracker3 offline: local correlation on a pyramid, from the query's place in every frame."""

    teacher = "cotracker3-offline"
    schedule = ScheduleConfig(
        learning_rate=1e-3, weight_decay=1e-3, clip_norm=1.0, warm_up=0.03, frozen=None
    )
    stages = (
        Stage(450, PAIRS, pretraining=True),
        Stage(250, ViewConfig(batch=2, frames=8, size=128, points=32, stride=1)),
        Stage(350, ViewConfig(batch=2, frames=8, size=128, points=48), start="near"),
        Stage(950, ViewConfig(batch=1, frames=16, size=128, points=48), start="between"),
        Stage(80, ViewConfig(batch=1, frames=24, size=160, points=48)),
    )
    iterations = 3

    def network(self) -> CoTracker3:
        return CoTracker3(CoTracker3Config.mini())

    def losses(
        self, model: CoTracker3, batch: Batch, start: Tensor, pretraining: bool
    ) -> dict[str, Tensor]:
        pyramid = model.encode(batch.frames.permute(0, 1, 4, 2, 3), MEMORY)
        frame, weight = batch.queries[..., :1].long(), between_frames(batch)
        matching = []
        for level, grid in enumerate(pyramid):
            cells = STRIDE * 2**level
            points = sample_windows(grid, frame, batch.queries[..., None, 1:] / cells, 0)[
                :, :, 0, 0
            ]
            matching.append(
                matching_loss(grid, F.normalize(points, dim=-1), batch.xy / cells, weight)
            )
        losses = {"matching": torch.stack(matching).mean()}
        if pretraining:
            return losses
        unknown = torch.zeros_like(start[..., 0])
        windows = model.query_windows(pyramid, batch.queries)
        found = model.refine(pyramid, windows, start, unknown, unknown, self.iterations, MEMORY)
        return {
            "matching": 0.1 * losses["matching"],
            "position": 0.3 * position_loss([found], batch.xy, batch.visible.float(), FINE_HUBER),
            "occluded": 0.01
            * position_loss([found], batch.xy, (~batch.visible).float(), torch.abs),
            "visibility": visibility_loss([found], batch.visible),
            "confidence": confidence_loss([found], batch.xy, batch.visible),
        }


Recipe = TapirRecipe | CoTracker3Recipe
RECIPES: dict[str, Callable[[], Recipe]] = {"tapir": TapirRecipe, "cotracker3": CoTracker3Recipe}


def steps_of(recipe: Recipe, more: int | None) -> list[Stage]:
    """The stage of every step: all stages, or the longest one for `more` steps."""
    stages: tuple[Stage, ...] = recipe.stages
    if more is not None:
        longest = max(stages, key=lambda stage: stage.steps)
        stages = (replace(longest, steps=more),)
    return [stage for stage in stages for _ in range(stage.steps)]


def train(
    recipe: Recipe,
    pool: Path,
    out: Path,
    seed: int,
    init: Path | None = None,
    more: int | None = None,
    learning_rate: float | None = None,
) -> None:
    """Go through the recipe's stages, from the checkpoint in `out` if there is one; or take the
    weights in `init` and train them for `more` steps of its longest stage."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = recipe.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if init is not None:
        model.load_state_dict(safetensors.torch.load_file(init))
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    plan = steps_of(recipe, more)
    lengths = [
        max(1, sum(stage.pretraining is wanted for stage in plan)) for wanted in (True, False)
    ]
    schedule = recipe.schedule
    if learning_rate is not None:
        schedule = replace(schedule, learning_rate=learning_rate)
    optimisers = [Optimiser(model, replace(schedule, steps=length)) for length in lengths]
    step, checkpoint = 0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step = state["step"]
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    said, sums = time.perf_counter(), dict[str, float]()
    while step < len(plan):
        stage = plan[step]
        rng = np.random.default_rng((seed, step))
        batch = draw_view(pool, rng, stage.view)
        start = torch.from_numpy(start_xy(batch, stage.start, rng))
        losses = recipe.losses(model, batch, start, stage.pretraining)
        total = torch.stack(list(losses.values())).sum()
        optimiser = optimisers[0 if stage.pretraining else 1]
        if total.isfinite():
            total.backward()
            optimiser.step()
            mean.update_parameters(model)
        step += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item() / SAY_EVERY
        if step % SAY_EVERY == 0:
            now = time.perf_counter()
            pace = {"step": step, "s_per_step": (now - said) / SAY_EVERY}
            _say(pace | {"learning_rate": optimiser.learning_rate} | sums, out)
            said, sums = now, {}
        if step % SAVE_EVERY == 0 or step == len(plan):
            state = {
                "step": step,
                "model": model.state_dict(),
                "mean": mean.state_dict(),
                "optimisers": [each.state_dict() for each in optimisers],
            }
            partial = checkpoint.with_suffix(".part")
            torch.save(state, partial)
            os.replace(partial, checkpoint)
            export(recipe, mean.module, out / f"{recipe.teacher}-mini.safetensors", step)
    print(calibrate(out / f"{recipe.teacher}-mini.safetensors", CALIBRATION_CLIPS))


def _say(row: dict[str, float], out: Path) -> None:
    with open(out / "curve.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def export(recipe: Recipe, model: nn.Module, path: Path, step: int) -> None:
    """Weights with the sizes of their network, as `teachers.load(..., checkpoint=path)` takes
    them."""
    weights = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    metadata = {
        TEACHER: recipe.teacher,
        CONFIG: json.dumps(asdict(recipe.network().config)),
        LICENCE: "Apache-2.0",
        "step": str(step),
    }
    partial = path.with_suffix(".part")
    partial.write_bytes(safetensors.torch.save(weights, metadata))
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["render", *RECIPES])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--init", type=Path, help="weights of this network to begin with")
    parser.add_argument("--more", type=int, help="so many steps of the longest stage, from --init")
    parser.add_argument("--learning-rate", type=float, help="its peak, instead of the recipe's")
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.what == "render":
        render_pool(arguments.pool, arguments.clips)
    else:
        train(
            RECIPES[arguments.what](),
            arguments.pool,
            arguments.out,
            arguments.seed,
            arguments.init,
            arguments.more,
            arguments.learning_rate,
        )


if __name__ == "__main__":
    main()
