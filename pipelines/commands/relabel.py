"""tapdistill relabel: agreement again, from the stored raw tracks; no teacher runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated

import tyro

from labeler.io import Storage
from labeler.labels import AgreementConfig
from labeler.shards import tables
from labeler.shards.manifest import read_manifest
from labeler.shards.records import Record, latest, latest_records
from labeler.shards.revisions import relabel
from pipelines.terminal.console import console, say


@dataclass(frozen=True, kw_only=True)
class RelabelConfig:
    """Compute support, state, valid, and keep again with other thresholds, and write new revisions
    of the shards."""

    data: Annotated[str, tyro.conf.Positional]
    """The data set: a folder or an fsspec URL."""
    prune: bool = False
    """Leave queries whose labels are not kept out of the new shards."""
    agreement: AgreementConfig = field(default_factory=AgreementConfig)


def run(config: RelabelConfig) -> int:
    storage = Storage(config.data)
    read_manifest(storage)
    before = latest_records(storage)
    changed = 0
    with console.status("relabelling") as status:
        for number, record in enumerate(before):
            status.update(f"relabelling: unit {number + 1} of {len(before)}")
            changed += _relabel(storage, record, config)
    after = latest_records(storage)
    tables.compact(storage, after)
    say(
        f"{changed} of {len(after)} units have new labels (tau {config.agreement.tau_px:g} px, "
        f"support >= {config.agreement.min_support:g}): {_kept(before)} -> {_kept(after)}. "
        f"`tapdistill gc {config.data}` removes the old shards."
    )
    return 0


def _relabel(storage: Storage, record: Record | None, config: RelabelConfig) -> bool:
    """True if the unit got a new revision; a lost race is run again from the winner's."""
    while record is not None:
        nothing_to_prune = not config.prune or all(
            entry.kept == entry.queries for entry in record.clips
        )
        if record.agreement == asdict(config.agreement) and nothing_to_prune:
            return False
        if relabel(storage, record, config.agreement, prune=config.prune):
            return True
        record = latest(storage, record.unit)
    return False


def _kept(records: list[Record]) -> str:
    kept = sum(entry.kept for record in records for entry in record.clips)
    return (
        f"{kept:,} of {sum(entry.queries for record in records for entry in record.clips):,} "
        "queries kept"
    )
