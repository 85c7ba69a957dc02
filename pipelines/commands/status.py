"""tapdistill status: how far a job has come that runs elsewhere, or has died.

What is done is read from the commit records; what is going on, from the heartbeats that running
jobs leave in the data set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from labeler.io import Storage
from labeler.shards import tables
from labeler.shards.manifest import read_manifest
from labeler.shards.plan import number_of_units, read_plans
from labeler.shards.records import latest_records
from pipelines.jobs.heartbeat import is_silent, jobs
from pipelines.jobs.progress import Snapshot
from pipelines.terminal.console import say
from pipelines.terminal.labelling import counts, left
from pipelines.terminal.tables import accounts_table
from pipelines.wording import counted, data_size, duration

SHOWN = 8
"""How many jobs are listed, the latest first."""


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    """Show what is done of a data set, what is open, and which jobs are working on it."""

    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or any fsspec URL."""


def run(config: StatusConfig) -> int:
    """Print the status."""
    storage = Storage(config.url)
    read_manifest(storage)
    plans, records = read_plans(storage), latest_records(storage)
    accounts = tables.accounts(plans, records)
    say(accounts_table(accounts))
    say(
        f"{len(records)} of {number_of_units(plans)} units are committed, "
        f"{data_size(records.table['size_bytes'].sum())}."
    )
    found, now = jobs(storage), time.time()
    for snapshot in found[:SHOWN]:
        say(_line(snapshot, now))
    if len(found) > SHOWN:
        say(f"and {counted(len(found) - SHOWN, 'older job')}.")
    if accounts.open and not any(_is_at_work(snapshot, now) for snapshot in found):
        say("no job is working on it: run the command that began it again to continue.")
    return 0


def _is_at_work(snapshot: Snapshot, now: float) -> bool:
    return not snapshot.ended and not is_silent(snapshot, now)


def _line(snapshot: Snapshot, now: float) -> str:
    """One job in a line."""
    name = f"job {snapshot.host}-{snapshot.pid}"
    done = (
        f"{snapshot.videos_done}/{snapshot.videos} videos · {counts(snapshot)}"
        if snapshot.videos
        else "it found nothing left to do"
    )
    if snapshot.ended:
        return f"{name} ended {duration(now - snapshot.now)} ago: {done}"
    if is_silent(snapshot, now):
        return (
            f"{name} has been silent for {duration(now - snapshot.now)}, so it is dead or cut off: "
            f"{done}"
        )
    return f"{name} at work, heard {duration(now - snapshot.now)} ago: {done}{left(snapshot)}"
