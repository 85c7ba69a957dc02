"""tapdistill verify, tapdistill gc: is every shard what its record says, and what may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from labeler.io import Storage
from labeler.shards.records import digests_of, latest_records
from labeler.shards.verify import collect_garbage, verify
from pipelines.terminal.console import console, say
from teachers import ShardError


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Compare every shard with its commit record; exit code 1 if one is not what it should be."""

    data: Annotated[str, tyro.conf.Positional]
    """The data set: a folder or an fsspec URL."""
    quick: bool = False
    """Compare names and sizes only, without reading the shards."""


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Remove shards that a later revision replaces, and what interrupted writers left."""

    data: Annotated[str, tyro.conf.Positional]
    """The data set: a folder or an fsspec URL."""
    older_than_s: float = 3600.0
    """A shard without a record may belong to a writer at work; it goes only if it is older than
    this."""
    dry_run: bool = False
    """Only say what would be removed."""


def run_verify(config: VerifyConfig) -> int:
    storage = Storage(config.data)
    with console.status("verifying"):
        findings = list(verify(storage, quick=config.quick))
    for finding in findings:
        say(f"{'note' if finding.harmless else 'PROBLEM'}: {finding.file} {finding.problem}")
    problems = sum(not finding.harmless for finding in findings)
    records = latest_records(storage) if not problems else []
    if problems:
        raise ShardError(
            f"{storage.url}: {problems} problems in its shards. Restore them; or delete the "
            "records of these units (shards/<unit>.r*.json), and the same `label` does them again."
        )
    clips = int(digests_of(records)["clips"].sum()) if records else 0
    say(
        f"{storage.url}: {len(records)} shards with {clips} clips are what their records "
        f"say{' (sizes only)' if config.quick else ''}."
    )
    return 0


def run_gc(config: GcConfig) -> int:
    storage = Storage(config.data)
    removed = collect_garbage(storage, older_than_s=config.older_than_s, dry_run=config.dry_run)
    for name in removed:
        say(name)
    say(f"{storage.url}: {len(removed)} files {'would be ' if config.dry_run else ''}removed.")
    return 0
