"""tapdistill verify and tapdistill gc: whether every shard is what its record says, and what can be
removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from labeler.io import Storage
from labeler.shards.record import Record
from labeler.shards.verify import collect_garbage, verify
from pipelines.terminal.console import console, say
from pipelines.terminal.progress import LineThrottle
from pipelines.wording import counted
from teachers import ShardError


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Compare every shard with its commit record; the exit code is 1 if one differs."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or an fsspec URL."""
    quick: bool = False
    """Compare only names and sizes, without reading the shards."""


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Remove shards that a later revision replaces, and what interrupted writers left."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or an fsspec URL."""
    older_than_s: float = 3600.0
    """A shard without a record may belong to a writer that is still at work, so it is removed only
    if it is older than this, by the clock of the storage."""
    dry_run: bool = False
    """Only say what would be removed."""


def run_verify(config: VerifyConfig) -> int:
    storage = Storage(config.data)
    shards = clips = problems = 0
    lines = LineThrottle()
    with console.status("verifying") as status:

        def seen(record: Record) -> None:
            nonlocal shards, clips
            shards, clips = shards + 1, clips + len(record.clips)
            status.update(f"verifying: {counted(shards, 'shard')}")
            if lines.due():
                say(f"verifying: {counted(shards, 'shard')} with {counted(clips, 'clip')} so far")

        for finding in verify(storage, quick=config.quick, seen=seen):
            say(f"{'note' if finding.harmless else 'PROBLEM'}: {finding.file} {finding.problem}")
            problems += not finding.harmless
    if problems:
        raise ShardError(
            f"{storage.url}: {counted(problems, 'problem')}. Restore shards that are wrong; or "
            "delete the records of their units (shards/<unit>.r*.json), and run the same `label` "
            "command, which does them again."
        )
    say(
        f"{storage.url}: {counted(shards, 'shard')} with {counted(clips, 'clip')} are what "
        f"their records say{' (sizes only)' if config.quick else ''}."
    )
    return 0


def run_gc(config: GcConfig) -> int:
    storage = Storage(config.data)
    removed = collect_garbage(storage, older_than_s=config.older_than_s, dry_run=config.dry_run)
    for name in removed:
        say(name)
    would = "would be " if config.dry_run else ""
    say(f"{storage.url}: {counted(len(removed), 'file')} {would}removed.")
    return 0
