"""Page: what a page of a report is made of, which is figures, accounts, tables, statistics of a
clip, and the templates.

Texts from files are escaped; a page forbids itself every request (Content-Security-Policy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
import pandas as pd

from labeler.labels import Sample
from labeler.labels.agreement import Stack
from labeler.labels.disagreement import distances, mean_support, support_histogram
from labeler.shards.tables import Accounts
from labeler.show import player
from pipelines.wording import harmless
from teachers.licences import in_words

ROWS_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number at the top of the page."""

    value: str
    label: str


@dataclass(frozen=True, kw_only=True)
class AccountBar:
    """What went in, and what became of it."""

    what: Literal["video", "clip"]
    total_name: str
    """"planned" or "found"."""
    parts: Mapping[str, int]
    """The parts of the total by name: done or labelled first, then left out, failed, open."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def account_bars(accounts: Accounts) -> tuple[AccountBar, AccountBar]:
    """The accounts of the videos and of the clips of a data set."""
    a = accounts
    videos = {
        "done": a.done,
        "left out": a.videos_left_out,
        "failed": a.videos_failed,
        "open": a.open,
    }
    clips = {"labelled": a.labelled, "left out": a.clips_left_out, "failed": a.clips_failed}
    return (
        AccountBar(what="video", total_name="planned", parts=videos),
        AccountBar(what="clip", total_name="found", parts=clips),
    )


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """A table of scores, the best of each column in bold."""

    title: str
    frame: pd.DataFrame
    """One row per teacher, student, or policy; floats are shown with `digits` digits, missing
    values as a dash."""
    best: Mapping[str, Literal["max", "min"]] = field(default_factory=dict)
    """By column, which of its values is the best."""
    note: str = ""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How the trackers of one clip agree, over all of its points."""

    support: np.ndarray
    """float [T]: mean support of the points that any teacher sees and that are not agreed to be
    occluded; NaN where there is none."""
    valid: np.ndarray
    """float [T]: share of the points whose label is valid."""
    histogram: np.ndarray
    """float [SUPPORT_BINS]: the same points and frames, as shares by their support."""
    names: tuple[str, ...]
    distance_px: np.ndarray
    """float [K, K]: median distance in px of the 256 raster where both see the point; NaN if they
    never do."""
    kept: dict[str, tuple[int, int]]
    """Sampler -> (points kept, points drawn)."""


def statistics_of(sample: Sample, stacked: Stack) -> Statistics:
    """How the stacked trackers agree on the sample, over all of its points."""
    labels = sample.labels
    counts = support_histogram(labels)
    drawn = Counter(sample.sampler.tolist())
    kept = Counter(sample.sampler[labels.keep].tolist())
    points = max(len(sample.queries), 1)
    return Statistics(
        support=mean_support(labels),
        valid=labels.valid.sum(0) / points,
        histogram=counts / max(counts.sum(), 1),
        names=stacked.names,
        distance_px=distances([stacked]).to_numpy(),
        kept={name: (kept[name], drawn[name]) for name in sorted(drawn)},
    )


def most_central(statistics: Statistics, candidates: Collection[str]) -> str:
    """Of the candidates, the one nearest to all trackers, by the least sum of median distances; one
    without any comes last."""
    total = dict(
        zip(statistics.names, np.nan_to_num(statistics.distance_px, nan=1e9).sum(1), strict=True)
    )
    return min(sorted(candidates), key=total.__getitem__)


def _cells(table: ScoreTable) -> list[list[dict[str, Any]]]:
    """Rows of {text, number, best} for the template."""
    best = {name: getattr(table.frame[name], which)() for name, which in table.best.items()}
    return [
        [
            {
                "text": _text(value, table.digits),
                "number": isinstance(value, int | float | np.number),
                "best": name in best and bool(value == best[name]),
            }
            for name, value in zip(table.frame.columns, values, strict=True)
        ]
        for values in table.frame.itertuples(index=False, name=None)
    ]


def _text(value: Any, digits: int) -> str:
    if value is None or value != value:  # NaN
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def short(value: Any, most: int = 160) -> str:
    """A value of the metadata, in one line."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{value[0]}, {value[1]}, … {value[-1]} ({len(value)} values)"
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


@cache
def templates() -> jinja2.Environment:
    """The templates of the reports and of the player; `harmless` is for names from files, which
    could reverse the direction of the text around them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", player.FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": player.to_base64,
        "cells": _cells,
        "harmless": harmless,
        "licence": in_words,
    }
    environment.globals["tracker_colour"] = player.tracker_colour
    return environment
