"""Evaluation during training: the student on published test sets, as `tapdistill eval` scores it.

The protocol is the command's default: mode benchmark, frames of 256 x 256 px, each point queried
where it is first seen, all points of a video together. Files are read anew each time, one clip in
memory at a time; nothing random is drawn, so a run with evaluations learns the same weights.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import islice
from typing import cast, get_args

import pandas as pd

from student.clip import TestClip
from student.evaluation.evaluate import FIGURES, compare, score_tracks, track_clips
from student.evaluation.tapvid import TapVid, tapvid_clips
from student.evaluation.testsets import on_tapvid_raster
from student.synth.scene import SynthConfig, generate
from student.training.events import Measuring
from teachers.errors import ConfigError, ShardError
from teachers.interface import Teacher
from teachers.tracks import Tracks


def sets_of(texts: Sequence[str]) -> dict[TapVid, str]:
    """What each data set is read from, of "tapvid-davis=FILE", a ConfigError if it is not one."""
    sets: dict[TapVid, str] = {}
    for text in texts:
        name, _, root = text.partition("=")
        if name not in get_args(TapVid) or not root:
            raise ConfigError(
                f"eval_data = {text!r}: give DATASET=FILE, where DATASET is one of "
                f"{', '.join(get_args(TapVid))}, and FILE a file, a folder, or an fsspec URL."
            )
        if name in sets:
            raise ConfigError(f"eval_data: {name} is there twice; name each data set once.")
        sets[cast(TapVid, name)] = root
    return sets


def check_there(sets: dict[TapVid, str], procedural: bool) -> None:
    """A ShardError if a data set has no file, and a ConfigError if procedural clips are needed and
    cannot be made, so that nobody learns of it hours later."""
    for name, root in sets.items():
        tapvid_clips(name, root)
    if procedural:
        generate(0, SynthConfig(frames=1, height=64, width=64, points=1))


def tracked(
    teacher: Teacher, clips: Sequence[TestClip], step: int, what: str
) -> Generator[Measuring, None, list[Tracks]]:
    """The teacher's tracks of the clips. Yields how far it is after each."""
    found: list[Tracks] = []
    for clip in clips:
        found += track_clips(teacher, [clip])[0]
        yield Measuring(step=step, what=what, done=len(found), total=len(clips))
    return found


def score_clips(
    student: Teacher, clips: Sequence[TestClip], step: int
) -> Generator[Measuring, None, dict[str, float]]:
    """AJ, delta_avg, and OA in [0, 1] of procedural test clips, means over them. Yields how far it
    is; `step` is that of the weights."""
    what = "scoring on procedural test clips"
    yield Measuring(step=step, what=what, done=0, total=len(clips))
    tracks = yield from tracked(student, clips, step, what)
    table = score_tracks(tracks, student.info.rule, clips)
    return {name: float(table[name].mean()) for name in FIGURES}


def score_sets(
    student: Teacher, sets: dict[TapVid, str], most: int | None, step: int
) -> Generator[Measuring, None, dict[str, float]]:
    """AJ, delta_avg, and OA in [0, 1] of each data set ("tapvid-davis/AJ"), means over its clips,
    and their means over the sets ("AJ"). Of each set the first `most` clips. Yields how far it is;
    `step` is that of the weights.

    Raises:
        ShardError: a set holds no video, or a file is damaged.
    """
    figures: dict[str, float] = {}
    for name, root in sets.items():
        what, tables = f"scoring on {name}", list[pd.DataFrame]()
        yield Measuring(step=step, what=what, done=0, total=None)
        for clip in map(on_tapvid_raster, islice(tapvid_clips(name, root), most)):
            tables.append(compare({student.info.name: student}, [clip]))
            yield Measuring(step=step, what=what, done=len(tables), total=None)
        if not tables:
            raise ShardError(f"eval_data {name}={root}: the data set holds no video.")
        table = pd.concat(tables)
        figures |= {f"{name}/{figure}": float(table[figure].mean()) for figure in FIGURES}
    means = {
        figure: sum(figures[f"{name}/{figure}"] for name in sets) / len(sets) for figure in FIGURES
    }
    return means | figures
