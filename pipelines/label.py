"""tapdistill label: the labelling job, here or on a Ray cluster.

    freeze dataset.json -> plan -> open units -> engine (local or Ray) runs `labeler.unit.do_unit` on each -> tables -> summary

The same command again goes on where it stopped; with another `--teachers` it adds those that are missing. Several drivers may work on
one data set: `--shards i/N` gives each its share, and those that overlap do no harm.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro

from labeler import tables
from labeler.accounts import REASONS
from labeler.addresses import refuse_secrets
from labeler.agreement import AgreementConfig
from labeler.clips import ClipConfig
from labeler.decode import Decoder
from labeler.encode import EncodeConfig
from labeler.filters import WordFilter
from labeler.manifest import Frozen, freeze
from labeler.plan import NO_UNIT, Unit, create_plan, cut_into_units, plan_again, read_plans, unit_that_counts
from labeler.queries import QueryConfig
from labeler.records import Record, latest_names, latest_records
from labeler.scan import VideoLimits
from labeler.scratch import remove_abandoned
from labeler.sources import list_sources
from labeler.storage import Storage
from labeler.unit import Event, Job, TeachersReady, VideoDone, check_same_teachers
from pipelines import engine_local
from pipelines.console import counted, say
from pipelines.engine_local import DecodeLimits, TeacherSpec, UnitOpen
from pipelines.heartbeat import Heartbeat
from pipelines.progress import JobProgress
from pipelines.summary import accounts_table
from teachers import ConfigError, SurroundingsError, TapdistillError
from teachers.registry import own_name

FEWEST_VIDEOS = 20
"""Fewer videos than that say nothing about the share that fails."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label real videos with several teachers, and write WebDataset shards.

    The same command again goes on where it stopped; with another --teachers it adds those that are missing.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Videos, folders of videos, globs in quotes, or URLs; lists of them (.txt, a line each), tables (.csv or .parquet, whose other
    columns travel into the shards), and WebDataset tars of videos."""
    out: str
    """The data set: a folder or any fsspec URL, such as s3://bucket/labels."""
    column: str | None = None
    """Column of a table that holds the paths or URLs; without it the first of uri, url, path, video, file."""
    words: WordFilter = field(default_factory=WordFilter)
    teachers: tuple[str, ...] = ("lk", "flow", "match")
    """Names from `tapdistill teachers`; two or more, or there is nothing to agree on and every label is kept."""
    checkpoint: tuple[str, ...] = ()
    """Weights of a teacher, as NAME=FILE; may be given several times."""
    engine: Literal["ray", "local"] = "ray"
    """ray: all cores of this machine, or a cluster. local: this process, without Ray."""
    ray_address: str | None = None
    """Address of a running Ray cluster; without it Ray is started on this machine for this job."""
    workers: int | None = None
    """Units worked on at once by the ray engine; without it one for each CPU."""
    device: str = "auto"
    """Where teachers run: auto, cpu, cuda."""
    shards: str = "0/1"
    """i/N: do only every N-th unit, from unit i (0 to N - 1) on; for job arrays without one Ray cluster."""
    retry: str | None = None
    """Plan the videos again that have this reason in failures.parquet, such as timeout, and label them."""
    max_failed_fraction: float = 0.5
    """Stop when more of the videos fail, from the 20th on: something is wrong with all of them."""
    dry_run: bool = False
    """Print the plan, and an estimate of time and bytes from a few clips that are labelled and thrown away; write nothing."""
    metrics: Path | None = None
    """File that gets a JSON line every ten seconds: clips/s, what teachers and decoders do, the oldest clip in flight, reasons."""
    videos_per_unit: int | None = None
    """Videos in one shard; without it 16, and fewer where there are less than 512, so that every worker of a machine gets some."""
    decoder: Decoder = "auto"
    """auto: decord where a scan of the packets calls the file safe, PyAV elsewhere."""
    unsafe_decode: bool = False
    """Let a forced decord read files for which it is known to return wrong frames."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    queries: QueryConfig = field(default_factory=QueryConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    limits: VideoLimits = field(default_factory=VideoLimits)
    decoding: DecodeLimits = field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        if len(self.names()) != len(self.teachers) or not self.teachers:
            raise ConfigError(f"--teachers {' '.join(self.teachers)}: name at least one teacher, each once.")
        for address in (*self.checkpoint, self.ray_address or ""):
            refuse_secrets(address)
        self.specs()
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: must be at least 1.")
        self.share()
        if self.retry is not None and self.retry not in REASONS:
            raise ConfigError(f"--retry {self.retry}: there are the reasons {', '.join(REASONS)}.")
        if self.retry == "unwanted":
            raise ConfigError("--retry unwanted: the words of a data set are frozen; label with others into another --out.")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ConfigError(f"--max-failed-fraction {self.max_failed_fraction:g}: must be from 0 to 1 (never stop).")
        if self.videos_per_unit is not None and self.videos_per_unit < 1:
            raise ConfigError(f"--videos-per-unit {self.videos_per_unit}: must be at least 1.")
        if self.engine == "local" and (self.ray_address or self.workers not in (None, 1)):
            raise ConfigError(
                "--engine local is one process without Ray: leave --ray-address and --workers out, or use --engine ray."
            )

    def names(self) -> set[str]:
        """What the teachers' tracks are stored under."""
        return {own_name(name) for name in self.teachers}

    def share(self) -> tuple[int, int]:
        """(i, N) of --shards; ConfigError if it is none."""
        i, _, n = self.shards.partition("/")
        if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
            raise ConfigError(f"--shards {self.shards}: write i/N with i from 0 to N - 1, such as 0/8.")
        return int(i), int(n)

    def frozen(self) -> Frozen:
        """The part that decides which clips, pixels, and queries the data set has."""
        return Frozen(
            sources=tuple(video if "://" in video else os.path.abspath(video) for video in self.videos), column=self.column,
            words=self.words,
            videos_per_unit=self.videos_per_unit, decoder=self.decoder, unsafe_decode=self.unsafe_decode, limits=self.limits,
            clips=self.clips, queries=self.queries, encode=self.encode,
        )  # fmt: skip

    def specs(self) -> list[TeacherSpec]:
        """How each teacher is made. ConfigError for a --checkpoint that names none of them."""
        files = dict(_name_and_file(text, self.teachers) for text in self.checkpoint)
        return [TeacherSpec(name=name, checkpoint=files.get(name), device=self.device) for name in self.teachers]


class TooManyFailures(TapdistillError):
    """More videos fail than `--max-failed-fraction` allows."""


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """How a job ended."""

    accounts: tables.Accounts
    records: list[Record]
    open_units: list[Unit]
    """Units of this job's share that still have no record, or lack a teacher in it."""
    troubles: list[UnitOpen]
    """Why, as far as the engine said."""
    seconds: float


def label(config: LabelConfig, watch: Callable[[Event | UnitOpen], None] | None = None) -> LabelResult:
    """Run the job until every unit has a record with every teacher, or cannot have one now.

    Args:
        config: what to label, how, and where to.
        watch: called with every event, beside the progress bar.

    Raises:
        ConfigError: settings that cannot be right, or other than those the data set was made with.
        SurroundingsError: the storage or the cluster fails.
        TooManyFailures: see `LabelConfig.max_failed_fraction`; what was committed stays.
    """
    started = time.monotonic()
    storage = Storage(config.out)
    job = Job(url=storage.url, frozen=config.frozen(), agreement=config.agreement)
    plans = _planned(storage, config, job.frozen)
    storage.remove_abandoned_parts("shards")
    remove_abandoned()
    records = latest_records(storage)
    if config.retry:
        plans = _planned_again(storage, config, plans, records)
    todo = _share(tables.open_units(plans, records, config.names()), config.share())
    _say_what_is_to_do(config, plans, todo, storage.url)
    _warn_of_other_agreement(records, config.agreement)
    if records:
        _note_changed_sources(plans, config)

    troubles: list[UnitOpen] = []
    failures = _Failures(config.max_failed_fraction)
    with JobProgress(sum(len(unit.videos) for unit in todo), Heartbeat(storage, config.metrics)) as progress:
        for event in _events(config, job, todo, progress):
            progress.show(event)
            if isinstance(event, TeachersReady):
                for record in records:
                    check_same_teachers(record, event.infos)
            elif isinstance(event, UnitOpen):
                troubles.append(event)
            elif isinstance(event, VideoDone):
                failures.count(event)
            if watch:
                watch(event)
    records = _compacted(storage)
    return LabelResult(
        accounts=tables.accounts(plans, records),
        records=records,
        open_units=_share(tables.open_units(plans, records, config.names()), config.share()),
        troubles=troubles,
        seconds=time.monotonic() - started,
    )


def _planned(storage: Storage, config: LabelConfig, frozen: Frozen) -> list[pd.DataFrame]:
    """The plans of the data set; made, if it has none, and settings held against those it was made with."""
    plans = read_plans(storage)
    sources = [] if plans else list_sources(frozen.sources, frozen.column)
    freeze(storage, frozen, version("tapdistill"))
    if not plans:
        create_plan(storage, 0, cut_into_units(sources, config.videos_per_unit, why_not=frozen.words.why_not))
        plans = read_plans(storage)
    return plans


def _planned_again(
    storage: Storage, config: LabelConfig, plans: list[pd.DataFrame], records: Sequence[Record]
) -> list[pd.DataFrame]:
    """The plans, and one more with the videos that have a row with `config.retry`; none more if there is no such row."""
    rows = [row for record in tables.without_superseded(plans, records) for row in record.rows if row.reason == config.retry]
    uris = {row.uri for row in rows}
    if not uris:
        say(f"no video has the reason {config.retry!r}: nothing is planned again.")
        return plans
    if not create_plan(storage, len(plans), plan_again(plans, uris, config.videos_per_unit)):
        raise SurroundingsError(f"another job planned videos of {storage.url} again at this moment: look with `tapdistill status`.")
    say(f"{len(uris)} videos with the reason {config.retry!r} are planned again.")
    return read_plans(storage)


def _share(units: list[Unit], share: tuple[int, int]) -> list[Unit]:
    return [unit for unit in units if unit.number % share[1] == share[0]]


def _say_what_is_to_do(config: LabelConfig, plans: Sequence[pd.DataFrame], todo: Sequence[Unit], url: str) -> None:
    units = sum(table.loc[table["unit"] != NO_UNIT, "unit"].nunique() for table in plans)
    unwanted = sum(int((table["unit"] == NO_UNIT).sum()) for table in plans)
    videos = len(unit_that_counts(plans))
    of_share = f" of share {config.shards}" if config.share() != (0, 1) else ""
    filtered = f" ({unwanted} left out by their words)" if unwanted else ""
    say(f"{counted(videos, 'video')}{filtered} in {counted(units, 'unit')}, {len(todo)}{of_share} to do -> {url}")


def _compacted(storage: Storage) -> list[Record]:
    """Write the tables again, until no other job committed meanwhile; the records that they hold."""
    while True:
        records = latest_records(storage)
        tables.compact(storage, records)
        if [record.name for record in records] == latest_names(storage):
            return records


class _Failures:
    """Counts videos that failed, and stops the job when they are too many."""

    def __init__(self, most: float) -> None:
        self._most, self._videos = most, 0
        self._reasons = Counter[str]()

    def count(self, event: VideoDone) -> None:
        self._videos += 1
        self._reasons.update(row.reason for row in event.rows if row.what == "video" and row.status == "failed")
        failed = self._reasons.total()
        if self._videos >= FEWEST_VIDEOS and failed > self._most * self._videos:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common(3))
            raise TooManyFailures(
                f"{failed} of {self._videos} videos failed ({reasons}): the job stops, because something may be wrong with all of them. "
                "What is committed stays, and failures.parquet of the last ended job says more. Mend it and run the same command, "
                "or let it go on with --max-failed-fraction 1."
            )


def _events(config: LabelConfig, job: Job, todo: Sequence, progress: JobProgress) -> Iterator[Event | UnitOpen]:
    """What happens while the chosen engine does the units."""
    if not todo:
        return
    if config.engine == "local":
        yield from engine_local.run(job, config.specs(), config.decoding, todo)
        return
    from pipelines import engine_ray, ray_metrics  # here, because they import ray

    progress.note(f"connecting to Ray at {config.ray_address}" if config.ray_address else "starting Ray on this machine")
    with engine_ray.connected(config.ray_address, config.workers):
        layout = engine_ray.layout_of_cluster(len(config.teachers), config.workers)
        progress.note(str(layout))
        if short_of_store := engine_ray.note_on_store(layout, config.clips):
            progress.note(short_of_store)
        progress.also_report(ray_metrics.RayMetrics(job.url))
        yield from engine_ray.run(job, config.specs(), config.decoding, todo, layout)


def _warn_of_other_agreement(records: Sequence[Record], agreement: AgreementConfig) -> None:
    other = sum(record.agreement != asdict(agreement) for record in records)
    if other:
        say(f"note: the labels of {other} units were made with other agreement settings; `tapdistill relabel` makes them equal.")


def _note_changed_sources(plans: Sequence[pd.DataFrame], config: LabelConfig) -> None:
    """Say what came or changed since the plan was made: the plan is fixed, so that it stays out must not go unseen."""
    try:
        now = {source.uri: source.etag for source in list_sources(config.frozen().sources, config.column)}
    except TapdistillError:
        return  # what is labelled already needs its sources no more
    then = {uri: etag for plan in plans for uri, etag in zip(plan["uri"], plan["etag"], strict=True)}
    new = sum(uri not in then for uri in now)
    changed = sum(uri in then and then[uri] != etag for uri, etag in now.items())
    if new or changed:
        say(f"note: {new} files are new and {changed} changed since this data set was planned; label them into another --out.")


def _name_and_file(text: str, names: Sequence[str]) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    if not separator or name not in names:
        raise ConfigError(f"--checkpoint {text}: write NAME=FILE with a NAME from --teachers ({', '.join(names)}).")
    return name, file


def run(config: LabelConfig) -> int:
    """The command: label, print the summary, and return the exit code: 0 if nothing is left open."""
    if config.dry_run:
        from pipelines.estimate import print_estimate

        print_estimate(config)
        return 0
    result = label(config)
    print_summary(result, config.out)
    if result.open_units:
        why = result.troubles[0].why if result.troubles else "their workers wrote elsewhere: --out must be one place for all nodes."
        raise SurroundingsError(f"{len(result.open_units)} units are still open: {why} The same command goes on from here.")
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
        f"{counted(len(clips), 'clip')}, {queries:,} queries of which {kept:,} kept ({kept / max(queries, 1):.0%}), "
        f"teachers {', '.join(names)}; {size / 1e6:.1f} MB in {counted(shards, 'shard')}; {result.seconds:.1f} s."
    )
    say(f"shards, clips.parquet, and failures.parquet are in {out}; look at them with `tapdistill inspect {out}`")
