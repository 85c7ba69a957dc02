"""How a student grows with the number of clips and steps: the longer form of the experiment.

    python -m experiments.policies.curve --out OUT            # a night on two cores
    python -m experiments.policies.curve --out OUT --quick    # a minute, measures nothing

CoTracker3's figure 1 is its model: more unlabelled videos, a better student. Videos of one world
are labelled in parts of the same size, and `tapir-mini` learns by one policy from the first part,
the first three, all ten, each for so many steps, with a schedule of its own that ends there. Every
student is scored on the test clips of the experiment. Killed, the same command goes on; one that
names more `--steps` or `--clips` does only what is new.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import tyro
from rich.table import Table

from experiments.policies.config import TEST_SEED, Experiment, StudentName, World
from experiments.policies.labels import draw_videos, label_videos, teachers_here
from experiments.policies.run import all_done, freeze
from experiments.policies.scores import (
    differences,
    explained,
    figures_of,
    new_table,
    score,
    scored,
    with_intervals,
)
from experiments.policies.students import Lesson, training
from labeler.fingerprint import one_thread
from labeler.labels.policies import Policy
from pipelines.terminal.console import say
from student.evaluation.evaluate import FIGURES
from student.training.train import train
from teachers import ConfigError, TapdistillError

STUDENT: StudentName = "tapir-mini"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Teach a student with ever more clips and steps."""

    out: Path
    """Folder for everything."""
    world: World = "drawn"
    policy: Policy = "verified"
    """Label policy."""
    clips: tuple[int, ...] = (100, 300, 1000)
    """Videos to learn from; multiples of --part."""
    steps: tuple[int, ...] = (300, 1000, 3000)
    """Of a training; 1000 take a quarter of an hour of a core."""
    part: int = 100
    """Videos that are labelled together, a quarter of an hour of a core."""
    workers: int = 2
    """Processes, one thread each."""
    quick: bool = False
    """So small that it takes a minute."""

    def __post_init__(self) -> None:
        for name in ("clips", "steps"):
            if min(getattr(self, name), default=0) < 1:
                raise ConfigError(f"--{name}: name at least one, of at least 1.")
        if self.part < 1 or self.workers < 1:
            raise ConfigError("--part and --workers: at least 1.")
        if any(count % self.part or count > TEST_SEED for count in self.clips):
            raise ConfigError(
                f"--clips {self.clips}: must be multiples of --part {self.part}, at most "
                f"{TEST_SEED}; those after them are scored on."
            )

    def sized(self) -> tuple[Curve, Experiment]:
        """What is really done."""
        experiment = Experiment(
            out=self.out,
            worlds=(self.world,),
            students=(STUDENT,),
            policies=(self.policy,),
            seeds=1,
            night=not self.quick,
            quick=self.quick,
        ).sized()
        if not self.quick:
            return self, replace(experiment, clips=self.part)
        few = experiment.clips
        return replace(self, clips=(few, 2 * few), steps=(2,), part=few, workers=1), experiment

    def lessons(self) -> list[tuple[int, int]]:
        """(clips, steps) of each training, the cheap ones first."""
        return [(clips, steps) for steps in sorted(self.steps) for clips in sorted(self.clips)]


def run(curve: Curve) -> None:
    """Do what is left to do, and print the table."""
    curve, experiment = curve.sized()
    names = teachers_here()
    freeze(experiment, names)
    tasks = [(experiment, part, names) for part in range(max(curve.clips) // curve.part)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(curve.workers, context) as pool:
        all_done(pool, "labelled", prepare, tasks)
        all_done(pool, "trained", learn, [(curve, experiment, *task) for task in curve.lessons()])
    say(table(curve, experiment))


def prepare(experiment: Experiment, part: int, names: tuple[str, ...]) -> str:
    """The labels of one part of the videos."""
    (world,), count = experiment.worlds, experiment.clips
    folder = _part(experiment, part)
    with one_thread():
        seeds = range(part * count, (part + 1) * count)
        draw_videos(folder / "videos", experiment.videos(world), seeds)
        label_videos(experiment, folder / "videos", folder / "labels", names)
        if part == 0:
            score(experiment, world, STUDENT, STUDENT)
    return folder.name


def learn(curve: Curve, experiment: Experiment, clips: int, steps: int) -> str:
    """A student, and its scores."""
    (world,), name = experiment.worlds, _name(curve, clips, steps)
    data = [str(_part(experiment, part) / "labels") for part in range(clips // curve.part)]
    with one_thread():
        if not figures_of(experiment, world, name).exists():
            lesson = Lesson(world, STUDENT, curve.policy, seed=0)
            config = training(replace(experiment, steps=steps), lesson, tuple(data))
            student = train(config, experiment.folder(world) / "students" / name)
            score(experiment, world, name, student.weights)
    return name


def table(curve: Curve, experiment: Experiment) -> Table:
    """A row per training: its figures, and what it added to those of the weights that it began
    with."""
    (world,) = experiment.worlds
    began = scored(experiment, world, STUDENT)
    title = f"{STUDENT} taught by {curve.policy!r}, %, world {world!r}"
    gains = [f"{figure}, gain" for figure in FIGURES]
    rows = new_table(title, ("clips", "steps"), (*FIGURES, *gains))
    rows.add_row("", "0", *_means(began))
    for clips, steps in curve.lessons():
        scores = scored(experiment, world, _name(curve, clips, steps))
        gained = with_intervals(differences([scores], [began]))
        rows.add_row(f"{clips:,}", f"{steps:,}", *_means(scores), *gained)
    return explained(rows)


def _means(scores: pd.DataFrame) -> list[str]:
    return [f"{100 * scores[figure].mean():.1f}" for figure in FIGURES]


def _name(curve: Curve, clips: int, steps: int) -> str:
    return f"{STUDENT}-{curve.policy}-{clips}-clips-{steps}-steps"


def _part(experiment: Experiment, part: int) -> Path:
    (world,) = experiment.worlds
    return experiment.folder(world) / f"part-{part:04d}"


def main() -> None:
    try:
        run(tyro.cli(Curve, description=__doc__))
    except TapdistillError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
