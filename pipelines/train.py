"""tapdistill train: a student learns from labelled shards, procedural video, or both.

    read batches (`student.mixture`) -> train (`student.train`) -> checkpoints, TensorBoard curves, and student.safetensors in --out

The same command again goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.console import say
from pipelines.progress import duration
from pipelines.train_progress import TrainProgress
from student.mixture import DataConfig
from student.schedule import ScheduleConfig
from student.train import train
from student.train_config import SCRATCH, TrainConfig
from student.train_events import TrainEvent, TrainResult

Unprefixed = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a student on the data sets that `tapdistill label` wrote, on procedural video, or on a mixture.

    The same command again goes on from the last checkpoint. The defaults are CoTracker3's pseudo-label training.
    """

    out: Path
    """Folder for checkpoints, TensorBoard curves, and student.safetensors."""
    data: Annotated[DataConfig, Unprefixed, tyro.conf.AvoidSubcommands]
    schedule: Annotated[ScheduleConfig, Unprefixed] = field(default_factory=ScheduleConfig.pseudo_label)
    resume: bool = True
    """Go on from the newest checkpoint in --out; otherwise a folder that has one is refused."""

    def training(self) -> TrainConfig:
        """The settings without those of the command line."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


def run(command: TrainCommand) -> int:
    """The command: train, and say where the student is."""
    result = run_training(command.training(), command.out, resume=command.resume)
    say(f"evaluate it with `tapdistill eval --model {result.weights}`; curves: `tensorboard --logdir {command.out}`")
    return 0


def run_training(
    config: TrainConfig, out: Path, *, resume: bool = True, watch: Callable[[TrainEvent], None] | None = None
) -> TrainResult:
    """Train with a progress bar, and print the summary; `watch` is called with every event, beside the bar."""
    data = config.data
    sources = [f"{1 - data.procedural:.0%} from {', '.join(data.data)}"] if data.data and data.procedural < 1 else []
    sources += [f"{data.procedural:.0%} procedural"] if data.procedural else []
    begins = "random weights" if config.init == SCRATCH else config.init
    say(
        f"{config.schedule.steps} steps of {data.batch} x {data.frames} frames of {data.width} x {data.height} px with {data.queries} "
        f"points, clips {' and '.join(sources)}, beginning with {begins} -> {out}"
    )
    with TrainProgress(config.schedule.steps) as progress:

        def show(event: TrainEvent) -> None:
            progress.show(event)
            if watch:
                watch(event)

        result = train(config, out, resume=resume, watch=show)
    _print_summary(result)
    return result


def _print_summary(result: TrainResult) -> None:
    skipped = ", ".join(f"{count} {reason}" for reason, count in result.samples_skipped.most_common())
    say(
        f"{result.steps} steps done in {duration(result.seconds)}, {result.waited_s / max(result.seconds, 1e-9):.0%} of it waiting for data"
        + (f"; {result.steps_skipped} steps skipped" if result.steps_skipped else "")
        + (f"; samples skipped: {skipped}" if skipped else "")
    )
    if result.figures:
        say("procedural test clips: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in result.figures.items()))
    say(f"student: {result.weights}")
