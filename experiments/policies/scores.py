"""Scores: who tracks how well on clips that nobody learnt from, and what a student is above."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from experiments.policies.config import WORLDS, Experiment, StudentName, World
from experiments.policies.labels import MODE
from experiments.policies.students import Lesson
from labeler.labels.policies import Policy
from pipelines.tracking.trackers import load_tracker
from student.evaluation.evaluate import FIGURES, score_tracks, track_clips, with_interval
from student.evaluation.labels import LABEL_FIGURES
from student.synth.scene import generate

TEST_SEED = 10_000
"""Of the first clip to score on; those to learn from begin at 0."""


def score(experiment: Experiment, world: World, name: str, tracker: str | Path) -> None:
    """Write a row per test clip to a file, unless it is there."""
    file = figures_of(experiment, world, name)
    if not file.exists():
        seeds = range(TEST_SEED, TEST_SEED + experiment.test_clips)
        clips = [generate(seed, WORLDS[world]) for seed in seeds]
        teacher = load_tracker(str(tracker), mode=MODE)
        tracks, _ = track_clips(teacher, clips)
        rows = score_tracks(tracks, teacher.info.rule, clips)[list(FIGURES)].to_dict("records")
        file.parent.mkdir(exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(rows, indent=1))
        partial.rename(file)


def scored(experiment: Experiment, world: World, name: str) -> pd.DataFrame:
    """A row per test clip."""
    return pd.DataFrame(json.loads(figures_of(experiment, world, name).read_text()))


def figures_of(experiment: Experiment, world: World, name: str) -> Path:
    return experiment.folder(world) / "scores" / f"{name}.json"


def mean_over_seeds(
    experiment: Experiment, world: World, student: StudentName, policy: Policy
) -> pd.DataFrame:
    """A row per test clip: the mean of the students that were trained with different seeds."""
    lessons = [Lesson(world, student, policy, seed) for seed in range(experiment.seeds)]
    tables = [scored(experiment, world, str(lesson)) for lesson in lessons]
    return sum(tables[1:], tables[0]) / len(tables)


def policy_table(labels: pd.DataFrame, world: World) -> Table:
    figures = [name if name.endswith("_px") else f"{name}, %" for name in LABEL_FIGURES]
    table = new_table(f"what each policy teaches, world {world!r}", ("policy",), figures)
    for row in labels.to_dict("records"):
        cells = [
            f"{row[name]:.2f}" if name.endswith("_px") else f"{100 * row[name]:.1f}"
            for name in LABEL_FIGURES
        ]
        table.add_row(row["policy"], *cells)
    return table


def tracker_table(
    experiment: Experiment, world: World, of_teachers: Mapping[str, pd.DataFrame]
) -> Table:
    """Teachers: mean over clips and its 95 % interval. Students: mean over seeds, and their least
    and most."""
    table = new_table(f"who tracks how well, %, world {world!r}", ("tracker", "taught by"), FIGURES)
    for name, scores in of_teachers.items():
        intervals = (with_interval(100 * scores[figure]) for figure in FIGURES)
        table.add_row(
            name, "", *(f"{mean:.1f} ({low:.1f}-{high:.1f})" for mean, low, high in intervals)
        )
    for student in experiment.students:
        for policy in experiment.policies:
            means = [
                100 * scored(experiment, world, str(Lesson(world, student, policy, seed))).mean()
                for seed in range(experiment.seeds)
            ]
            cells = [np.array([mean[figure] for mean in means]) for figure in FIGURES]
            table.add_row(
                student,
                policy,
                *(f"{cell.mean():.1f} [{cell.min():.1f}-{cell.max():.1f}]" for cell in cells),
            )
    table.caption = (
        f"(95 % interval over {experiment.test_clips} clips)  [least-most of {experiment.seeds} "
        "seeds]"
    )
    table.caption_justify = "left"
    return table


def differences(scores: pd.DataFrame, others: pd.DataFrame) -> list[tuple[float, float, float]]:
    """(mean, low, high) in points for each figure: one tracker minus another, paired over clips,
    and its 95 % bootstrap interval."""
    return [with_interval(100 * (scores[figure] - others[figure])) for figure in FIGURES]


def difference_table(
    experiment: Experiment, world: World, of_teachers: Mapping[str, pd.DataFrame]
) -> Table:
    """Student minus the teacher that is best in each figure, and how many teachers it is above in
    all three, each interval above 0."""
    table = new_table(
        f"student minus the best teacher in each figure, points, world {world!r}",
        ("student", "taught by"),
        (*FIGURES, "above all three of"),
    )
    best = pd.DataFrame(
        {
            figure: max(of_teachers.values(), key=lambda rows: rows[figure].mean())[figure]
            for figure in FIGURES
        }
    )
    for student in experiment.students:
        for policy in experiment.policies:
            scores = mean_over_seeds(experiment, world, student, policy)
            above = sum(
                all(low > 0 for _, low, _ in differences(scores, teacher))
                for teacher in of_teachers.values()
            )
            table.add_row(
                student,
                policy,
                *with_intervals(differences(scores, best)),
                f"{above} of {len(of_teachers)} teachers",
            )
    return explained(table)


def gain_table(
    experiment: Experiment, world: World, of_teachers: Mapping[str, pd.DataFrame]
) -> Table:
    """Student minus the teacher whose weights it began with."""
    table = new_table(
        f"student minus what it began with, points, world {world!r}",
        ("student", "taught by"),
        FIGURES,
    )
    for student in experiment.students:
        for policy in experiment.policies:
            scores = mean_over_seeds(experiment, world, student, policy)
            gains = with_intervals(differences(scores, of_teachers[student]))
            table.add_row(student, policy, *gains)
    return explained(table)


def comparison_table(experiment: Experiment, world: World) -> Table:
    """What one policy taught minus what another did, for every two of them."""
    table = new_table(
        f"one policy minus another, points, world {world!r}",
        ("student", "taught by", "minus"),
        FIGURES,
    )
    for student in experiment.students:
        scores = {
            policy: mean_over_seeds(experiment, world, student, policy)
            for policy in experiment.policies
        }
        for one, other in combinations(experiment.policies, 2):
            found = differences(scores[one], scores[other])
            table.add_row(student, one, other, *with_intervals(found))
    return explained(table)


def explained(table: Table) -> Table:
    table.caption = "[95 % bootstrap interval of the mean difference, paired over clips]"
    table.caption_justify = "left"
    return table


def with_intervals(found: Sequence[tuple[float, float, float]]) -> list[str]:
    return [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in found]


def new_table(title: str, of: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in of:
        table.add_column(name, no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table
