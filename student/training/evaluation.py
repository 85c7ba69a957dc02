"""Evaluation during training: the student on published test sets, as `tapdistill eval` scores it.

The protocol is the command's default: mode benchmark, frames of 256 x 256 px, each point queried
where it is first seen, all points of a video together. Files are read anew each time, one clip in
memory at a time; nothing random is drawn, so a run with evaluations learns the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import cast, get_args

from student.evaluation.evaluate import FIGURES, compare
from student.evaluation.tapvid import TapVid, tapvid_clips
from student.evaluation.testsets import on_tapvid_raster
from teachers.errors import ConfigError, ShardError
from teachers.interface import Teacher


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


def check_there(sets: dict[TapVid, str]) -> None:
    """A ShardError if a data set has no file, so that nobody learns of it hours later."""
    for name, root in sets.items():
        tapvid_clips(name, root)


def score_sets(student: Teacher, sets: dict[TapVid, str], most: int | None) -> dict[str, float]:
    """AJ, delta_avg, and OA in [0, 1] of each data set ("tapvid-davis/AJ"), means over its clips,
    and their means over the sets ("AJ"). Of each set the first `most` clips.

    Raises:
        ShardError: a set holds no video, or a file is damaged.
    """
    figures: dict[str, float] = {}
    for name, root in sets.items():
        clips = map(on_tapvid_raster, islice(tapvid_clips(name, root), most))
        table = compare({student.info.name: student}, clips)
        if table.empty:
            raise ShardError(f"eval_data {name}={root}: the data set holds no video.")
        figures |= {f"{name}/{figure}": float(table[figure].mean()) for figure in FIGURES}
    means = {
        figure: sum(figures[f"{name}/{figure}"] for name in sets) / len(sets) for figure in FIGURES
    }
    return means | figures
