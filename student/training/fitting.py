"""Fitting: what is chosen of a student whose weights are trained, on its calibration clips.

In   how to make the student as a teacher, clips with tracks. Out: `Fitted`.
The visible rule that fits the weights is chosen always. `TrainConfig.choose_refinement` also
chooses how positions are refined: the way with the highest average Jaccard, each with its own rule.
The way that the student was trained with stays, unless another one is better by `LEAST_GAIN`: a
little, since what can be labelled is easy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from student.clip import TestClip
from student.evaluation.calibration import Fitted, calibrated
from student.training.evaluation import tracked
from student.training.events import Measuring
from teachers.interface import Teacher

LEAST_GAIN = 0.002
"""Of average Jaccard, in [0, 1]."""


def fit(
    teacher: Callable[[Mapping[str, Any]], Teacher],
    ways: Sequence[Mapping[str, Any]],
    clips: Sequence[TestClip],
    known: Sequence[np.ndarray],
    step: int,
) -> Generator[Measuring, None, Fitted]:
    """Choose on the clips, of whose points and frames `known` (bool [N, T] each) are known.

    Args:
        teacher: the student as users will get it, refining in one of the `ways`.
        ways: see `Student.refinements`.

    Raises:
        TeacherError: the student computes NaN or infinity.
    """
    tried = []
    for number, way in enumerate(ways):
        what = "choosing from which value on a point is visible"
        if len(ways) > 1:
            what = f"choosing how positions are refined, {number + 1} of {len(ways)}"
        yield Measuring(step=step, what=what, done=0, total=len(clips))
        student = teacher(way)
        tracks = yield from tracked(student, clips, step, what)
        tried.append((way, calibrated(tracks, clips, student.info.rule, known)))
    way, found = max(tried, key=lambda one: one[1].jaccard)
    if found.jaccard < tried[0][1].jaccard + LEAST_GAIN:
        way, found = tried[0]
    return Fitted(calibration=found, refinement=way, tried=tuple(tried) if len(ways) > 1 else ())
