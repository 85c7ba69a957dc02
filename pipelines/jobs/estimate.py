"""The dry run of a labelling job: its plan, and what it would cost, from a few clips that are
really labelled and thrown away.

Videos are taken evenly over the plan; of each, one clip goes the whole way in this process. The
estimate is the mean of those clips times the clips that the videos have, and as rough as a mean of
few is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from labeler.clips.making import OpenedVideo, UnlabelledClip, seed_of
from labeler.clips.process import DecodingProcess
from labeler.fingerprint import one_thread
from labeler.io.storage import Storage
from labeler.labels import agreement
from labeler.labels.sample import Sample
from labeler.shards.members import info_to_meta, members, stored
from labeler.shards.plan import NO_UNIT, cut_into_units, read_plans, sources_of
from labeler.sources.listing import Source, list_sources
from pipelines.engines.local import LocalTrackers
from pipelines.terminal.console import counted, say
from pipelines.terminal.progress import duration
from teachers import Tracks

if TYPE_CHECKING:
    from pipelines.jobs.config import LabelConfig

VIDEOS = 3
"""Of the warm-up."""


@dataclass
class WarmUp:
    """What the videos of the warm-up took."""

    videos: int = 0
    clips_found: int = 0
    """In the videos that could be opened."""
    clips: int = 0
    """Labelled."""
    opening_s: float = 0.0
    decoding_s: float = 0.0
    teachers_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def print_estimate(config: LabelConfig) -> None:
    """Print the plan and the estimate; nothing is written.

    Raises:
        ConfigError: as the job itself would.
    """
    frozen = config.frozen()
    plans = read_plans(Storage(config.out))
    if plans:
        say(f"{config.out} is planned already; this is its first plan.")
    sources = [] if plans else list_sources(frozen.sources, frozen.column)
    plan = (
        plans[0]
        if plans
        else cut_into_units(sources, config.videos_per_unit, why_not=frozen.words.why_not)
    )
    wanted = sources_of(plan[plan["unit"] != NO_UNIT])
    known = sum(source.size for source in wanted)
    units = plan.loc[plan["unit"] != NO_UNIT, "unit"].nunique()
    say(
        f"{len(plan)} videos, of which {len(plan) - len(wanted)} are left out by their words; "
        f"{counted(units, 'unit')}; {known / 1e9:.2f} GB to read"
        + (", sizes of a list not counted." if not known else ".")
    )
    if not wanted:
        return
    picked = [
        wanted[i]
        for i in sorted(set(np.linspace(0, len(wanted) - 1, VIDEOS).round().astype(int).tolist()))
    ]
    say(f"labelling one clip of each of {len(picked)} videos here, to measure ...")
    found = warm_up(config, picked)
    for problem in found.problems:
        say(f"  {problem}")
    if not found.clips:
        say("no clip could be labelled, so there is no estimate.")
        return
    say(_table(found, len(wanted)))


def warm_up(config: LabelConfig, videos: Sequence[Source]) -> WarmUp:
    """Label one clip of each of `videos`, and measure."""
    found = WarmUp()
    trackers = LocalTrackers(config.specs())
    limits = config.decoding
    with (
        one_thread(),
        DecodingProcess(
            config.frozen(), deadline_s=limits.deadline_s, memory_gib=limits.memory_gib
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
                tracks, rules, clip.queries, clip.frames.shape[1:3], config.agreement
            )
            meta = {**clip.meta, "teachers": info_to_meta(trackers.infos)}
            sample = Sample(clip.key, clip.mp4, clip.queries, clip.sampler, tracks, labels, meta)
            found.bytes += sum(map(len, members(sample).values()))
            found.clips += 1
    return found


def _first_clip(decoding: DecodingProcess, video: Source, found: WarmUp) -> UnlabelledClip | None:
    """The first clip of a video that can be had; what the others say is no matter here."""
    started = time.perf_counter()
    for item in decoding.clips((video,)):
        if isinstance(item, OpenedVideo):
            found.opening_s += time.perf_counter() - started
            found.clips_found += len(item.clips)
            started = time.perf_counter()
        elif isinstance(item, UnlabelledClip):
            found.decoding_s += time.perf_counter() - started
            return item
    found.problems.append(f"{video.uri} gave no clip.")
    return None


def _table(found: WarmUp, videos: int) -> Table:
    """Time and bytes by step: for a clip, and for all."""
    clips = videos * found.clips_found / found.videos
    steps: Mapping[str, float] = {
        "decoding and encoding": found.decoding_s / found.clips,
        **{
            f"teacher {name}": seconds / found.clips
            for name, seconds in sorted(found.teachers_s.items())
        },
    }
    opening = videos * found.opening_s / found.videos
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "a clip", f"about {clips:,.0f} clips"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("opening and cuts", "", duration(opening))
    for name, seconds in steps.items():
        table.add_row(name, f"{seconds:.2f} s", duration(seconds * clips))
    table.add_row(
        "one worker on this machine",
        "",
        duration(opening + sum(steps.values()) * clips),
        style="bold",
    )
    table.add_row(
        "bytes",
        f"{found.bytes / found.clips / 1e6:.2f} MB",
        f"{found.bytes / found.clips * clips / 1e9:.2f} GB",
    )
    return table
