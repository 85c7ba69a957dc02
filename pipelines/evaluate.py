"""tapdistill eval: trackers side by side on clips with exact tracks, in the figures of TAP-Vid and PIPs++."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro
from rich.progress import track
from rich.table import Table

import teachers
from pipelines.console import console, say
from student.evaluate import FIGURES, compare, with_interval
from student.metrics import THRESHOLDS_PX
from student.testsets import TestClip, npz_files, procedural_clips, read_npz
from teachers import CheckpointError, ConfigError, Mode, SurroundingsError, Teacher
from teachers.checkpoints import TEACHER, read_metadata

SHARES = {f"pts_within_{d}": f"within {d} px" for d in THRESHOLDS_PX} | {"survival": "survival"}


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Score trackers on clips with exact tracks: AJ, delta_avg, OA with 95 % bootstrap intervals, thresholds, survival, median error.

    Queries lie where the test set has them, and frames from the query on count (query mode "first").
    """

    model: tuple[str, ...]
    """What to score: a teacher's name, NAME=CHECKPOINT, or a file that `tapdistill train` wrote."""
    dataset: Literal["procedural", "npz"] = "procedural"
    """procedural: drawn from the test photographs. npz: the files in --root."""
    root: Path | None = None
    """Folder of the npz files, as `tapdistill synth` writes them."""
    clips: int | None = None
    """How many clips; without it 8 procedural ones, or all files."""
    seed: int = 0
    """Seed of the first procedural clip; each further clip takes the next."""
    mode: Mode = "predictor"
    """How the trackers are called: see docs/commands/teachers.md."""
    device: str = "auto"
    """Where trackers run: auto, cpu, cuda."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write a parquet table with a row per tracker and clip."""

    def __post_init__(self) -> None:
        if not self.model or len(set(self.model)) != len(self.model):
            raise ConfigError(f"--model {' '.join(self.model)}: name at least one tracker, each once.")
        if self.clips is not None and self.clips < 1:
            raise ConfigError(f"--clips {self.clips}: must be at least 1.")
        if (self.dataset == "npz") != (self.root is not None):
            raise ConfigError("--root FOLDER belongs to --dataset npz, and only to it.")


def run(command: EvalCommand) -> int:
    """The command: score, print the table, and write it if asked."""
    trackers = {text: load_tracker(text, command.device, command.mode) for text in command.model}
    clips, total = test_clips(command)
    scores = compare(
        trackers, track(clips, "scoring", total=total, console=console, transient=True, disable=not console.is_terminal)
    )
    say(f"{total} clips ({command.dataset}), mode {command.mode}, query mode first; %, and px of the 256 x 256 raster")
    say(summary(scores))
    if command.table:
        try:
            scores.to_parquet(command.table, index=False)
        except OSError as error:
            raise SurroundingsError(f"could not write --table {command.table}: {error}.") from error
        say(f"a row per tracker and clip is in {command.table}")
    return 0


def load_tracker(text: str, device: str = "auto", mode: Mode = "predictor") -> Teacher:
    """The tracker that a --model means: "NAME", "NAME=CHECKPOINT", or a file that says itself which network it is of.

    Raises:
        ConfigError: no such name. CheckpointError: no such file, or not of that network.
    """
    name, separator, file = text.partition("=")
    if separator:
        return teachers.load(name, checkpoint=file, device=device, mode=mode)
    if name in teachers.names() or ":" in name:
        return teachers.load(name, device=device, mode=mode)
    if not Path(text).suffix:
        raise ConfigError(f"--model {text}: there are {', '.join(teachers.names())}; or give a file, or NAME=CHECKPOINT.")
    if not Path(text).is_file():
        raise CheckpointError(f"--model {text}: no such checkpoint file.")
    stored = read_metadata(text).get(TEACHER)
    if stored is None:
        raise CheckpointError(f"--model {text}: the file does not say which network it is of: write NAME={text} with its NAME.")
    return teachers.load(stored, checkpoint=text, device=device, mode=mode)


def test_clips(command: EvalCommand) -> tuple[Iterator[TestClip], int]:
    """The clips of the test set, one at a time, and how many there are."""
    if command.root is None:
        count = command.clips or 8
        return procedural_clips(count, command.seed), count
    files = npz_files(command.root, command.clips)
    return map(read_npz, files), len(files)


def summary(scores: pd.DataFrame) -> Table:
    """A column per tracker: means over clips, in percent; the first three with their 95 % bootstrap interval."""
    trackers = {str(name): rows for name, rows in scores.groupby("model", sort=False)}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in trackers:
        table.add_column(name, justify="right", overflow="fold")
    for figure in FIGURES:
        means = [with_interval(100 * rows[figure]) for rows in trackers.values()]
        table.add_row(figure, *(f"{mean:.1f} ({low:.1f}-{high:.1f})" for mean, low, high in means))
    for figure, title in SHARES.items():
        table.add_row(title, *(f"{100 * rows[figure].mean():.1f}" for rows in trackers.values()))
    table.add_row("median error, px", *(f"{rows['median_error_px'].median():.2f}" for rows in trackers.values()))
    table.add_row("frames/s", *(f"{rows['frames'].sum() / rows['seconds'].sum():.1f}" for rows in trackers.values()))
    return table
