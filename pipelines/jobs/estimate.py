"""Estimate: the dry run of a labelling job, which is its plan, and what it would cost, measured on
a few clips that are really labelled and then discarded. Prints nothing.

The videos are taken evenly from the plan, and one clip of each goes the whole way in this process.
The estimate is the mean over those clips times the number of clips that the videos have, and as
rough as a mean over few clips is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from labeler.clips import DecodingProcess
from labeler.clips.making import OpenedVideo, UnlabelledClip, seed_of
from labeler.fingerprint import one_thread
from labeler.io import Storage
from labeler.labels import Sample, agreement
from labeler.labels.hidden import proven
from labeler.labels.verdict import judged
from labeler.reasons import LeftOut
from labeler.shards.manifest import check_frozen
from labeler.shards.members import info_to_meta, members, stored
from labeler.shards.plan import (
    NO_UNIT,
    counting_rows,
    cut_into_units,
    number_of_units,
    plan_again,
    read_plans,
    sources_of,
)
from labeler.shards.records import latest_records
from labeler.shards.tables import open_units, uris_with_reason
from labeler.sources import Source, list_sources
from pipelines.engines.local import LocalTrackers
from pipelines.wording import counted
from teachers import Tracks

if TYPE_CHECKING:
    from pipelines.jobs.config import LabelConfig

VIDEOS = 3
"""How many clips the warm-up labels, each of another video."""


@dataclass
class WarmUp:
    """What the videos of the warm-up took. `clips_found` counts the clips in the videos that could
    be opened; `clips`, those that were labelled."""

    videos: int = 0
    clips_found: int = 0
    clips: int = 0
    opening_s: float = 0.0
    decoding_s: float = 0.0
    teachers_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    verifier_s: float | None = None
    """None if it does not judge."""
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DryPlan:
    """What a job would do."""

    planned_before: bool
    """Whether the data set has a plan already."""
    videos: int
    """Videos of the data set, each counted once."""
    unwanted: int
    """How many of them filters leave out."""
    units: int
    """Units of the data set."""
    todo: list[Source]
    """Videos of the units that this job would do: those of its share that are not done yet."""
    units_to_do: int
    bytes: int
    """Bytes of those videos, as far as the sources say."""
    notes: tuple[str, ...] = ()
    """A sentence for each kind of thing that was named and is not used, and for what the estimate
    does not know."""

    def some(self) -> list[Source]:
        """A few of the videos to do, taken evenly, for `warm_up`."""
        numbers = np.linspace(0, len(self.todo) - 1, VIDEOS).round().astype(int)
        return [self.todo[i] for i in sorted(set(numbers.tolist()))]


def dry_plan(config: LabelConfig) -> DryPlan:
    """The plan of a job; nothing is written.

    Raises:
        ConfigError: sources or settings that the job itself would refuse, also because the data set
            was made with others.
    """
    frozen, storage = config.frozen(), Storage(config.out)
    check_frozen(storage, frozen)
    planned = read_plans(storage)
    notes: list[str] = []
    plans = [*planned] or [
        cut_into_units(
            list_sources(frozen.sources, frozen.column, notes),
            config.videos_per_unit,
            why_not=frozen.words.why_not,
        )
    ]
    records = latest_records(storage)
    if config.retry and (uris := uris_with_reason(plans, records, config.retry)):
        plans.append(plan_again(plans, uris, config.videos_per_unit))
    elif config.retry:
        notes.append(f"no video has the reason {config.retry!r}: nothing is planned again.")
    units_to_do = open_units(plans, records, config.names()).share(*config.share())
    begun = int(np.isin(units_to_do.numbers, records.table["unit"]).sum())
    if begun:
        notes.append(
            f"{counted(begun, 'unit')} to do only lack teachers, and take less than is estimated."
        )
    todo = [
        source
        for plan in plans
        for source in sources_of(plan[plan["unit"].isin(units_to_do.numbers)])
    ]
    return DryPlan(
        planned_before=bool(planned),
        videos=sum(int(counts.sum()) for _, counts in counting_rows(plans)),
        unwanted=sum(int((plan["unit"] == NO_UNIT).sum()) for plan in plans),
        units=number_of_units(plans),
        todo=todo,
        units_to_do=len(units_to_do),
        bytes=sum(source.size for source in todo),
        notes=tuple(notes),
    )


def warm_up(config: LabelConfig, videos: Sequence[Source]) -> WarmUp:
    """Label one clip of each of `videos`, and measure."""
    found = WarmUp()
    trackers = LocalTrackers(config.specs())
    limits = config.decoding
    with (
        one_thread(),
        DecodingProcess(
            config.frozen().recipe(), deadline_s=limits.deadline_s, memory_gib=limits.memory_gib
        ) as decoding,
    ):
        for video in videos:
            found.videos += 1
            clip = _first_clip(decoding, video, found)
            if clip is None:
                continue
            tracks: dict[str, Tracks] = {}
            for name in trackers.infos:
                started = time.perf_counter()
                result = trackers.track([name], clip.frames, clip.queries, seed_of(clip.key))[name]
                found.teachers_s[name] += time.perf_counter() - started
                if isinstance(result, str):
                    found.problems.append(f"{video.uri}: {name}: {result}")
                    result = Tracks.nan(len(clip.queries), len(clip.frames))
                tracks[name] = stored(result)
            rules = {name: trackers.infos[name].rule for name in tracks}
            labels = agreement.label(
                tracks,
                rules,
                clip.queries,
                clip.frames.shape[1:3],
                config.agreement,
                {name: trackers.infos[name].evidence for name in tracks},
            )
            meta = {**clip.meta, "teachers": info_to_meta(trackers.infos)}
            sample = Sample(clip.key, clip.mp4, clip.queries, clip.sampler, tracks, labels, meta)
            if config.judge:
                started = time.perf_counter()
                verdict = judged(clip.frames, clip.queries, tracks, rules)
                found.verifier_s = (found.verifier_s or 0.0) + time.perf_counter() - started
                sample = replace(sample, verdict=verdict)
            found.bytes += sum(map(len, members(proven(sample)).values()))
            found.clips += 1
    return found


def _first_clip(decoding: DecodingProcess, video: Source, found: WarmUp) -> UnlabelledClip | None:
    """The first clip of a video that can be decoded; if there is none, the reason of the last."""
    started, why = time.perf_counter(), ""
    for item in decoding.clips((video,)):
        if isinstance(item, OpenedVideo):
            found.opening_s += time.perf_counter() - started
            found.clips_found += len(item.clips)
            started = time.perf_counter()
        elif isinstance(item, UnlabelledClip):
            found.decoding_s += time.perf_counter() - started
            return item
        elif isinstance(item, LeftOut):
            why = f": {item.reason}"
    found.problems.append(f"{video.uri} gave no clip{why}.")
    return None
