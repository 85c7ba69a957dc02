"""tapdistill inspect: a summary in the terminal, and an HTML report with players, to decide whether
the labels can be trusted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from rich.progress import track
from rich.table import Table

from labeler.dataset import Clip, Dataset, open_dataset
from labeler.dataset.dataset import Which
from labeler.io.storage import is_url
from labeler.labels import TrustConfig
from labeler.labels.labelled import described
from labeler.labels.policies import find
from labeler.labels.policy import NOT_JUDGED
from pipelines.reports.dataset import players_folder, write_report
from pipelines.reports.measures import MEASURED, DatasetMeasures, measure, with_teachers
from pipelines.terminal.console import console, say
from pipelines.terminal.progress import LineThrottle
from pipelines.terminal.tables import accounts_table
from pipelines.terminal.upload import parent_and_name, uploaded
from pipelines.wording import data_size, duration, harmless
from teachers import ConfigError

MOST_CLIPS = 2_000
"""A browser can handle a table of this many pictures well."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Look at the labels: a summary in the terminal, and a report for a browser, which loads
    nothing from the network."""

    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or an fsspec URL; it may still be being written."""
    out: str | None = "report"
    """The report: a folder for index.html, or a file NAME.html, on this machine or at an fsspec
    URL. An existing report is replaced. None: only the summary."""
    clips: int = 60
    """The most clips in the report."""
    which: Which = "random"
    """Which clips: drawn at random; those with the smallest share of kept queries; or those with
    the most disagreement."""
    teachers: tuple[str, ...] = ()
    """Show and compare only these teachers; the labels remain those that are stored. Default:
    all."""
    policy: str | None = None
    """Show the labels of this label policy, with --trust.*: verified, random-verified,
    random-agreeing, random, medoid, mean, median, a policy of another package, or module:Class.
    Default: the stored labels, by agreement."""
    trust: TrustConfig = field(default_factory=TrustConfig)
    seed: int = 0
    """Seed for drawing clips."""

    def __post_init__(self) -> None:
        if not 1 <= self.clips <= MOST_CLIPS:
            raise ConfigError(
                f"--clips {self.clips}: must be in 1-{MOST_CLIPS:,}; a page with more clips is "
                "hard to use."
            )
        if self.policy is not None and find(self.policy).needs_truth:
            raise ConfigError(
                f"--policy {self.policy}: needs exact tracks, which a labelled data set lacks."
            )
        if self.out is not None and not self.out:
            raise ConfigError("--out: is empty. Give a folder, a name that ends in .html, or None.")
        if self.out is not None and not self._is_page and Path(self.out).is_file():
            raise ConfigError(
                f"--out {self.out}: is a file. Give a folder, or a name that ends in .html."
            )

    @property
    def _is_page(self) -> bool:
        """Whether --out names the page itself, and not its folder."""
        return str(self.out).endswith(".html")

    @contextmanager
    def index(self) -> Iterator[Path]:
        """The page to write."""
        out = str(self.out)
        if not is_url(out):
            yield Path(out) if self._is_page else Path(out) / "index.html"
            return
        parent, name = parent_and_name(out) if self._is_page else (out, "index.html")
        players = f"{players_folder(Path(name)).name}/[0-9]*.js"
        with uploaded(parent, folder=True, replaced=(players,)) as folder:
            yield folder / name


def run(config: InspectConfig) -> int:
    """The command: print the summary, and write the report."""
    dataset = open_dataset(config.url)
    shown = _shown_teachers(config, dataset)
    if config.policy is not None and find(config.policy).needs_verdict and dataset.unjudged:
        raise ConfigError(f"--policy {config.policy}: {NOT_JUDGED}")
    say(repr(dataset))
    if dataset.accounts.reasons:
        say(accounts_table(dataset.accounts))
    measures = None
    if len(dataset):
        drawn = dataset.drawn(min(config.clips, MEASURED), config.seed)
        with console.status(f"measuring {len(drawn)} clips"):
            measures = measure(
                list(with_teachers(dataset.read(drawn), shown)),
                dataset,
                () if config.policy is None else (config.policy,),
                config.trust,
            )
        _say_measures(measures, len(dataset))
    if config.out is None:
        return 0
    numbers = dataset.chosen(config.which, config.clips, config.seed)
    clips = _watched(dataset.read(numbers), len(numbers))
    how = _how(config, len(numbers), len(dataset))
    with config.index() as index:
        written = write_report(
            index,
            dataset,
            clips,
            shown,
            measures,
            how,
            policy=config.policy,
            trust=config.trust,
        )
    beside = (
        f"; the players lie beside it in {written.players_folder.name}, so move them together"
        if written.players_folder
        else ""
    )
    say(
        f"{written.clips:,} of {len(dataset):,} clips, labels by "
        f"{described(config.policy, config.trust)}, {data_size(written.size_bytes)}{beside}."
    )
    if is_url(config.out):
        page = (
            config.out if config.out.endswith(".html") else f"{config.out.rstrip('/')}/index.html"
        )
        say(f"the report is {page}: a browser needs its web address, or a copy on this machine")
    else:
        say(f"look at {index.resolve()}")
    return 0


def _shown_teachers(config: InspectConfig, dataset: Dataset) -> list[str]:
    unknown = [name for name in config.teachers if name not in dataset.teachers]
    if unknown:
        raise ConfigError(
            f"--teachers {unknown[0]}: labelled nothing in {config.url}; there are "
            f"{', '.join(dataset.teachers) or 'none yet'}."
        )
    return [name for name in dataset.teachers if name in config.teachers or not config.teachers]


def _watched(clips: Iterator[Clip], total: int) -> Iterator[Clip]:
    """The same clips; a bar in a terminal, a line every ten seconds elsewhere."""
    lines, begun = LineThrottle(), time.monotonic()
    bar = track(
        clips,
        "drawing",
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for done, clip in enumerate(bar):
        if lines.due():
            left = duration((time.monotonic() - begun) / max(done, 1) * (total - done))
            say(f"drawing: {done:,}/{total:,} clips · about {left} left")
        yield clip


def _how(config: InspectConfig, shown: int, there: int) -> str:
    """Which clips and whose labels the report shows, in words."""
    labels = f"labels by {described(config.policy, config.trust)}"
    if shown == there:
        return f"all {there:,} clips; {labels}"
    ways = {
        "random": f"drawn at random, seed {config.seed}",
        "hardest": "those of whose queries the least is kept",
        "most disagreement": "those with the most disagreement",
    }
    return f"{shown:,} of {there:,} clips, {ways[config.which]}; {labels}"


def _say_measures(measures: DatasetMeasures, clips: int) -> None:
    thresholds = measures.thresholds.pivot(index="tau_px", columns="min_support", values="share")
    thresholds.columns = [f"support >= {least:g}, share" for least in thresholds.columns]
    repeats = measures.repeats.add_suffix(", share", axis="columns")
    say(f"\nmeasured on {measures.clips:,} of {clips:,} clips:")
    for title, frame in (
        ("kept, by sampler", measures.by_sampler),
        ("kept, by motion (px of the 256 raster)", measures.by_motion),
        (
            "what the labels say (apart_px: between two teachers there)",
            measures.by_state,
        ),
        ("median distance where both see the point, px of the 256 raster", measures.distances),
        ("where it is far off, this one is at the same wrong position, share", repeats),
        ("kept with another tau, px", thresholds),
        ("taken by policy", measures.policies),
        ("taken by `verified`, with another --trust.min-right", _by_right(measures)),
    ):
        if frame is repeats and not measures.repeats.notna().any(axis=None):
            continue  # there are fewer than four teachers, or only one kind of evidence
        if frame is None:
            continue
        if frame is not measures.distances or len(frame) > 1:
            say(_table(title, frame))
    for sentence in measures.nearly_one:
        say(f"warning: {harmless(sentence)}")


def _by_right(measures: DatasetMeasures) -> pd.DataFrame | None:
    if measures.trusted is None:
        return None
    return measures.trusted.drop(columns="min_hidden").set_index("min_right")


def _table(title: str, frame: pd.DataFrame) -> Table:
    """A table for the terminal, with shares in percent."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    for name in frame.columns:
        table.add_column(harmless(str(name)), justify="right")
    for name, *values in frame.itertuples(name=None):
        cells = (
            _cell(value, str(column)) for column, value in zip(frame.columns, values, strict=True)
        )
        table.add_row(harmless(str(name)), *cells)
    return table


def _cell(value: float, column: str) -> str:
    if value != value:  # NaN: there is nothing to measure
        return "–"
    if column.endswith("share"):
        return f"{value:.0%}"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
