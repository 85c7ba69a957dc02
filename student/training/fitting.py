"""Fitting: what is chosen of a student whose weights are trained, on its calibration clips.

In   how to make the student as a teacher, clips with tracks. Out: `Fitted`.
The visible rule that fits the weights is chosen always, on clips as training shows them: there,
points leave the crop, and without them the labels of noisy video hide too little. How positions are
refined is chosen only if `TrainConfig.refinement` says so, first, and on whole frames, since a crop
is enlarged to the raster of the network. Each way has the rule that is best for it. Of those whose
average Jaccard is nearly the highest, the one that the student prefers is taken: any other must be
better by `LEAST_GAIN_OF_WAY`, which is little, as what can be labelled is easy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from student.clip import TestClip
from student.evaluation.calibration import Calibration, Fitted, calibrated
from student.training.evaluation import tracked
from student.training.events import Measuring
from teachers.errors import TeacherError
from teachers.interface import Teacher

Known: TypeAlias = tuple[Sequence[TestClip], Sequence[np.ndarray]]
"""Clips, and bool [N, T] each: which of their points and frames are known."""
LEAST_GAIN_OF_WAY = 0.002
"""Of average Jaccard, in [0, 1]."""


def fit(
    teacher: Callable[[Mapping[str, Any]], Teacher],
    ways: Sequence[Mapping[str, Any]],
    clips: Callable[[bool], Known],
    step: int,
) -> Generator[Measuring, None, Fitted]:
    """Choose a way to refine positions, then the visible rule.

    Args:
        teacher: the student as users will get it, refining in one of the `ways`.
        ways: see `Student.refinements`, that of before among them; with one, there is nothing to
            choose.
        clips: what is chosen on, in whole frames (True) or as training shows them.

    Raises:
        TeacherError: the student computes NaN or infinity as it was before; another way that does
            is not taken.
    """
    tried = yield from _tried(teacher, ways, clips, step)
    way = ways[0]
    if tried:
        best, highest = max(tried, key=lambda one: one[1])
        least = highest - LEAST_GAIN_OF_WAY
        way = next((one for one, jaccard in tried if jaccard > least), best)
    what = "choosing from which value on a point is visible"
    calibration = yield from _calibrated(teacher(way), clips(False), step, what)
    return Fitted(calibration=calibration, refinement=way, tried=tried)


def _tried(
    teacher: Callable[[Mapping[str, Any]], Teacher],
    ways: Sequence[Mapping[str, Any]],
    clips: Callable[[bool], Known],
    step: int,
) -> Generator[Measuring, None, tuple[tuple[Mapping[str, Any], float], ...]]:
    """The ways with their Jaccards; without those that compute NaN or infinity."""
    if len(ways) == 1:
        return ()
    tried = list[tuple[Mapping[str, Any], float]]()
    for number, way in enumerate(ways):
        what = f"choosing how positions are refined, {number + 1} of {len(ways)}"
        try:
            found = yield from _calibrated(teacher(way), clips(True), step, what)
        except TeacherError:
            if not way:  # nothing is changed, so it is the weights
                raise
            continue
        tried.append((way, found.highest))
    return tuple(tried)


def _calibrated(
    student: Teacher, clips: Known, step: int, what: str
) -> Generator[Measuring, None, Calibration]:
    yield Measuring(step=step, what=what, done=0, total=len(clips[0]))
    tracks = yield from tracked(student, clips[0], step, what)
    return calibrated(tracks, clips[0], student.info.rule, clips[1])
