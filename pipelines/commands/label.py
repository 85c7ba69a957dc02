"""tapdistill label: run a labelling job, here or on a Ray cluster.

    freeze dataset.json -> plan -> open units
        -> engine (local or Ray) runs `labeler.unit.do_unit` on each -> tables -> summary

Running the same command again continues where it stopped; with other `--teachers`, it adds those
that are missing. Several drivers may work on one data set: `--shards i/N` gives each its share, and
overlaps do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pipelines
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.estimate import dry_plan, warm_up
from pipelines.jobs.labelling import LabelResult, label
from pipelines.terminal.console import complain, say
from pipelines.terminal.labelling import LabelProgress, estimate_table, print_summary
from pipelines.wording import counted, data_size
from teachers import TransientError


@dataclass(frozen=True, kw_only=True)
class LabelCommand(LabelConfig):
    """Label real videos with several teachers, and write WebDataset shards.

    Running the same command again continues where it stopped; with other --teachers, it adds those
    that are missing. --recipe cotracker3_15k stores long clips, of which a student sees a different
    part at every visit.
    """

    RECIPES: ClassVar[Path] = Path(pipelines.__file__).parent / "recipes"

    dry_run: bool = False
    """Print the plan, and an estimate of time and bytes from a few clips that are labelled and then
    discarded; write nothing."""


def run(command: LabelCommand) -> int:
    """The command: label, print the summary, and return the exit code, which is 0 if nothing is
    left open and something is labelled."""
    if command.dry_run:
        print_estimate(command)
        return 0
    result = run_labelling(command)
    if result.open_units:
        why = (
            result.troubles[0].why
            if result.troubles
            else "their workers wrote elsewhere: --out must be the same folder on all nodes."
        )
        count = len(result.open_units)
        raise TransientError(
            f"{counted(count, 'unit')} {'is' if count == 1 else 'are'} still open: {why} Run the "
            "same command again to continue."
        )
    accounts = result.accounts
    if not accounts.labelled and (result.records or not accounts.open):
        reasons = ", ".join(
            f"{counted(count, what)} {reason}"
            for (what, reason), count in accounts.reasons.most_common(3)
        )
        complain(
            f"nothing is labelled{f' ({reasons})' if reasons else ''}: failures.parquet in "
            f"{command.out} says why."
        )
        return 1
    return 0


def run_labelling(config: LabelConfig) -> LabelResult:
    """Label with a progress bar, and print the summary."""
    with LabelProgress() as progress:
        result = label(config, progress.show)
    print_summary(result, config.out)
    return result


def print_estimate(config: LabelConfig) -> None:
    """Print the plan and the estimate; nothing is written.

    Raises:
        ConfigError: as `dry_plan`.
    """
    plan = dry_plan(config)
    if plan.planned_before:
        say(f"{config.out} is planned already.")
    for note in plan.notes:
        say(f"note: {note}")
    todo = len(plan.todo)
    filtered = f" ({plan.unwanted} left out by their words)" if plan.unwanted else ""
    i, n = config.share()
    part = f", {plan.units_to_do}{f' of share {i}/{n}' if n > 1 else ''} to do"
    say(
        f"{counted(plan.videos, 'video')}{filtered} in {counted(plan.units, 'unit')}"
        f"{part if plan.units_to_do < plan.units else ''}; {data_size(plan.bytes)} to read"
        + (", sizes of a list not counted." if todo and not plan.bytes else ".")
    )
    if not todo:
        return
    videos = plan.some()
    say(f"labelling one clip of each of {counted(len(videos), 'video')} here, to measure ...")
    found = warm_up(config, videos)
    for problem in found.problems:
        say(f"  {problem}")
    if not found.clips:
        say("no clip could be labelled, so there is no estimate.")
        return
    say(estimate_table(found, todo))
