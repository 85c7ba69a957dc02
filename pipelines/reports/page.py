"""The report: one HTML page that holds everything it shows, videos too, and loads nothing.

    report = Report(title="...", subtitle="...", clips=(clip_view(sample),), ...)
    write_report("report.html", report)

A clip becomes a `ClipView`: the stored mp4, the tracks of some of its points for the player,
pictures of some of its frames, and statistics of ALL its points. Another tracker, such as a student
before and after training, is one more entry of `extra`. Texts from files are escaped; the page
forbids itself every request (Content-Security-Policy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import cv2
import jinja2
import numpy as np
import pandas as pd

from labeler.labels.agreement import OCCLUDED, Stack, stack
from labeler.labels.sample import Sample
from labeler.reasons import REASONS, LeftOut
from labeler.shards.tables import Accounts
from labeler.show import player
from labeler.show.draw import colour_by, draw_frame, enlargement, rainbow
from labeler.video.encode import decode_clip
from pipelines.wording import harmless
from teachers import Tracks, VisibleRule

ROWS_SHOWN = 200
KEY_FRAMES = (1 / 6, 1 / 2, 5 / 6)
HISTOGRAM_BINS = 10
PICTURE_WIDTH_PX = 800
MARKERS_A_WIDTH = 90
"""Width of a picture in radii of its markers."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number at the top of the page."""

    value: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """What went in, and what became of it."""

    what: Literal["video", "clip"]
    total_name: str
    """"planned" or "found"."""
    parts: Mapping[str, int]
    """Part of the total by name: done or labelled first, then left out, failed, open."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def accounts_of(accounts: Accounts) -> tuple[Account, Account]:
    """Those of the videos and of the clips of a data set."""
    a = accounts
    videos = {
        "done": a.done,
        "left out": a.videos_left_out,
        "failed": a.videos_failed,
        "open": a.open,
    }
    clips = {"labelled": a.labelled, "left out": a.clips_left_out, "failed": a.clips_failed}
    return (
        Account(what="video", total_name="planned", parts=videos),
        Account(what="clip", total_name="found", parts=clips),
    )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of scores, the best of each column in bold."""

    title: str
    frame: pd.DataFrame
    """One row per teacher, student, or policy; floats are printed with `digits`, missing values as
    a dash."""
    best: Mapping[str, Literal["max", "min"]] = field(default_factory=dict)
    """Column -> which of its values is the best."""
    note: str = ""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A still picture of a clip."""

    caption: str
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How the trackers of one clip agree, over all of its points."""

    support: np.ndarray
    """float [T]: mean support, of the points that are not agreed to be occluded; NaN where all
    are."""
    valid: np.ndarray
    """float [T]: share of the points whose label is valid."""
    histogram: np.ndarray
    """float [HISTOGRAM_BINS]: share by support of the points and frames that are not agreed to be
    occluded."""
    names: tuple[str, ...]
    distance_px: np.ndarray
    """float [K, K]: median distance, px of the 256 raster, where both see the point; NaN where they
    never do."""
    kept: dict[str, tuple[int, int]]
    """Sampler -> (points kept, points drawn)."""


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One clip, as the page shows it."""

    key: str
    mp4: bytes
    points: int
    """All points of the clip; `player` holds at most `labeler.show.player.POINTS_SHOWN` of them."""
    player: dict[str, Any]
    """What the player reads: see `labeler.show.player.payload_of`."""
    pictures: tuple[Picture, ...]
    statistics: Statistics
    facts: dict[str, str]
    trackers: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page, in its order."""

    title: str
    subtitle: str = ""
    """What was run: one sentence."""
    figures: tuple[Figure, ...] = ()
    clips: tuple[ClipView, ...] = ()
    tables: tuple[Table, ...] = ()
    accounts: tuple[Account, ...] = ()
    rows: tuple[LeftOut, ...] = ()
    """What was left out or failed; all are counted, the first `ROWS_SHOWN` are listed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    """Command lines that give the same again."""


def write_report(path: str | Path, report: Report) -> None:
    """Write the page to the local file `path`, UTF-8."""
    Path(path).write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The page as text."""
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            reasons=REASONS,
            reason_counts=_reason_counts(report.rows),
            rows_shown=ROWS_SHOWN,
        )
    )


def clip_view(
    sample: Sample,
    *,
    extra: Mapping[str, tuple[Tracks, VisibleRule]] | None = None,
    points_shown: int = player.POINTS_SHOWN,
) -> ClipView:
    """What the page needs of one sample.

    Args:
        sample: N points in T frames.
        extra: more trackers by name, such as a student or the truth: tracks of the same queries,
            and when they see a point.
        points_shown: points in the player and the pictures, evenly chosen in the order of the
            queries.
    """
    extra = dict(extra or {})
    tracks = {**sample.tracks, **{name: given for name, (given, _) in extra.items()}}
    rules = {**sample.rules, **{name: rule for name, (_, rule) in extra.items()}}
    trackers = {
        **sample.meta["teachers"],
        **{name: {"visible_rule": str(rule)} for name, (_, rule) in extra.items()},
    }
    statistics = statistics_of(sample, stack(tracks, rules, sample.size_hw))
    points = len(sample.queries)
    shown = player.evenly(points, points_shown)
    return ClipView(
        key=sample.key,
        mp4=sample.mp4,
        points=points,
        player=player.payload_of(sample, extra=extra, points_shown=points_shown),
        pictures=_pictures(sample, shown, most_central(statistics, sample.tracks)),
        statistics=statistics,
        facts={name: short(value) for name, value in sample.meta.items() if name != "teachers"},
        trackers=trackers,
    )


def _pictures(sample: Sample, shown: np.ndarray, name: str) -> tuple[Picture, ...]:
    """Some frames with what was kept of one teacher, then the middle one with all its points,
    coloured by support."""
    frames = decode_clip(sample.mp4)
    radius = enlargement(*sample.size_hw) * sample.size_hw[1] / MARKERS_A_WIDTH
    labels, xy, sees = sample.labels, sample.tracks[name].xy[shown], sample.visible(name)[shown]
    label = (labels.valid & labels.keep[:, None])[shown]

    def picture(t: int, xy: np.ndarray, colours: np.ndarray, what: str) -> Picture:
        return Picture(
            caption=f"frame {t}: {name}, {what}",
            jpeg=jpeg(draw_frame(frames, t, xy, sees, colours, point_radius=radius)),
        )

    key_frames = [int(part * (len(frames) - 1) + 0.5) for part in KEY_FRAMES]
    kept, by_place = np.where(label[..., None], xy, np.nan), rainbow(sample.queries)[shown]
    pictures = [picture(t, kept, by_place, "what became a label") for t in key_frames]
    middle = key_frames[len(key_frames) // 2]
    return (
        *pictures,
        picture(middle, xy, colour_by(labels.support[shown, middle]), "all points, by support"),
    )


def statistics_of(sample: Sample, stacked: Stack) -> Statistics:
    """How the stacked trackers agree on the sample, over all of its points."""
    labels = sample.labels
    counted = labels.state != OCCLUDED
    counts, _ = np.histogram(labels.support[counted], HISTOGRAM_BINS, (0, 1))
    drawn = Counter(sample.sampler.tolist())
    kept = Counter(sample.sampler[labels.keep].tolist())
    points = max(len(sample.queries), 1)
    return Statistics(
        support=np.where(counted, labels.support, 0).sum(0)
        / np.where(counted.any(0), counted.sum(0), np.nan),
        valid=labels.valid.sum(0) / points,
        histogram=counts / max(counts.sum(), 1),
        names=stacked.names,
        distance_px=_median_distances(stacked),
        kept={name: (kept[name], drawn[name]) for name in sorted(drawn)},
    )


def _median_distances(stacked: Stack) -> np.ndarray:
    """float [K, K]: median over points and frames that both see; NaN if there is none."""
    sees = stacked.sees
    out = np.diag(np.where(sees.any((1, 2)), 0.0, np.nan))
    for i, j in combinations(range(len(sees)), 2):
        both = sees[i] & sees[j]
        out[i, j] = out[j, i] = (
            np.median(np.hypot(*(stacked.xy[i] - stacked.xy[j])[both].T)) if both.any() else np.nan
        )
    return out


def most_central(statistics: Statistics, candidates: Collection[str]) -> str:
    """Of the candidates, the one nearest to all trackers: least sum of median distances; one
    without any comes last."""
    total = dict(
        zip(statistics.names, np.nan_to_num(statistics.distance_px, nan=1e9).sum(1), strict=True)
    )
    return min(sorted(candidates), key=total.__getitem__)


def _reason_counts(rows: tuple[LeftOut, ...]) -> dict[str, list[tuple[str, int]]]:
    """ "video" and "clip" -> reasons with their number, the most frequent first."""
    return {
        what: Counter(row.reason for row in rows if row.what == what).most_common()
        for what in ("video", "clip")
    }


def _cells(table: Table) -> list[list[dict[str, Any]]]:
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
    """A value of the metadata in one line."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{value[0]}, {value[1]}, … {value[-1]} ({len(value)} values)"
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def jpeg(picture: np.ndarray, most_wide_px: int = PICTURE_WIDTH_PX) -> bytes:
    """JPEG of uint8 [H, W, 3] RGB, at most `most_wide_px` wide."""
    height, width = picture.shape[:2]
    if width > most_wide_px:
        size = (most_wide_px, max(1, round(height * most_wide_px / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    assert ok, "OpenCV cannot write a JPEG"
    return data.tobytes()


@cache
def templates() -> jinja2.Environment:
    """The templates of the reports and of the player; `harmless` is for names from files, which
    could turn the text around them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", player.FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": player.to_base64, "cells": _cells, "harmless": harmless}
    environment.globals["tracker_colour"] = player.tracker_colour
    return environment
