"""Train a mini teacher from nothing on procedural video, on one CPU core.

    python -m experiments.minis.train render --pool POOL
    python -m experiments.minis.train tapir --pool POOL --out OUT
    python -m experiments.minis.train cotracker3 --pool POOL --out OUT
    python -m experiments.minis.train tapir --pool POOL --out OUT --init FILE --more 4200

First the encoder learns to match points between frames of a clip (cheap, see
`student.training.losses_matching`), then the whole network learns to track: small frames at first,
frames of the size it is meant for at the end. The learning rate falls along a cosine, nearly to 0.
What is shipped is a running mean of the weights, with the visible rule that fits it
(`experiments.minis.calibrate`). Killed and started again, it goes on from its last checkpoint; once
finished, it only says again which rule was found.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.files import write_whole
from experiments.minis.calibrate import calibrate
from experiments.minis.pool import draw_view, render_pool
from experiments.minis.recipes import RECIPES, Recipe, Stage, start_xy, steps_of
from student.training.schedule import Optimiser
from teachers.checkpoints.files import CONFIG, LICENCE, TEACHER
from teachers.errors import ConfigError, TapdistillError
from teachers.hashing import file_sha256

EMA_DECAY = 0.995
SAVE_EVERY, SAY_EVERY = 50, 50
MOST_SKIPPED = 20
CALIBRATION_CLIPS = 12


@dataclass
class State:
    """A training between two steps."""

    model: nn.Module
    mean: AveragedModel
    """The running mean of its weights."""
    optimisers: tuple[Optimiser, Optimiser]
    """For pretraining, and for the rest."""
    settings: dict[str, Any]
    """Those on which the weights depend."""
    step: int = 0
    skipped: int = 0
    """Steps in a row that moved nothing."""

    def load(self, checkpoint: Path) -> None:
        stored = torch.load(checkpoint, weights_only=True)
        if stored["settings"] != self.settings:
            raise ConfigError(
                f"{checkpoint} is of a training with {stored['settings']}, not {self.settings}: "
                "give another --out."
            )
        self.step = stored["step"]
        self.model.load_state_dict(stored["model"])
        self.mean.load_state_dict(stored["mean"])
        for optimiser, saved in zip(self.optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def save(self, checkpoint: Path) -> None:
        content = io.BytesIO()
        state = {
            "step": self.step,
            "settings": self.settings,
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
        }
        torch.save(state, content)
        write_whole(checkpoint, content.getvalue())

    def learn(self, losses: Mapping[str, Tensor], optimiser: Optimiser) -> None:
        """Take a step, unless the loss or its gradient is not finite.

        Raises:
            ConfigError: that was so `MOST_SKIPPED` times in a row.
        """
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        norm = get_total_norm([each.grad for each in optimiser.parameters if each.grad is not None])
        self.step += 1
        if total.isfinite() and norm.isfinite():
            optimiser.step()
            self.mean.update_parameters(self.model)
            self.skipped = 0
            return
        self.model.zero_grad()
        self.skipped += 1
        if self.skipped == MOST_SKIPPED:
            raise ConfigError(
                f"the loss or its gradient was not finite {self.skipped} times in a row, to step "
                f"{self.step}: training stops. Try a lower --learning-rate, or --init with weights "
                "that are finite."
            )


def begun(
    recipe: Recipe[Any],
    plan: Sequence[Stage],
    seed: int,
    init: Path | None,
    learning_rate: float | None,
) -> State:
    """A training before its first step, for which `plan` has the stage of every step."""
    torch.manual_seed(seed)
    model = recipe.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if init is not None:
        model.load_state_dict(safetensors.torch.load_file(init))
    schedule = recipe.schedule(learning_rate)
    first, rest = (
        Optimiser(
            model,
            replace(schedule, steps=max(1, sum(stage.pretraining is wanted for stage in plan))),
        )
        for wanted in (True, False)
    )
    return State(
        model=model,
        mean=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY)),
        optimisers=(first, rest),
        settings={
            "seed": seed,
            "init": None if init is None else file_sha256(init),
            "plan": [str(stage) for stage in dict.fromkeys(plan)],
            "steps": len(plan),
            "learning_rate": schedule.learning_rate,
        },
    )


def train(
    recipe: Recipe[Any],
    pool: Path,
    out: Path,
    seed: int,
    init: Path | None = None,
    more: int | None = None,
    learning_rate: float | None = None,
    stage: int | None = None,
) -> None:
    """Go through the recipe's stages, from the checkpoint in `out` if there is one; or take the
    weights in `init` and train them for `more` steps of one stage, see `steps_of`.

    Raises:
        ConfigError: `out` holds another training, or the loss stays NaN.
    """
    out.mkdir(parents=True, exist_ok=True)
    plan, checkpoint = steps_of(recipe, more, stage), out / "checkpoint.pt"
    state = begun(recipe, plan, seed, init, learning_rate)
    if checkpoint.exists():
        state.load(checkpoint)
    weights, rule = out / f"{recipe.teacher}-mini.safetensors", out / "visible_rule.txt"
    if state.step < len(plan):
        rule.unlink(missing_ok=True)
    said, sums = time.perf_counter(), dict[str, float]()
    while state.step < len(plan):
        current = plan[state.step]
        rng = np.random.default_rng((seed, state.step))
        batch = draw_view(pool, rng, current.view)
        start = torch.from_numpy(start_xy(batch, current.start, rng))
        losses = recipe.losses(state.model, batch, start, current.pretraining)
        optimiser = state.optimisers[0 if current.pretraining else 1]
        state.learn(losses, optimiser)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item() / SAY_EVERY
        if state.step % SAY_EVERY == 0:
            s_per_step = (time.perf_counter() - said) / SAY_EVERY
            pace = {"step": state.step, "s_per_step": s_per_step}
            _say(pace | {"learning_rate": optimiser.learning_rate} | sums, out)
            said, sums = time.perf_counter(), {}
        if state.step % SAVE_EVERY == 0 or state.step == len(plan):
            export(recipe, state.mean.module, weights, state.step)
            state.save(checkpoint)  # last: a finished training exports no more
    print(_visible_rule(rule, weights))


def _visible_rule(file: Path, weights: Path) -> str:
    """What the calibration of a finished training found; written down, so that it is done once."""
    if not file.exists():
        write_whole(file, str(calibrate(weights, CALIBRATION_CLIPS)).encode())
    return file.read_text()


def _say(row: dict[str, float], out: Path) -> None:
    with open(out / "curve.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def export(recipe: Recipe[Any], model: nn.Module, path: Path, step: int) -> None:
    """Weights with the sizes of their network, as `teachers.load(..., checkpoint=path)` takes
    them."""
    weights = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    metadata = {
        TEACHER: recipe.teacher,
        CONFIG: json.dumps(asdict(recipe.network().config)),
        LICENCE: "Apache-2.0",
        "step": str(step),
    }
    write_whole(path, safetensors.torch.save(weights, metadata))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["render", *RECIPES])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--init", type=Path, help="weights of this network to begin with")
    parser.add_argument("--more", type=int, help="so many steps of one stage, from --init")
    parser.add_argument("--stage", type=int, help="its number, from 0; else the longest")
    parser.add_argument("--learning-rate", type=float, help="its peak, instead of the recipe's")
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what != "render" and arguments.out is None:
        parser.error("a training needs --out, the folder for its checkpoint and weights")
    if arguments.stage is not None and arguments.more is None:
        parser.error("--stage is the stage of --more steps: give --more too")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.what == "render":
        render_pool(arguments.pool, arguments.clips)
    else:
        try:
            train(
                RECIPES[arguments.what](),
                arguments.pool,
                arguments.out,
                arguments.seed,
                arguments.init,
                arguments.more,
                arguments.learning_rate,
                arguments.stage,
            )
        except TapdistillError as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
