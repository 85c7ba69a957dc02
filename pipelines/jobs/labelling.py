"""The labelling job, here or on a Ray cluster.

    freeze dataset.json -> plan -> open units
        -> engine (local or Ray) runs `labeler.unit.do_unit` on each -> tables

Running the same job again continues where it stopped; with other teachers, it adds those that are
missing. Several drivers may work on one data set: `--shards i/N` gives each its share, and overlaps
do no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version

import pandas as pd

from labeler.io import Storage
from labeler.io.scratch import remove_abandoned, scratch_folder
from labeler.labels.verdict import shipped_version
from labeler.shards import tables
from labeler.shards.copies import FOLDER as COPIES
from labeler.shards.manifest import Frozen, freeze
from labeler.shards.members import to_json
from labeler.shards.plan import (
    NO_UNIT,
    Plans,
    Unit,
    Units,
    counting_rows,
    create_plan,
    cut_into_units,
    plan_again,
    read_plans,
)
from labeler.shards.record import Record, record_name
from labeler.shards.records import Copying, Records, latest_names, latest_records
from labeler.sources import Source, WordFilter, list_sources
from labeler.unit import Job, TeachersReady, UnitDone, VideoDone, check_same_teachers
from pipelines.engines import local as engine_local
from pipelines.engines.common import UnitOpen
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.events import LabelEvent, Note, Planned
from pipelines.jobs.heartbeat import FOLDER as JOBS
from pipelines.jobs.heartbeat import Heartbeat
from pipelines.jobs.progress import JobProgress, VideosDone
from pipelines.wording import counted
from teachers import ConfigError, InstallationError, TapdistillError, TransientError

FOLDERS = ("", "shards", JOBS, COPIES)
"""Where jobs write in a data set."""
FEWEST_VIDEOS = 20
"""Fewer videos than this say nothing about the share that fails."""
COMPARED_VIDEOS = 1_000_000
"""A plan with more videos is not compared with its sources again: listing them takes minutes."""
ROUNDS = 2
"""How often a job writes the tables at its end, at most, while others go on committing."""
SEEN_WITHIN_S = 90.0
"""How long it may take until what another machine has written on a shared disk is seen here: NFS
remembers for a minute what was not there."""
MOST_OWN_FAULTS = 3
"""The job stops when this many units stay open through a fault of the installation."""


class TooManyFailures(TapdistillError):
    """More videos fail than `--max-failed-fraction` allows."""


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """How a job ended."""

    accounts: tables.Accounts
    records: Sequence[Record]
    """The records that count, by unit, without the videos that were done again in a later one; each
    is read when it is accessed."""
    open_units: Sequence[Unit]
    """Units of this job's share that still have no record, or lack a teacher in it."""
    troubles: list[UnitOpen]
    """Why units are open, as far as the engine said."""
    seconds: float


def label(config: LabelConfig, watch: Callable[[LabelEvent], None] | None = None) -> LabelResult:
    """Label videos: run the job until every unit has a record with every teacher, or cannot get one
    now. Prints nothing.

        result = pipelines.label(LabelConfig(videos=("clips/",), out="labels"), watch=print)

    Args:
        config: what to label, how, and where to.
        watch: called with every event, as it happens: see `pipelines.jobs.events`.

    Raises:
        ConfigError: settings are invalid, or differ from those the data set was made with; or
            workers do not write into the same folder.
        TransientError: the storage or the cluster fails.
        TooManyFailures: see `LabelConfig.max_failed_fraction`; what was committed stays.
    """
    with closing(labelling(config)) as events:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if watch:
                watch(event)


def labelling(config: LabelConfig) -> Generator[LabelEvent, None, LabelResult]:
    """`label` as a generator: it yields the events, and returns the result."""
    started = time.monotonic()
    storage = Storage(config.out)
    job = Job(
        url=storage.url, frozen=config.frozen(), agreement=config.agreement, judge=config.judge
    )
    unused: list[str] = []
    plans = _planned(storage, config, job.frozen, unused)
    for sentence in unused:
        yield Note(f"note: {sentence}")
    with scratch_folder():  # fails here, before the first unit, if there can be none
        for folder in FOLDERS:
            storage.remove_abandoned_parts(folder)
        remove_abandoned()
    records = latest_records(storage)
    if config.retry:
        plans = yield from _planned_again(storage, config, plans, records)
    todo = tables.open_units(plans, records, config.names()).share(*config.share())
    yield _what_is_to_do(config, plans, todo, storage.url)
    yield from _notes(config, plans, records)

    troubles: list[UnitOpen] = []
    failures = _Failures(config.max_failed_fraction)
    with (
        Copying(storage) as copying,
        JobProgress(todo.videos, Heartbeat(storage, config.metrics)) as progress,
    ):
        for event in _events(config, job, todo, progress):
            progress.count(event)
            failures.count(event)
            if isinstance(event, TeachersReady):
                for record in _one_of_each(records):
                    check_same_teachers(record, event.infos)
            elif isinstance(event, UnitOpen):
                troubles.append(event)
                own_faults = [trouble for trouble in troubles if trouble.own_fault]
                if len(own_faults) >= MOST_OWN_FAULTS:
                    raise InstallationError(f"the job stops: {own_faults[0].why}")
            elif isinstance(event, UnitDone):
                _refuse_unseen(storage, event)
                copying.committed(event.unit, event.revision)
            yield event
    records = _compacted(storage)
    # another job may have planned videos again; what it has not done is open for it alone
    plans_now = read_plans(storage)
    return LabelResult(
        accounts=tables.accounts(plans_now, records),
        records=tables.without_superseded(plans_now, records),
        open_units=tables.open_units(plans, records, config.names()).share(*config.share()),
        troubles=troubles,
        seconds=time.monotonic() - started,
    )


def _planned(storage: Storage, config: LabelConfig, frozen: Frozen, unused: list[str]) -> Plans:
    """The plans of the data set, which are made if it has none; settings are compared with those it
    was made with. `unused` gets sentences about what was named but is not in the plan."""
    plans = read_plans(storage)
    sources = () if plans else list_sources(frozen.sources, frozen.column, unused)
    freeze(storage, frozen, version("tapdistill"))
    if not plans:
        create_plan(
            storage,
            0,
            cut_into_units(sources, config.videos_per_unit, why_not=_why_not(frozen.words)),
        )
        del sources  # millions of them take as much as their plan
        plans = read_plans(storage)
    return plans


def _why_not(words: WordFilter) -> Callable[[Source], str] | None:
    """What leaves videos out; None if nothing does."""
    return words.why_not if words.need or words.refuse else None


def _planned_again(
    storage: Storage, config: LabelConfig, plans: Plans, records: Records
) -> Generator[Note, None, Plans]:
    """The plans, and another one with the videos that have a row with the reason `config.retry`, if
    there are any."""
    uris = tables.uris_with_reason(plans, records, config.retry or "")
    if not uris:
        yield Note(f"no video has the reason {config.retry!r}: nothing is planned again.")
        return plans
    if not create_plan(storage, len(plans), plan_again(plans, uris, config.videos_per_unit)):
        raise TransientError(
            f"another job has just planned videos of {storage.url} again: look at it with "
            f"`tapdistill status {storage.url}`."
        )
    yield Note(
        f"{counted(len(uris), 'video')} with the reason {config.retry!r} will be done again, in "
        "units of their own."
    )
    return read_plans(storage)


def _one_of_each(records: Records) -> Iterator[Record]:
    """One record for each different description of teachers that any unit has."""
    return iter(records.take(records.table.drop_duplicates("teachers").index.tolist()))


def _what_is_to_do(
    config: LabelConfig, plans: Sequence[pd.DataFrame], todo: Units, url: str
) -> Planned:
    return Planned(
        url=url,
        videos=sum(int(counts.sum()) for _, counts in counting_rows(plans)),
        unwanted=sum(int((table["unit"] == NO_UNIT).sum()) for table in plans),
        units=sum(table.loc[table["unit"] != NO_UNIT, "unit"].nunique() for table in plans),
        units_to_do=len(todo),
        videos_to_do=todo.videos,
        share=config.share(),
    )


def _compacted(storage: Storage) -> Records:
    """Write the tables, once more if another job committed something meanwhile; returns the records
    in them. What others commit after that is in the tables that they write at their end."""
    for _ in range(ROUNDS):
        records = latest_records(storage)
        tables.compact(storage, records)
        if records.table["name"].tolist() == latest_names(storage):
            break
    return records


def _refuse_unseen(storage: Storage, done: UnitDone) -> None:
    """Raise a ConfigError if what a worker has committed is not here: it may have written into a
    folder of that name on its own machine."""
    if not storage.local:
        return
    name, deadline = record_name(done.unit, done.revision), time.monotonic() + SEEN_WITHIN_S
    while storage.size(name) is None:
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"a worker has committed unit {done.unit}, but {storage.url}/{name} is not on this "
                "machine: --out must be the same folder on all nodes. Take one on a shared disk, "
                "or a bucket, such as s3://bucket/labels."
            )
        time.sleep(1)


class _Failures:
    """Counts videos that failed, or all of whose clips did, and stops the job when there are too
    many."""

    def __init__(self, most: float) -> None:
        self._most, self._done = most, VideosDone()

    def count(self, event: LabelEvent) -> None:
        self._done.count(event)
        if not isinstance(event, VideoDone) or self._done.number < FEWEST_VIDEOS:
            return
        reasons = self._done.failed
        failed, videos = reasons.total(), self._done.number
        if failed > self._most * videos:
            said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
            raise TooManyFailures(
                f"{failed} of {videos} videos failed ({said}): the job stops, because "
                "something may be wrong with all of them. What is committed stays, and "
                "failures.parquet, as of the last job that ended, says more. Fix this and run the "
                "same command again (with --retry REASON for videos that are rows already), or let "
                "it continue with --max-failed-fraction 1."
            )


def _events(
    config: LabelConfig, job: Job, todo: Sequence[Unit], progress: JobProgress
) -> Iterator[LabelEvent]:
    """The events of the chosen engine while it does the units."""
    if not todo:
        return
    if config.engine == "local":
        yield from engine_local.run(job, config.specs(), config.decoding, todo)
        return
    # here, because they import ray
    from pipelines.engines import ray as engine_ray
    from pipelines.jobs import ray_metrics

    at = f"connecting to Ray at {config.ray_address}" if config.ray_address else ""
    yield Note(at or "starting Ray on this machine")
    with engine_ray.connected(config.ray_address, config.workers):
        layout = engine_ray.layout_of_cluster(config.specs(), config.workers)
        yield Note(str(layout))
        if short_of_store := engine_ray.note_on_store(layout, config.clips):
            yield Note(short_of_store)
        progress.also_report(ray_metrics.RayMetrics(job.url))
        yield from engine_ray.run(job, config.specs(), config.decoding, todo, layout)


def _notes(config: LabelConfig, plans: Sequence[pd.DataFrame], records: Records) -> Iterator[Note]:
    """Notes on what has changed since the stored labels were made."""
    wanted = to_json(asdict(config.agreement))
    other = int((records.table["agreement"].astype("object") != wanted).sum())
    if other:
        yield Note(
            f"note: the labels of {counted(other, 'unit')} were made with other agreement "
            "settings; `tapdistill relabel` makes them consistent."
        )
    judged_now = records.table["verifier"].astype("object") == shipped_version()
    if config.judge and not judged_now.all():
        yield Note(
            f"note: {int((~judged_now).sum())} units were judged by another verifier, or by none; "
            "`tapdistill relabel` makes them consistent."
        )
    if records:
        yield from _changed_sources(plans, config)


def _changed_sources(plans: Sequence[pd.DataFrame], config: LabelConfig) -> Iterator[Note]:
    """Notes on sources that are new or have changed since the plan was made: the plan is fixed, so
    they stay out, and the user should know."""
    planned = sum(map(len, plans))
    if planned > COMPARED_VIDEOS:
        yield Note(
            f"note: this data set was planned with {planned:,} videos; only up to "
            f"{COMPARED_VIDEOS:,} are checked for files that are new or have changed since then."
        )
        return
    then = {
        uri: etag for plan in plans for uri, etag in zip(plan["uri"], plan["etag"], strict=True)
    }
    try:
        found = list_sources(config.frozen().sources, config.column, known=then)
    except TapdistillError:
        return  # what is already labelled no longer needs its sources
    now = {source.uri: source.etag for source in found}
    new = sum(uri not in then for uri in now)
    changed = sum(uri in then and then[uri] != etag for uri, etag in now.items())
    if new or changed:
        yield Note(
            f"note: since this data set was planned, {counted(new, 'file')} came and "
            f"{counted(changed, 'file')} changed; label them into another --out."
        )
