"""tapdistill teachers: what there is, its licence, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

import teachers
from pipelines.console import say


@dataclass(frozen=True, kw_only=True)
class TeachersConfig:
    """List the teachers that can be named here."""


def run(config: TeachersConfig) -> int:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "what it is", "licence", "weights"):
        table.add_column(column)
    for entry in teachers.entries():
        table.add_row(entry.name, entry.architecture, entry.licence, entry.weights)
    say(table)
    return 0
