"""Player: a clip that plays in a browser with its tracks drawn over it, in one piece of HTML that
loads nothing.

    html_of(clip)                     a whole page: the stored mp4 as a data URI, tracks, style,
                                      script
    page_of(clip)                     the same as a `Page`, which a notebook shows inline

A page of many clips includes player.css and player.js once, and for each clip player.html.j2 with
its `payload_of(clip)`; at its end it calls `startPlayers()`, which starts every player under an
element (by default the document) that does not run yet. The style takes its colours
from the variables --surface, --ink, --quiet, --line, and --accent. A player sends the event "frame"
when it shows another one, with `detail` {frame, last}, which bubbles. `data-frame` and `data-drawn`
of <div class="player"> say what it shows.

A filled marker is a point that the tracker sees, a ring one that it says is occluded. Texts from
files are escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np

from labeler.labels import Sample
from labeler.labels.agreement import RASTER
from labeler.labels.disagreement import parted
from labeler.labels.labelled import Labelled, labelled
from labeler.show.draw import colour_by, rainbow
from labeler.video.encode import stored_clip
from teachers import Tracks, VisibleRule

FOLDER = Path(__file__).parent

UNIT_PX = 1 / 16
"""Coordinates in a page are int16, in steps of this size."""
NOT_TRACKED = -(2**15)
UNKNOWN = 255
"""A probability is a byte from 0 to 250, in steps of 1/250; this byte means that there is none."""
TRACKER_COLOURS = (
    "#e69f00",
    "#56b4e9",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#0072b2",
    "#8a8f98",
)
"""Okabe and Ito's palette, safe for colour-blind eyes, in an order in which neighbours differ; it
starts again after the eighth colour."""
POINTS_SHOWN = 200
WORST = 12
"""How many points are shown in any case, because trackers are farthest apart on them."""
WIDTH_PX, HEIGHT_PX, UNDER_PX = (520, 860), 560, 266
"""For a player in a notebook: the least and the greatest width, the greatest height of the picture,
and the height of what is below it."""

Extra = Mapping[str, tuple[Tracks, VisibleRule]]
"""Further trackers by name, such as a student or the truth: their tracks of the same queries, and
the rule by which they see a point."""
Colour = Literal["support", "trust", "tracker", "place"]


@dataclass(frozen=True)
class Page:
    """A page of HTML that a notebook shows inline, in a frame of its own: its style and script
    touch nothing else."""

    html: str
    title: str
    size_hw: tuple[int, int]
    """Height and width in px at which the whole page can be seen."""

    def _repr_html_(self) -> str:
        height, width = self.size_hw
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="{html.escape(self.title)}" '
            'sandbox="allow-scripts allow-downloads" '
            f'style="width: {width}px; max-width: 100%; height: {height}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return (
            f"Page of {self.title}, {len(self.html) / 1e6:.1f} MB: a notebook plays it, "
            "`.save('clip.html')` is for a browser"
        )

    def save(self, file: str | Path) -> None:
        """Write the page to a local file, which any browser opens."""
        Path(file).write_text(self.html, encoding="utf-8")


def page_of(
    sample: Sample,
    *,
    labels: Labelled | None = None,
    colour: Colour = "support",
    extra: Extra | None = None,
    points_shown: int = POINTS_SHOWN,
) -> Page:
    """The clip as a page; arguments as in `html_of`."""
    height, width = sample.size_hw
    across = min(WIDTH_PX[1], HEIGHT_PX * width / height)
    size = UNDER_PX + round(across * height / width), max(WIDTH_PX[0], round(across))
    return Page(
        html_of(sample, labels=labels, extra=extra, points_shown=points_shown, colour=colour),
        f"clip {sample.key}",
        size,
    )


def html_of(
    sample: Sample,
    *,
    labels: Labelled | None = None,
    extra: Extra | None = None,
    points_shown: int = POINTS_SHOWN,
    colour: Colour = "support",
) -> str:
    """A whole page with one player; UTF-8.

    Args:
        sample: a labelled clip of N points in T frames.
        labels: what counts as a label; None: the stored ones, by agreement.
        extra: more trackers.
        points_shown: the most points that are drawn: some on which trackers are farthest apart
            (see `worst`), and others, evenly chosen in the order of the queries.
        colour: what the colours mean at first: support (agreement), trust (the verifier's
            probability that the position is right), which tracker it is, or where the query was.
    """
    payload = payload_of(sample, labels=labels, extra=extra, points_shown=points_shown)
    return (
        _templates()
        .get_template("page.html.j2")
        .render(player=payload, mp4=sample.mp4, colour=colour, under_px=UNDER_PX)
    )


def payload_of(
    sample: Sample,
    *,
    labels: Labelled | None = None,
    extra: Extra | None = None,
    points_shown: int = POINTS_SHOWN,
) -> dict[str, Any]:
    """What player.js reads, JSON: size, frame times, names, and arrays of n of the N points as
    base64; arguments as in `html_of`."""
    extra = extra or {}
    tracks = {**sample.tracks, **{name: given for name, (given, _) in extra.items()}}
    rules = {**sample.rules, **{name: rule for name, (_, rule) in extra.items()}}
    points, agreed = len(sample.queries), sample.labels
    by_name = [rules[name] for name in tracks]
    even, shown = _shown(list(tracks.values()), by_name, sample.size_hw, points_shown)
    height, width = sample.size_hw
    return {
        "key": sample.key,
        "width": width,
        "height": height,
        "times": [round(time, 6) for time in frame_times(sample.mp4)],
        "trackers": list(tracks),
        # of each frame: the share of all N points on which teachers disagree
        "parted": (parted(agreed).sum(0) / max(points, 1)).round(4).tolist(),
        **_labels(labels or labelled(sample), shown),
        "points": len(shown),
        "of": points,
        "number": shown.tolist(),  # of each shown point among the queries
        "even": np.isin(shown, even).tolist(),  # chosen without regard to its tracks
        "sampler": sample.sampler[shown].tolist(),
        "queries": sample.queries[shown].astype(float).round(2).tolist(),  # (t, x, y)
        # int16 [K, n, T, 2]
        "xy": to_base64(_packed(np.stack([each.xy[shown] for each in tracks.values()]))),
        # 0 or 1 [K, n, T]
        "sees": to_base64(np.stack([rules[name](each)[shown] for name, each in tracks.items()])),
        # [K, n, T]
        "visibility": to_base64(
            _bytes(np.stack([each.visibility[shown] for each in tracks.values()]))
        ),
        # [K, n, T]
        "confidence": to_base64(
            _bytes(np.stack([each.confidence[shown] for each in tracks.values()]))
        ),
        "support": to_base64(_bytes(agreed.support[shown])),  # [n, T]
        # [K, n, T] and [n, T]; all unknown where no verifier judged the clip
        "right": to_base64(_bytes(_right(sample, list(tracks))[:, shown])),
        "hidden": to_base64(_bytes(_hidden(sample)[shown])),
        "state": to_base64(agreed.state[shown]),  # as in `Labels` [n, T]
        "rainbow": to_base64(rainbow(sample.queries)[shown]),  # [n, 3]
        "ramp": to_base64(colour_by(np.linspace(0, 1, 251))),  # [251, 3]: colour of a support
    }


def _labels(labels: Labelled, shown: np.ndarray) -> dict[str, str]:
    """What is a label, of the shown points."""
    kind = labels.visible + 2 * labels.hidden.astype(np.uint8)
    return {
        "label_by": labels.by,
        "label_how": labels.how,
        "label": to_base64(kind[shown]),  # 0 none, 1 visible, 2 hidden [n, T]
        "label_xy": to_base64(_packed(labels.xy[shown])),  # int16 [n, T, 2]
    }


def _right(sample: Sample, trackers: Sequence[str]) -> np.ndarray:
    """float32 [K, N, T]: how far each tracker's position is trusted; NaN for a tracker that the
    verifier did not judge, such as a student."""
    verdict = sample.verdict
    right = np.full((len(trackers), *sample.labels.support.shape), np.nan, np.float32)
    for row, name in enumerate(trackers):
        if verdict is not None and name in verdict.teachers and name in sample.tracks:
            right[row] = verdict.of([name])[0]
    return right


def _hidden(sample: Sample) -> np.ndarray:
    """float32 [N, T]; NaN if no verifier judged the clip."""
    if sample.verdict is None:
        return np.full(sample.labels.support.shape, np.nan, np.float32)
    return sample.verdict.hidden


def worst(
    tracks: Sequence[Tracks],  # of the same N queries in T frames
    rules: Sequence[VisibleRule],
    size_hw: tuple[int, int],
    most: int = WORST,
) -> np.ndarray:  # int [at most `most`]
    """Numbers of the points on which two trackers that see them are farthest apart in any frame, px
    of the 256 raster; the worst first."""
    scale = RASTER / np.array([size_hw[1], size_hw[0]], np.float32)
    seen = [
        np.where(rule(each)[..., None], each.xy, np.nan) * scale
        for each, rule in zip(tracks, rules, strict=True)
    ]
    apart = np.zeros(len(tracks[0].xy) if tracks else 0, np.float32)
    for a, b in combinations(seen, 2):
        distance = np.nan_to_num(np.hypot(*np.moveaxis(a - b, -1, 0)))
        apart = np.maximum(apart, distance.max(1, initial=0))
    order = np.argsort(-apart, kind="stable")[:most]
    return order[apart[order] > 0]


def _shown(
    tracks: Sequence[Tracks],
    rules: Sequence[VisibleRule],
    size_hw: tuple[int, int],
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of points that are evenly chosen, and of all points to draw: these, and those on
    which trackers are farthest apart, at most a tenth of `most`."""
    points = len(tracks[0].xy)
    if points <= most:
        return np.arange(points), np.arange(points)
    first = worst(tracks, rules, size_hw, min(WORST, most // 10))
    even = evenly(points, most - len(first))
    return even, np.union1d(first, even)


def evenly(points: int, most: int) -> np.ndarray:
    """Numbers of at most `most` of the points, evenly chosen."""
    return np.unique(np.linspace(0, max(points - 1, 0), min(points, most)).round().astype(int))


def frame_times(mp4: bytes) -> list[float]:
    """The time in seconds at which a browser shows each stored frame; the first is shown at 0."""
    with stored_clip(mp4) as (container, stream):
        times = sorted(
            float(packet.pts * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None and packet.time_base is not None
        )
    return [time - times[0] for time in times]


def tracker_colour(index: int) -> str:
    """CSS colour of tracker number `index`."""
    return TRACKER_COLOURS[index % len(TRACKER_COLOURS)]


def to_base64(data: bytes | np.ndarray) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode("ascii")


def _packed(xy: np.ndarray) -> np.ndarray:
    """int16 in steps of `UNIT_PX`; NaN is `NOT_TRACKED`, and values of 2,048 px or more are
    clipped."""
    steps = np.rint(xy / UNIT_PX).clip(NOT_TRACKED + 1, 2**15 - 1)
    return np.where(np.isfinite(xy), steps, NOT_TRACKED).astype("<i2")


def _bytes(probability: np.ndarray) -> np.ndarray:
    """uint8; NaN is `UNKNOWN`."""
    return np.where(
        np.isfinite(probability), np.rint(np.nan_to_num(probability) * 250), UNKNOWN
    ).astype(np.uint8)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = to_base64
    environment.globals["tracker_colour"] = tracker_colour
    return environment
