"""Review: what a person says of single points, as a csv that a player writes and `train` reads.

    key,point,verdict
    340871d857c945e9-f000000-s1,17,wrong
    340871d857c945e9-f000000-s1,4,right
    8529157e3ff555cb-f000000-s1,*,wrong

`key` is a clip, `point` the number of a query in it, counted from 0, or * for all of them, and
`verdict` is "right" or "wrong". Where a row names a point and another all points of its clip, the
point's own counts. Lists may stand behind each other, each with its first line.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teachers import ConfigError

COLUMNS = ("key", "point", "verdict")
VERDICTS = ("right", "wrong")
ALL_POINTS = -1
"""How `Review.verdicts` names the * of a file."""


@dataclass(frozen=True)
class Review:
    """The verdicts of a file."""

    file: str
    verdicts: Mapping[str, Mapping[int, bool]]
    """By key and point: whether its label is right."""

    def learnt(self, key: str, points: int, *, only: bool = False) -> np.ndarray:  # bool [points]
        """Which points of a clip a student may learn from: all that are not called wrong; with
        `only`, those that are called right."""
        verdicts = self.verdicts.get(key, {})
        learnt = np.full(points, verdicts.get(ALL_POINTS, not only))
        for point, right in verdicts.items():
            if point != ALL_POINTS:
                learnt[point] = right
        return learnt


def read_review(file: str | Path) -> Review:
    """The review in a csv; columns beyond those above are not read.

    Raises:
        ConfigError: no such file, no such columns, or a row that cannot be right; the message names
            its line.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"review {file}: cannot be read: {why}.") from error
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(
            f"review {file}: has no column {missing[0]!r}: its first line must name "
            f"{', '.join(COLUMNS)}."
        )
    found: dict[str, dict[int, bool]] = {}
    for row in reader:
        where = f"review {file}, line {reader.line_num}"
        key, point, verdict = ((row[name] or "").strip() for name in COLUMNS)
        if (key, point, verdict) == COLUMNS:  # another list was put behind the first, as it was
            continue
        if verdict not in VERDICTS:
            raise ConfigError(f"{where}: verdict {verdict!r}: must be {' or '.join(VERDICTS)}.")
        if point != "*" and not (point.isascii() and point.isdigit()):
            raise ConfigError(f"{where}: point {point!r}: must be a number from 0, or *.")
        number, right = ALL_POINTS if point == "*" else int(point), verdict == "right"
        if found.setdefault(key, {}).setdefault(number, right) != right:
            raise ConfigError(f"{where}: point {point} of {key} was called otherwise before.")
    return Review(str(file), found)
