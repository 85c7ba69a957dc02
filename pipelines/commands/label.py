"""tapdistill label: the labelling job, here or on a Ray cluster.

    freeze dataset.json -> plan -> open units
        -> engine (local or Ray) runs `labeler.unit.do_unit` on each -> tables -> summary

The same command again goes on where it stopped; with another `--teachers` it adds those that are
missing. Several drivers may work on one data set: `--shards i/N` gives each its share, and those
that overlap do no harm.
"""

from __future__ import annotations

from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import LabelResult, label
from pipelines.terminal.console import counted, say
from pipelines.terminal.tables import accounts_table
from teachers import SurroundingsError


def run(config: LabelConfig) -> int:
    """The command: label, print the summary, and return the exit code: 0 if nothing is left
    open."""
    if config.dry_run:
        from pipelines.jobs.estimate import print_estimate

        print_estimate(config)
        return 0
    result = label(config)
    print_summary(result, config.out)
    if result.open_units:
        why = (
            result.troubles[0].why
            if result.troubles
            else "their workers wrote elsewhere: --out must be one place for all nodes."
        )
        raise SurroundingsError(
            f"{len(result.open_units)} units are still open: {why} The same command goes on from "
            "here."
        )
    return 0


def print_summary(result: LabelResult, out: str) -> None:
    """What went in, what became of it, and where it is."""
    say("")
    say(accounts_table(result.accounts))
    records = result.records
    clips = [entry for record in records for entry in record.clips]
    queries, kept = sum(entry.queries for entry in clips), sum(entry.kept for entry in clips)
    size = sum(record.size_bytes for record in records)
    names = sorted({name for record in records for name in record.teachers})
    shards = sum(record.tar is not None for record in records)
    say(
        f"{counted(len(clips), 'clip')}, {queries:,} queries of which {kept:,} kept "
        f"({kept / max(queries, 1):.0%}), teachers {', '.join(names)}; {size / 1e6:.1f} MB in "
        f"{counted(shards, 'shard')}; {result.seconds:.1f} s."
    )
    say(
        f"shards, clips.parquet, and failures.parquet are in {out}; look at them with `tapdistill "
        f"inspect {out}`"
    )
