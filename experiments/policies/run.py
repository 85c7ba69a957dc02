"""Run: labels first, then every training, each in a process of its own; the tables at the end."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any

from experiments import files
from experiments.policies.config import LEARNERS, WITH_TRUTH, Experiment, StudentName, World
from experiments.policies.labels import (
    make_labels,
    make_labels_with_truth,
    score_labels,
    teachers_here,
    weights_of_teachers,
)
from experiments.policies.scores import (
    comparison_table,
    difference_table,
    figures_of,
    gain_table,
    lessons,
    policy_table,
    score,
    score_rules,
    scored,
    tracker_table,
)
from experiments.policies.students import Lesson, taught
from labeler.fingerprint import one_thread
from pipelines.terminal.console import say

FREE = ("out", "worlds", "students", "policies", "seeds", "workers")
"""Settings that may be others when the same command goes on: each training has a folder of its
own."""


def run(experiment: Experiment) -> None:
    """Do what is left to do, and print the tables."""
    began = time.monotonic()
    names = teachers_here()
    freeze(experiment, names)
    worlds = experiment.worlds
    students = [(experiment, world, name) for world in worlds for name in experiment.students]
    todo = sorted((each for of in students for each in lessons(*of)), key=lambda each: each.seed)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(experiment.workers, context) as pool:
        all_done(pool, "labelled", prepare, ((experiment, world, names) for world in worlds))
        all_done(pool, "trained", learn, ((experiment, lesson) for lesson in todo))
        all_done(pool, "scored the rules of", score_rule, students)
    for world in worlds:
        say(policy_table(score_labels(experiment, world), world))
        of_teachers = {name: scored(experiment, world, name) for name in names}
        say(tracker_table(experiment, world, of_teachers))
        say(difference_table(experiment, world, of_teachers))
        say(gain_table(experiment, world, of_teachers))
        if len(experiment.policies) > 1:
            say(comparison_table(experiment, world))
    say(f"{time.monotonic() - began:.0f} s")


def all_done(
    pool: ProcessPoolExecutor,
    what: str,
    work: Callable[..., str],
    tasks: Iterable[tuple[Any, ...]],
) -> None:
    """Wait for all, and say what is done and how long the rest will take."""
    began = time.monotonic()
    futures = [pool.submit(work, *task) for task in tasks]
    for done, future in enumerate(as_completed(futures), 1):
        try:
            name = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        left_s = (time.monotonic() - began) / done * (len(futures) - done)
        say(f"{what} {name}: {done} of {len(futures)}, about {left_s / 60:.0f} min left")


def prepare(experiment: Experiment, world: World, names: tuple[str, ...]) -> str:
    """The labels of a world, and the scores of its teachers."""
    with one_thread():
        make_labels(experiment, world, names)
        for policy in WITH_TRUTH:
            if policy in experiment.policies:
                make_labels_with_truth(experiment, world, policy)
        for name in names:
            score(experiment, world, name, name)
    return world


def learn(experiment: Experiment, lesson: Lesson) -> str:
    """A student, and its scores."""
    with one_thread():
        if not figures_of(experiment, lesson.world, str(lesson)).exists():
            score(experiment, lesson.world, str(lesson), taught(experiment, lesson))
    return f"{lesson} in world {lesson.world!r}"


def score_rule(experiment: Experiment, world: World, student: StudentName) -> str:
    """What a student began with, under the visible rules that its students have."""
    with one_thread():
        score_rules(experiment, world, student)
    return f"{student} in world {world!r}"


def freeze(experiment: Experiment, names: tuple[str, ...]) -> None:
    """Write down the settings and teachers, so that a folder holds one experiment; a ConfigError if
    it holds another."""
    settings = {name: value for name, value in asdict(experiment).items() if name not in FREE} | {
        "teachers": names,
        "weights": weights_of_teachers(names),
        "learners": {name: asdict(learner) for name, learner in LEARNERS.items()},
    }
    files.freeze(experiment.out / "experiment.json", settings)
