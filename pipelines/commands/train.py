"""tapdistill train: train a student on labelled shards, synthetic video, or both.

    read batches (`student.data.mixture`) -> train (`student.training.train`)
        -> checkpoints, TensorBoard curves, and student.safetensors in --out

It runs in one process by default; `--workers N` starts N on Ray, and torchrun may start them
instead. Running the same command again continues from the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

import student
from pipelines.terminal.console import say
from pipelines.terminal.flags import UNPREFIXED, parse
from pipelines.terminal.training import TrainProgress, clips_of
from pipelines.wording import duration
from student.data.config import DataConfig
from student.data.order import parts_of_step
from student.training.config import SCRATCH, TrainConfig
from student.training.events import TrainEvent, TrainResult
from student.training.processes import ALONE, joined_by_torchrun, under_torchrun
from student.training.schedule import ScheduleConfig
from student.training.train import training
from teachers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a student on the data sets that `tapdistill label` wrote, on synthetic video, or on a
    mixture.

    Running the same command again continues from the last checkpoint. Losses, steps, and optimiser
    are by default those of CoTracker3's pseudo-label training; all of its settings, and those of
    others, are in recipes, for --recipe: cotracker3_15k_online, cotracker3_15k_offline, tapir,
    bootstapir, tapir_mini, tapir_mini_real, cotracker3_mini, mini, mini_online.
    """

    RECIPES: ClassVar[Path] = Path(student.__file__).parent / "recipes"

    out: str
    """Folder, or any fsspec URL, for checkpoints, TensorBoard curves, and student.safetensors."""
    data: Annotated[DataConfig, UNPREFIXED, tyro.conf.AvoidSubcommands]
    schedule: Annotated[ScheduleConfig, UNPREFIXED] = field(
        default_factory=ScheduleConfig.pseudo_label
    )
    resume: Annotated[
        bool,
        tyro.conf.arg(
            help="Do not continue from the newest checkpoint in --out, but refuse a folder that "
            "has one.",
            help_behavior_hint="",
        ),
    ] = True
    """Continue from the newest checkpoint in --out; otherwise, a folder that has one is refused."""
    workers: int = 1
    """Processes that train together, started on Ray: each on a GPU of its own if the cluster has
    any, and then at most as many as it has; otherwise on CPUs."""
    ray_address: str | None = None
    """Address of a running Ray cluster; without it, Ray is started on this machine. Only with
    --workers above 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise ConfigError("--out: is empty. Name a folder.")
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: must be at least 1.")
        if self.ray_address and self.workers == 1:
            raise ConfigError(
                "--ray-address: one process needs no cluster; give --workers above 1 too."
            )

    def training(self) -> TrainConfig:
        """The settings without those of the command line."""
        return TrainConfig(
            **{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__}
        )


def recipe(name: str, *flags: str, out: Path) -> TrainCommand:
    """The settings of `tapdistill train --recipe NAME` with further flags, in the folder `out`."""
    return parse(TrainCommand, "tapdistill train", ["--recipe", name, "--out", str(out), *flags])


def run(command: TrainCommand) -> int:
    """The command: train, and print where the student is."""
    config = command.training()
    if os.path.realpath(command.out) in map(os.path.realpath, config.data.data):
        raise ConfigError(f"--out {command.out}: is the data set to learn from; name another.")
    if under_torchrun():
        return _run_under_torchrun(command, config)
    if command.workers == 1:
        result = run_training(config, command.out, resume=command.resume)
    else:
        from pipelines.engines.ray_training import trained_on_ray  # here, because it imports ray

        # checked before a cluster is started for nothing
        parts_of_step(config.data, command.workers)
        with trained_on_ray(
            config, command.out, command.resume, command.workers, command.ray_address
        ) as events:
            result = shown(config, command.out, events, command.workers)
    _say_what_next(result, command.out)
    return 0


def run_training(
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = True,
    watch: Callable[[TrainEvent], None] = lambda event: None,
) -> TrainResult:
    """Train in this process with a progress bar, and print the summary; `watch` is called with
    every event, beside the bar."""
    with closing(training(config, out, resume, ALONE)) as events:
        return shown(config, out, events, 1, watch)


def shown(
    config: TrainConfig,
    out: Path | str,
    events: Iterable[TrainEvent | TrainResult],
    processes: int,
    watch: Callable[[TrainEvent], None] = lambda event: None,
) -> TrainResult:
    """Print what will be trained, show what happens, and print the summary."""
    _say_what_is_trained(config, out, processes)
    with TrainProgress(config.schedule.steps) as progress:
        for event in events:
            if isinstance(event, TrainResult):
                result = event
                break
            progress.show(event)
            watch(event)
    _print_summary(result)
    return result


def _run_under_torchrun(command: TrainCommand, config: TrainConfig) -> int:
    """Train as one of the processes that torchrun started; only the first one prints."""
    if command.workers > 1:
        raise ConfigError(
            "--workers under torchrun: torchrun starts the processes; leave --workers out."
        )
    with (
        joined_by_torchrun(config.device) as processes,
        closing(training(config, command.out, command.resume, processes)) as events,
    ):
        if processes.first:
            _say_what_next(shown(config, command.out, events, processes.world), command.out)
        else:
            for _ in events:
                pass
    return 0


def _say_what_is_trained(config: TrainConfig, out: Path | str, processes: int) -> None:
    data = config.data
    sources = (
        [f"{1 - data.synthetic:.0%} from {', '.join(data.data)}"]
        if data.data and data.synthetic < 1
        else []
    )
    sources += [f"{data.procedural:.0%} procedural"] if data.procedural else []
    sources += [f"{data.kubric_share:.0%} from Kubric at {data.kubric}"] if data.kubric else []
    begins = "random weights" if config.init == SCRATCH else config.init
    frames = f"{data.least_frames}-{data.frames}" if data.least_frames else f"{data.frames}"
    together = f" in {processes} processes" if processes > 1 else ""
    say(
        f"{config.student} student: {config.schedule.steps} steps of {data.batch} x {frames} "
        f"frames of {data.width} x {data.height} px with {data.queries} points{together}, clips "
        f"{' and '.join(sources)}, beginning with {begins}, visibility {config.visibility_choice} "
        f"-> {out}"
    )


def _print_summary(result: TrainResult) -> None:
    skipped = ", ".join(
        f"{count} {reason}" for reason, count in result.samples_skipped.most_common()
    )
    say(
        f"{result.steps} steps done in {duration(result.seconds)}, "
        f"{result.waited_s / max(result.seconds, 1e-9):.0%} of it waiting for data"
        + (f"; {result.steps_skipped} steps skipped" if result.steps_skipped else "")
        + (f"; samples skipped: {skipped}" if skipped else "")
        + (f"; {result.left_out} clips left out from the start" if result.left_out else "")
    )
    if result.figures:
        say(
            f"{clips_of(result.figures)}: "
            + ", ".join(f"{name} {100 * value:.1f}" for name, value in result.figures.items())
        )
    say(f"student: {result.weights}")


def _say_what_next(result: TrainResult, out: Path | str) -> None:
    say(
        f"evaluate it with `tapdistill eval --model {result.weights}`; curves: `tensorboard "
        f"--logdir {out}`"
    )
