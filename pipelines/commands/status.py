"""tapdistill status: how far a job has come that runs elsewhere, or has died.

What is done is read from the commit records; what is going on, from the heartbeats that running
jobs leave in the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from labeler.io import Storage
from labeler.shards import tables
from labeler.shards.manifest import read_manifest
from labeler.shards.plan import number_of_units, read_plans
from labeler.shards.records import latest_records
from pipelines.jobs.heartbeat import Heard, jobs
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
    found = jobs(storage)
    for heard in found[:SHOWN]:
        say(_line(heard))
    if len(found) > SHOWN:
        say(f"and {counted(len(found) - SHOWN, 'older job')}.")
    if accounts.open and not any(heard.is_at_work for heard in found):
        say("no job is working on it: run the command that began it again to continue.")
    return 0


def _line(heard: Heard) -> str:
    """One job in a line."""
    snapshot, ago = heard.snapshot, duration(heard.ago_s)
    name = f"job {snapshot.host}-{snapshot.pid}"
    done = (
        f"{snapshot.videos_done}/{snapshot.videos} videos · {counts(snapshot)}"
        if snapshot.videos
        else "it found nothing left to do"
    )
    if snapshot.ended:
        return f"{name} ended {ago} ago: {done}"
    if heard.is_silent:
        return f"{name} has been silent for {ago}, so it is dead or cut off: {done}"
    return f"{name} at work, heard {ago} ago: {done}{left(snapshot)}"
