"""Scores: who tracks how well on clips that nobody learnt from, and what a student is above."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy import stats

from experiments.files import write_whole
from experiments.policies.config import TEST_SEED, Experiment, StudentName, World
from experiments.policies.labels import MODE
from experiments.policies.students import Lesson, weights_of
from labeler.labels.policies import Policy
from pipelines.tracking.trackers import load_tracker
from student.evaluation.evaluate import FIGURES, score_tracks, track_clips, with_interval
from student.evaluation.labels import LABEL_FIGURES
from student.synth.scene import generate
from teachers import Teacher, VisibleRule


def score(experiment: Experiment, world: World, name: str, tracker: str | Path) -> None:
    """Write a row per test clip to a file, unless it is there."""
    if not figures_of(experiment, world, name).exists():
        teacher = load_tracker(str(tracker), mode=MODE)
        _score(experiment, world, teacher, {name: teacher.info.rule})


def score_rules(experiment: Experiment, world: World, student: StudentName) -> None:
    """Score what the students began with, each time under the visible rule of one of them: what the
    rule alone does, which is chosen on labels."""
    rules = {}
    for lesson in lessons(experiment, world, student):
        if not figures_of(experiment, world, ruled(lesson)).exists():
            weights = weights_of(experiment, lesson)
            rules[ruled(lesson)] = load_tracker(str(weights), mode=MODE).info.rule
    if rules:
        _score(experiment, world, load_tracker(student, mode=MODE), rules)


def ruled(lesson: Lesson) -> str:
    """The name of the scores of what a student began with, under that student's rule."""
    return f"{lesson}-rule-alone"


def _score(
    experiment: Experiment, world: World, teacher: Teacher, rules: Mapping[str, VisibleRule]
) -> None:
    seeds = range(TEST_SEED, TEST_SEED + experiment.test_clips)
    clips = [generate(seed, experiment.videos(world)) for seed in seeds]
    tracks, _ = track_clips(teacher, clips)
    for name, rule in rules.items():
        file = figures_of(experiment, world, name)
        rows = score_tracks(tracks, rule, clips)[list(FIGURES)].to_dict("records")
        write_whole(file, json.dumps(rows, indent=1).encode())


def scored(experiment: Experiment, world: World, name: str) -> pd.DataFrame:
    """A row per test clip."""
    return pd.DataFrame(json.loads(figures_of(experiment, world, name).read_text()))


def figures_of(experiment: Experiment, world: World, name: str) -> Path:
    return experiment.folder(world) / "scores" / f"{name}.json"


def lessons(
    experiment: Experiment, world: World, student: StudentName, policy: Policy | None = None
) -> list[Lesson]:
    """All trainings of a student, or those by one policy."""
    policies = experiment.policies if policy is None else (policy,)
    return [
        Lesson(world, student, policy, seed)
        for seed in range(experiment.seeds)
        for policy in policies
    ]


def scored_students(
    experiment: Experiment, world: World, student: StudentName, policy: Policy
) -> list[pd.DataFrame]:
    """`scored` of each training."""
    return [
        scored(experiment, world, str(lesson))
        for lesson in lessons(experiment, world, student, policy)
    ]


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
                100 * scores.mean()
                for scores in scored_students(experiment, world, student, policy)
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


def differences(
    ones: Sequence[pd.DataFrame],
    others: Sequence[pd.DataFrame],
    *,
    pairs: bool = False,
) -> list[tuple[float, float, float]]:
    """(mean, low, high) in points for each figure: one tracker minus another, paired over clips.

    Other clips would give another mean, and so would other trainings. The 95 % interval adds the
    variances of both (Student's t, with the degrees of freedom of Welch and Satterthwaite), since a
    bootstrap of three trainings knows no others than those three. Where a tracker was trained once,
    nothing is known of its other trainings, and they are left out.

    Args:
        ones, others: `scored` of each training; of a teacher, of the one that there is.
        pairs: the trainings are paired too.
    """
    found = []
    for figure in FIGURES:
        sides = [100 * np.stack([rows[figure] for rows in side]) for side in (ones, others)]
        mean = sides[0].mean(0) - sides[1].mean(0)  # [clips]
        trained = [sides[0] - sides[1]] if pairs else sides
        samples = [mean, *(side.mean(1) for side in trained if len(side) > 1)]
        middle, half = float(mean.mean()), _half_interval(samples)
        found.append((middle, middle - half, middle + half))
    return found


def _half_interval(samples: Sequence[np.ndarray]) -> float:
    """Half of the 95 % interval of a sum of independent means, one of each sample."""
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    if not variances.any():
        return 0.0
    freedom = np.array([len(sample) - 1 for sample in samples])
    degrees = variances.sum() ** 2 / (variances**2 / freedom).sum()
    return float(stats.t.ppf(0.975, degrees) * np.sqrt(variances.sum()))


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
            scores = scored_students(experiment, world, student, policy)
            above = sum(
                all(low > 0 for _, low, _ in differences(scores, [teacher]))
                for teacher in of_teachers.values()
            )
            table.add_row(
                student,
                policy,
                *with_intervals(differences(scores, [best])),
                f"{above} of {len(of_teachers)} teachers",
            )
    return explained(table)


def gain_table(
    experiment: Experiment, world: World, of_teachers: Mapping[str, pd.DataFrame]
) -> Table:
    """Student minus the teacher whose weights it began with, and minus the same under the student's
    visible rule."""
    table = new_table(
        f"student minus what it began with, points, world {world!r}",
        ("student", "taught by", "minus"),
        FIGURES,
    )
    for student in experiment.students:
        for policy in experiment.policies:
            taught = scored_students(experiment, world, student, policy)
            alone = [
                scored(experiment, world, ruled(lesson))
                for lesson in lessons(experiment, world, student, policy)
            ]
            gains = {
                "what it began with": differences(taught, [of_teachers[student]]),
                "that with its rule": differences(taught, alone, pairs=True),
            }
            for name, found in gains.items():
                table.add_row(student, policy, name, *with_intervals(found))
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
            policy: scored_students(experiment, world, student, policy)
            for policy in experiment.policies
        }
        for one, other in combinations(experiment.policies, 2):
            found = differences(scores[one], scores[other])
            table.add_row(student, one, other, *with_intervals(found))
    return explained(table)


def explained(table: Table) -> Table:
    table.caption = "[95 % interval over clips, paired, and trainings]"
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
