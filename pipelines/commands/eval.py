"""tapdistill eval: score trackers, or labels, side by side on clips with exact tracks.

Trackers are scored by the figures of TAP-Vid and PIPs++, labels by those of
`student.evaluation.labels`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pandas as pd
import tyro
from rich.progress import track
from rich.table import Table

import teachers
from labeler.labels.agreement import RASTER, AgreementConfig
from labeler.labels.policies import find, names
from labeler.labels.trust import TrustConfig
from pipelines.terminal.console import console, say
from pipelines.tracking.trackers import name_and_checkpoint, titles
from student.clip import TestClip
from student.evaluation.evaluate import FIGURES, compare, minus, with_interval
from student.evaluation.kubric import read_sequence, sequences
from student.evaluation.labels import (
    LABEL_FIGURES,
    LABEL_SHARES,
    OCCLUDED_FIGURES,
    VISIBLE_FIGURES,
    LabelScore,
    compare_policies,
    without_hidden_positions,
)
from student.evaluation.metrics import THRESHOLDS_PX, QueryMode
from student.evaluation.tapvid import TapVid, tapvid_clips
from student.evaluation.testsets import (
    npz_clips,
    on_tapvid_raster,
    procedural_clips,
    strided,
)
from teachers import ConfigError, Mode, ShardError, Teacher, TeacherInfo, Tracks, TransientError
from teachers.info import Precision
from teachers.loading import compiled_setting, known_name, refuse_compiled, settings_of
from teachers.registry import declared

PROCEDURAL_CLIPS = 8
HIDDEN_UNKNOWN = ("tapvid-davis", "tapvid-kinetics", "robotap")
"""Data sets of real video: people marked where points are visible, but not where hidden ones
are."""
NOTHING = "-"
"""Shown for a figure that has nothing to count."""


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Score trackers on clips with exact tracks: AJ, delta_avg, and OA with 95 % bootstrap
    intervals, thresholds, survival, median error, and re-detection; or, with --policy, score the
    labels that would be made from their tracks.

    The defaults are TAP-Vid's protocol as the CoTracker papers follow it, with all points of a
    video together.
    """

    model: tuple[str, ...]
    """What to score: a teacher's name, NAME=CHECKPOINT, or a checkpoint file, whose network is
    recognised. Several are compared; with --policy, they are the teachers."""
    baseline: str | None = None
    """One of --model: also print every other tracker minus this one, paired over clips; as a
    student minus what it began with."""
    policy: tuple[str, ...] = ()
    """Score the labels that these policies make from all the teachers, beside those of each teacher
    alone. Separated by spaces or commas; "all" for every policy."""
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    """Thresholds of the policies."""
    trust: TrustConfig = field(default_factory=TrustConfig)
    queries: int = 256
    """With --policy, a clip with fewer queries gets more, drawn as for labels: the verifier judges
    a point by its neighbours. Their labels do not count."""
    dataset: Literal[
        "procedural",
        "npz",
        "kubric",
        "tapvid-davis",
        "tapvid-rgb-stacking",
        "tapvid-kinetics",
        "robotap",
    ] = "procedural"
    """procedural: drawn from the test photographs. The others are read from --root: see
    docs/commands/eval.md."""
    root: str | None = None
    """Where the data set is: a folder, a file, or an fsspec URL."""
    query_mode: QueryMode = "first"
    """first: each point is queried where it is first seen, and later frames count. strided: it is
    queried in every fifth frame in which it is visible, and all other frames count."""
    raster: Literal["256", "own"] = "256"
    """Size of the frames that trackers see: 256 x 256 px, as TAP-Vid prescribes, or the clip's own.
    Either way, distances are px of 256 x 256."""
    points: Literal["joint", "single"] = "joint"
    """joint: a CoTracker tracks all points of a video together. single: each alone, with support
    points around it."""
    global_grid: int | None = None
    """Support points per side over frame 0, for a CoTracker; None: 5 in mode benchmark, otherwise
    those of the mode."""
    local_grid: int | None = None
    """Support points per side around a point that is tracked alone; None: 8."""
    clips: int | None = None
    """How many clips; None: all, or 8 procedural ones."""
    seed: int = 0
    """Seed of the first procedural clip; each further clip takes the next."""
    mode: Mode | None = None
    """How the trackers are called: see docs/teachers.md. None: benchmark or, with --policy,
    label."""
    device: str = "auto"
    """Where trackers run: auto, cpu, cuda."""
    precision: Precision = "auto"
    """How networks multiply. float32; tf32, on a GPU, many times faster; bf16, faster again, in the
    parts that can bear it. auto: tf32 on a GPU, float32 on a CPU."""
    compiled: bool = False
    """Hand the large parts of networks to torch.compile, which is meant for a GPU and many clips of
    one size. The first clip then takes a minute or more; nothing was measured on a GPU."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write a parquet table, with one row per tracker and clip."""

    def __post_init__(self) -> None:
        if not self.model or len(set(self.model)) != len(self.model):
            raise ConfigError(
                f"--model {' '.join(self.model)}: name at least one tracker, each once."
            )
        if self.baseline is not None:
            if self.baseline not in self.model or len(self.model) < 2:
                raise ConfigError(
                    f"--baseline {self.baseline}: name one of --model {' '.join(self.model)}, as "
                    "it is written there, beside at least one other."
                )
            if self.policies:
                raise ConfigError("--baseline compares trackers, and --policy labels: give one.")
        if self.clips is not None and self.clips < 1:
            raise ConfigError(f"--clips {self.clips}: must be at least 1.")
        if self.queries < 0:
            raise ConfigError(f"--queries {self.queries}: must be 0 or more.")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: must be 0 or more.")
        if (self.dataset == "procedural") != (self.root is None):
            raise ConfigError(
                f"--dataset {self.dataset}: every data set but procedural is read from --root, and "
                "only those are."
            )
        if self.points == "single" and self.called_in != "benchmark":
            raise ConfigError(
                f"--points single belongs to --mode benchmark, not to {self.called_in}."
            )
        for name in self.policies:
            if ":" not in name and name not in names():
                raise ConfigError(f"--policy {name}: there are {', '.join(names())}, or all.")
            find(name)
        if self.local_grid is not None and self.points != "single":
            raise ConfigError(
                "--local-grid belongs to --points single: points that are tracked together have no "
                "grid of their own."
            )
        if self.out is not None and self.out.suffix != ".parquet":
            raise ConfigError(f"--out {self.out}: name a file that ends in .parquet.")
        if self.out is not None and not self.out.parent.is_dir():
            raise ConfigError(f"--out {self.out}: there is no folder {self.out.parent}.")

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that --policy names, each once."""
        words = [word for text in self.policy for word in text.split(",") if word]
        return tuple(dict.fromkeys(names() if words == ["all"] else words))

    @property
    def called_in(self) -> Mode:
        """The mode in which trackers are called."""
        return self.mode or ("label" if self.policies else "benchmark")


def run(command: EvalCommand) -> int:
    """The command: score, print the table, and write it if asked."""
    trackers = trackers_of(command)
    clips, total = clips_of(command)
    shown = track(
        clips,
        "scoring",
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    if command.policies:
        labels, scores = compare_policies(
            command.policies,
            trackers,
            shown,
            command.agreement,
            command.seed,
            command.trust,
            command.queries,
        )
    else:
        labels, scores = {}, compare(trackers, shown, command.query_mode)
    if scores.empty:
        raise ShardError(f"--root {command.root}: the data set holds no video.")
    say(settings(command, scores))
    for (title, tracker), text in zip(trackers.items(), command.model, strict=True):
        file = "" if text == title else f" ({text})"
        say(f"  {title}{file}: {how_called(tracker.info)}")
    if labels:
        say(label_table(labels, tuple(VISIBLE_FIGURES)))
        say(label_table(labels, tuple(OCCLUDED_FIGURES)))
        say("\n".join(f"{name}: {what}" for name, what in LABEL_FIGURES.items()))
    else:
        say(headline(scores))
        if command.baseline is not None:
            called = dict(zip(command.model, trackers, strict=True))
            say(difference_table(scores, called[command.baseline]))
        say(details(scores))
    if command.out:
        scores.insert(0, "dataset", command.dataset)
        scores.insert(1, "query_mode", command.query_mode)
        try:
            scores.to_parquet(command.out, index=False)
        except OSError as error:
            raise TransientError(f"could not write --out {command.out}: {error}.") from error
        say(f"a row per tracker and clip is in {command.out}")
    return 0


def trackers_of(command: EvalCommand) -> dict[str, Teacher]:
    """Every tracker by its title (see `titles`)."""
    named = [name_and_checkpoint(text) for text in command.model]
    if command.compiled:
        refuse_compiled(named)
    loaded = [_tracker(name, checkpoint, command) for name, checkpoint in named]
    called = titles(
        [
            (tracker.info.name, checkpoint)
            for tracker, (_, checkpoint) in zip(loaded, named, strict=True)
        ]
    )
    return dict(zip(called, loaded, strict=True))


def _tracker(name: str, checkpoint: str | None, command: EvalCommand) -> Teacher:
    """One of --model, called as the command says. How points are grouped matters only where they
    see each other: a tracker that has settings for it is given these, any other gets its points one
    by one."""
    single = command.points == "single"
    grouping: dict[str, Any] = {}
    known = declared(known_name(name, checkpoint))
    if known.tracks_jointly:
        grouping = {
            "single": single,
            "support_grid": command.global_grid,
            "local_grid": command.local_grid,
        }
        had = settings_of(known)
        grouping = {setting: value for setting, value in grouping.items() if setting in had}
    teacher = teachers.load(
        name,
        checkpoint=checkpoint,
        device=command.device,
        mode=command.called_in,
        precision=command.precision,
        **grouping,
        **compiled_setting(command.compiled, name, checkpoint),
    )
    alone = single and teacher.info.tracks_jointly and "single" not in grouping
    return OneByOne(teacher) if alone else teacher


class OneByOne(Teacher):
    """A teacher that is asked for each point by itself."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.info = replace(
            teacher.info, settings={**teacher.info.settings, "points": "each alone"}
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        alone = [self._teacher.track(frames, query[None], seed) for query in queries]
        return Tracks(
            np.concatenate([tracks.xy for tracks in alone]),
            np.concatenate([tracks.visibility for tracks in alone]),
            np.concatenate([tracks.confidence for tracks in alone]),
        )


def clips_of(command: EvalCommand) -> tuple[Iterator[TestClip], int | None]:
    """The clips of the test set as the trackers see them, one at a time, and how many there are,
    where that is known."""
    total = command.clips
    clips: Iterator[TestClip]
    if command.root is None:
        total = command.clips or PROCEDURAL_CLIPS
        clips = procedural_clips(total, command.seed)
    elif command.dataset == "npz":
        clips = npz_clips(command.root)
    elif command.dataset == "kubric":
        clips = map(read_sequence, sequences(command.root))
    else:
        clips = tapvid_clips(cast(TapVid, command.dataset), command.root)
    clips = islice(clips, command.clips)
    if command.policies and command.dataset in HIDDEN_UNKNOWN:
        clips = map(without_hidden_positions, clips)
    if command.query_mode == "strided":
        clips = map(strided, clips)
    if command.raster == "256":
        clips = map(on_tapvid_raster, clips)
    return clips, total


def settings(command: EvalCommand, scores: pd.DataFrame) -> str:
    """What was measured, in one line."""
    asked = scores.drop_duplicates("clip")
    size = f"{RASTER} x {RASTER} px" if command.raster == "256" else "their own size"
    figures = (
        "labels of all frames but the query's, shares in %"
        if command.policies
        else "figures in % with 95 % intervals over clips"
    )
    return (
        f"{command.dataset}: {len(asked)} clips, {asked['points'].sum()} queries, query mode "
        f"{command.query_mode}, frames at {size}; {figures}, distances in px of 256 x 256"
    )


def how_called(info: TeacherInfo) -> str:
    """How a tracker was called, in one line."""
    said = info.settings
    if info.tracks_jointly and "support_grid" in said:  # a CoTracker
        together = (
            f"each alone with a local {said['local_grid']} x {said['local_grid']} grid"
            if said["single"]
            else "all together"
        )
        points = (
            f"points {together}, global grid {said['support_grid']} x {said['support_grid']}, "
            f"{said['iterations']} iterations"
        )
    elif said:
        points = ", ".join(f"{name} {value}" for name, value in said.items())
    elif info.tracks_jointly:
        points = "points all together"
    else:
        points = "points independent of each other"
    return f"mode {info.mode}, {points}; visible: {info.visible_rule}"


def headline(scores: pd.DataFrame) -> Table:
    """A row per tracker: the mean over clips of TAP-Vid's three figures, in percent, each with its
    bootstrap interval."""
    table = _table(FIGURES)
    for name, rows in _by_tracker(scores):
        means = [with_interval(100 * rows[figure]) for figure in FIGURES]
        table.add_row(
            name,
            *(
                f"{mean:.1f} ({low:.1f}-{high:.1f})" if math.isfinite(mean) else NOTHING
                for mean, low, high in means
            ),
        )
    return table


def difference_table(scores: pd.DataFrame, baseline: str) -> Table:
    """A row per other tracker: its figures minus those of the baseline, in points, paired over
    clips, and on how many clips it is above."""
    table = _table(FIGURES)
    table.columns[0].header = f"minus {baseline}"
    for name, rows in _by_tracker(minus(scores, baseline)):
        table.add_row(
            name,
            *(
                f"{100 * row['mean']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] "
                f"{row['above']}/{row['clips']}"
                if row["clips"]
                else NOTHING
                for row in rows.to_dict("records")
            ),
        )
    table.caption = (
        "points; [95 % bootstrap interval over clips, paired: too narrow where clips are few]; on "
        "how many clips it is above"
    )
    table.caption_justify = "left"
    return table


def details(scores: pd.DataFrame) -> Table:
    """A row per tracker: mean over clips of the share within each threshold, survival, AJ_RD;
    median over clips, px; frames per second."""
    shares = (*(f"pts_within_{d}" for d in THRESHOLDS_PX), "survival", "AJ_RD")
    table = _table((*(f"<{d} px" for d in THRESHOLDS_PX), "survival", "AJ_RD", "median", "fps"))
    for name, rows in _by_tracker(scores):
        speed = rows["frames"].sum() / rows["seconds"].sum()
        cells = (
            *(f"{100 * rows[share].mean():.1f}" for share in shares),
            f"{rows['median_error_px'].median():.2f}",
            f"{speed:.1f}",
        )
        table.add_row(name, *(NOTHING if cell == "nan" else cell for cell in cells))
    return table


def label_table(labels: Mapping[str, LabelScore], figures: Sequence[str]) -> Table:
    """A row per teacher and policy: some figures of its labels, over all clips."""
    table = _table(figures)
    for name, score in labels.items():
        found = score.figures()
        cells = (
            f"{100 * found[figure]:.1f}" if figure in LABEL_SHARES else f"{found[figure]:.2f}"
            for figure in figures
        )
        table.add_row(name, *(NOTHING if cell == "nan" else cell for cell in cells))
    return table


def _by_tracker(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each tracker."""
    return [(str(name), rows) for name, rows in scores.groupby("model", sort=False)]


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table
