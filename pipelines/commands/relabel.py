"""tapdistill relabel: agreement and the verifier again, from what is stored; no teacher runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np
import tyro
from rich.progress import track

from labeler.fingerprint import one_thread
from labeler.io import Storage
from labeler.labels import AgreementConfig
from labeler.labels.verdict import shipped_version
from labeler.shards import tables
from labeler.shards.manifest import read_manifest
from labeler.shards.members import to_json
from labeler.shards.plan import read_plans
from labeler.shards.record import Record
from labeler.shards.records import Records, latest, latest_records
from labeler.shards.revisions import relabel
from pipelines.terminal.console import console, say
from pipelines.wording import counted
from teachers import ShardError


@dataclass(frozen=True, kw_only=True)
class RelabelConfig:
    """Compute support, state, valid, and keep again with other thresholds, let the verifier judge
    clips that it has not judged yet, and write new revisions of the shards.

    Running the same command again continues where it stopped.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or an fsspec URL."""
    prune: bool = False
    """Leave queries whose labels are not kept out of the new shards. The others get new numbers; a
    review that names queries, as a player writes it, still fits."""
    judge: Annotated[
        bool,
        tyro.conf.arg(
            help="Do not let the verifier judge clips that no verifier, or one of another "
            "version, has judged, which takes seconds for each: stored verdicts stay as they are.",
            help_behavior_hint="",
        ),
    ] = True
    """Let the verifier judge clips that no verifier, or one of another version, has judged."""
    agreement: AgreementConfig = field(default_factory=AgreementConfig)


def run(config: RelabelConfig) -> int:
    storage = Storage(config.data)
    read_manifest(storage)
    before = latest_records(storage)
    table = before.table
    stale = (table["agreement"].astype("object") != to_json(asdict(config.agreement))).to_numpy()
    if config.judge:
        stale = stale | (table["verifier"].astype("object") != shipped_version()).to_numpy()
    if config.prune:
        stale = stale | (table["kept"] != table["queries"]).to_numpy()
    shown = track(
        before.take(np.flatnonzero(stale)),
        "relabelling",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    changed, wrong = 0, 0
    with one_thread():  # so that a verdict has the bits that `label` gives it
        for record in shown:
            try:
                changed += _relabel(storage, record, config)
            except ShardError as error:
                say(f"PROBLEM: {error}")
                wrong += 1
    after = latest_records(storage)
    tables.compact(storage, after)
    plans = read_plans(storage)
    then, now = (tables.without_superseded(plans, records) for records in (before, after))
    say(
        f"{changed} of {len(after)} units have new labels (tau {config.agreement.tau_px:g} px, "
        f"support >= {config.agreement.min_support:g}): {_kept(then)} -> {_kept(now)}; "
        f"{_judged(now)}. `tapdistill gc {config.data}` removes the old shards."
    )
    if wrong:
        raise ShardError(
            f"{storage.url}: the shards of {counted(wrong, 'unit')} are damaged or missing, and "
            f"keep their labels; the others are done. `tapdistill verify {storage.url}` says what "
            "to do."
        )
    return 0


def _is_stale(record: Record, config: RelabelConfig) -> bool:
    """Whether the labels of a unit are not yet what the command asks for."""
    return (
        record.agreement != asdict(config.agreement)
        or (config.judge and record.verifier != shipped_version())
        or (config.prune and any(entry.kept != entry.queries for entry in record.clips))
    )


def _relabel(storage: Storage, record: Record | None, config: RelabelConfig) -> bool:
    """Whether the unit got a new revision. After another writer was faster, it is tried again from
    that one's revision."""
    while record is not None and _is_stale(record, config):
        if relabel(storage, record, config.agreement, prune=config.prune, judge=config.judge):
            return True
        record = latest(storage, record.unit)
    return False


def _judged(records: Records) -> str:
    versions = records.table["verifier"].astype("object").fillna("")
    by_version = records.table["clips"].groupby(versions).sum()
    said = [
        f"{count:,} clips judged by verifier {version}"
        for version, count in by_version.items()
        if version and count
    ]
    if not_judged := by_version.get("", 0):
        said.append(f"{not_judged:,} clips not judged")
    return ", ".join(said) or "no clip to judge"


def _kept(records: Records) -> str:
    table = records.table
    return f"{table['kept'].sum():,} of {table['queries'].sum():,} queries kept"
