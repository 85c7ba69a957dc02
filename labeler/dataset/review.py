"""Review: what a person says of single points, as a csv that a player writes and `train` reads.

    key,point,verdict,t,x,y
    340871d857c945e9-f000000-s1,17,wrong,12,103.25,41.5
    340871d857c945e9-f000000-s1,4,right,0,55.02,98.7
    8529157e3ff555cb-f000000-s1,*,wrong,,,

`key` is a clip, `point` the number of a query in it, counted from 0, or * for all of them, and
`verdict` is "right" or "wrong". Where a row names a point and another all points of its clip, the
point's own counts. Lists may stand behind each other, each with its first line.

`t`, `x`, and `y` are the query itself, in frames and px of the clip: numbers change when queries
are left out of a data set (`tapdistill relabel --prune`), so a query is looked for by its place.
Without them, as in lists that are written by hand, the number counts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from teachers import ConfigError

COLUMNS, PLACE = ("key", "point", "verdict"), ("t", "x", "y")
VERDICTS = ("right", "wrong")
ALL_POINTS = -1
"""How `Review.verdicts` names the * of a file."""
ALIKE_PX = 0.006
"""A query is written in steps of 0.01."""

Query = tuple[float, float, float]
"""(t, x, y)"""


class Named(NamedTuple):
    """A point as a row names it."""

    number: int
    query: Query | None = None

    def among(self, queries: np.ndarray) -> int | None:  # [N, 3]
        """Its number among the queries of a clip; None if it is not there."""
        if self.query is None:
            return self.number if self.number < len(queries) else None
        off = np.abs(queries - np.array(self.query)).max(1, initial=0)
        there = np.flatnonzero(off < ALIKE_PX)
        if self.number in there:  # of queries at one place, its own
            return self.number
        return int(there[0]) if len(there) else None


@dataclass
class Fit:
    """How the points of a review fit those of the data."""

    there: int = 0
    moved: int = 0
    """Of those that are there, how many have another number than in the review."""
    gone: int = 0


@dataclass(frozen=True)
class Review:
    """The verdicts of a file."""

    file: str
    verdicts: Mapping[str, Mapping[Named, bool]]
    """By key and point: whether its label is right."""
    whole: Mapping[str, bool] = field(default_factory=dict)
    """The same by key, for rows that are about all points of a clip."""

    @property
    def keys(self) -> set[str]:
        """The clips that it is about."""
        return {*self.verdicts, *self.whole}

    def learnt(
        self,
        key: str,
        queries: np.ndarray,  # [N, 3] (t, x, y)
        *,
        only: bool = False,
        fit: Fit | None = None,
    ) -> np.ndarray:  # bool [N]
        """Which points of a clip a student may learn from: all that are not called wrong; with
        `only`, those that are called right.

        A row about a query that the clip does not have says nothing; `fit` counts such rows.

        Raises:
            ConfigError: a row names a point by its number alone, and the clip has fewer points, or
                another row says otherwise of the same point.
        """
        fit = fit or Fit()
        said: dict[int, bool] = {}
        for named, right in self.verdicts.get(key, {}).items():
            place = named.among(queries)
            if place is None and named.query is None:
                raise ConfigError(
                    f"review {self.file}: point {named.number} of {key}, which has {len(queries)} "
                    "points, counted from 0: has `relabel --prune` left some out since? Review "
                    "this clip again, or take its rows out of the file."
                )
            if place is None:
                fit.gone += 1
                continue
            fit.there += 1
            fit.moved += place != named.number
            if said.setdefault(place, right) != right:
                raise ConfigError(
                    f"review {self.file}: one row calls point {place} of {key} right, and another "
                    "wrong. Take one of them out of the file."
                )
        learnt = np.full(len(queries), self.whole.get(key, not only))
        learnt[list(said)] = list(said.values())
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
    reader = csv.reader(text.splitlines())
    columns = next(reader, [])
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ConfigError(
            f"review {file}: has no column {missing[0]!r}: its first line must name "
            f"{', '.join(COLUMNS)}."
        )
    found: dict[str, dict[Named, bool]] = {}
    whole: dict[str, bool] = {}
    for cells in reader:
        where = f"review {file}, line {reader.line_num}"
        if set(COLUMNS) <= {cell.strip() for cell in cells}:  # another list, put behind the first
            columns = cells
            continue
        row = {name.strip(): cell.strip() for name, cell in zip(columns, cells, strict=False)}
        key, point, verdict = (row.get(name, "") for name in COLUMNS)
        if not any(cells):
            continue
        if verdict not in VERDICTS:
            raise ConfigError(f"{where}: verdict {verdict!r}: must be {' or '.join(VERDICTS)}.")
        if point != "*" and not (point.isascii() and point.isdigit()):
            raise ConfigError(f"{where}: point {point!r}: must be a number from 0, or *.")
        right = verdict == "right"
        if point == "*":
            before = whole.setdefault(key, right)
        else:
            named = Named(int(point), _query(row, where))
            before = found.setdefault(key, {}).setdefault(named, right)
        if before != right:
            raise ConfigError(f"{where}: point {point} of {key} was called otherwise before.")
    return Review(str(file), found, whole)


def _query(row: Mapping[str, str], where: str) -> Query | None:
    """The query that a row names, if it does."""
    said = [row.get(name, "") for name in PLACE]
    if not any(said):
        return None
    try:
        t, x, y = map(float, said)
    except ValueError:
        t = x = y = math.nan
    if not (math.isfinite(t) and math.isfinite(x) and math.isfinite(y)):
        raise ConfigError(
            f"{where}: query {', '.join(said)}: t, x, and y must be three numbers, or all empty."
        )
    return t, x, y
