"""Unit: one unit of work, from a few videos to one shard and its commit record. Both engines run
exactly this.

`do_unit` works until the unit's latest record has every wanted teacher: it labels an open unit, or
adds the teachers that a committed one lacks. These are plain functions that do not know about Ray.
Whatever happens to a process, the same call continues from the records.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from labeler.clips import DecodingProcess
from labeler.clips.making import OpenedVideo, UnlabelledClip, seed_of
from labeler.clips.process import Item, VideoEnd
from labeler.clips.recipe import SCHEMA
from labeler.fingerprint import fingerprint
from labeler.io import Storage, transient_errors
from labeler.io.scratch import scratch_folder
from labeler.labels import AgreementConfig, Sample, agreement
from labeler.labels.hidden import proven
from labeler.labels.teacher_choice import refuse_untrained
from labeler.labels.verdict import judged, shipped_version
from labeler.reasons import LeftOut
from labeler.shards.commit import commit, tar_of
from labeler.shards.manifest import Frozen
from labeler.shards.members import (
    from_members,
    info_to_meta,
    members,
    stored,
    to_json,
    tracks_from_npz,
)
from labeler.shards.plan import Unit
from labeler.shards.record import ClipEntry, Record, VideoEntry
from labeler.shards.records import latest
from labeler.shards.revisions import Parts, entry, revise, updated, with_offsets
from labeler.shards.tar import ShardWriter, read_samples
from labeler.video import decode_clip
from teachers import ConfigError, ShardError, TeacherInfo, Tracks


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker must know in order to do any unit."""

    url: str
    """The data set."""
    frozen: Frozen
    agreement: AgreementConfig
    judge: bool = True
    """Let the shipped verifier judge every clip."""


class Trackers(Protocol):
    """The job's teachers, wherever they run."""

    @property
    def infos(self) -> Mapping[str, TeacherInfo]:
        """By name, sorted."""

    def track(
        self, names: list[str], frames: np.ndarray, queries: np.ndarray, seed: int
    ) -> dict[str, Tracks | str]:
        """Tracks by teacher; if a teacher cannot track this clip, its message instead."""


@dataclass(frozen=True)
class TeachersReady:
    """The teachers of the job are made, and the first unit begins."""

    infos: Mapping[str, TeacherInfo]


@dataclass(frozen=True)
class ClipStarted:
    """The frames of a clip are there, and the teachers begin."""

    unit: int
    uri: str
    key: str


@dataclass(frozen=True)
class ClipDone:
    """A clip is labelled (not yet committed)."""

    unit: int
    key: str
    tracks: int
    """Number of queries times the number of teachers that were run."""


@dataclass(frozen=True)
class VideoDone:
    """A video of the unit is finished, labelled or not."""

    unit: int
    uri: str
    rows: tuple[LeftOut, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time in seconds that the unit has taken so far, by step."""
    labelled: int | None = None
    """Clips of the video that became labels; None where it had labels before."""

    @property
    def why_failed(self) -> str | None:
        """The reason if the video failed, or any of its clips and none became a label; else
        None."""
        failed = [row for row in self.rows if row.status == "failed" and row.what != "teacher"]
        of_video = next((row.reason for row in failed if row.what == "video"), None)
        return of_video or (failed[0].reason if failed and self.labelled == 0 else None)


@dataclass(frozen=True)
class UnitDone:
    """The unit has a record with every wanted teacher."""

    unit: int
    revision: int


Event = TeachersReady | ClipStarted | ClipDone | VideoDone | UnitDone
Tracked = dict[str, dict[str, bytes | str]]
"""By `_what_is_tracked` and teacher, why it has no tracks, or, after a lost race, the npz of its
tracks, so that the race does not cost the teachers' work. Until then, these lie only in the scratch
tar: those of a unit may be hundreds of MB."""


def do_unit(
    job: Job,
    unit: Unit,
    decoding: DecodingProcess,
    trackers: Trackers,
    *,
    then: Unit | None = None,
) -> Iterator[Event]:
    """Work on `unit` until its latest record has every wanted teacher; yields what happens.

    `then` is probably the next unit: its first clip is decoded while the teachers work on the last
    one of this unit.

    Raises:
        TransientError: the machine or the storage fails; the unit stays open. Where a disk is full,
            a FullScratchError if it is that of temporary files, otherwise a FullStorageError.
        ConfigError: a teacher has random weights; or one of the same name, but with another
            checkpoint or other settings, has labelled the unit before.
    """
    refuse_untrained(trackers.infos)
    storage = Storage(job.url)
    tracked: Tracked = {}
    # for whatever a disk or the network refuses, here or in the decoder's process
    with transient_errors(f"do unit {unit.number}", scratch=True):
        while True:
            record = latest(storage, unit.number)
            if record is not None:
                check_same_teachers(record, trackers.infos)
                if set(trackers.infos) <= set(record.teachers):
                    yield UnitDone(unit.number, record.revision)
                    return
                try:
                    done = yield from _add_teachers(
                        storage, job.judge, record, unit, trackers, tracked
                    )
                except ShardError:
                    newest = latest(storage, unit.number)
                    if newest is None or newest.revision == record.revision:
                        raise
                    # `gc` removed the tar while it was read, because a newer one replaces it
                    done = False
            else:
                items = decoding.clips(unit.videos, then.videos if then else ())
                done = yield from _label(storage, job, unit, items, trackers, tracked)
            if done:
                yield UnitDone(unit.number, record.revision + 1 if record else 0)
                return


DECISIVE = ("checkpoint_sha256", "mode", "visible_rule", "settings")
"""Fields of a `TeacherInfo` by which teachers of the same name are told apart."""


def check_same_teachers(record: Record, infos: Mapping[str, TeacherInfo]) -> None:
    """Raise a ConfigError if another teacher has labelled this unit under the same name."""
    for name in sorted(set(record.teachers) & set(infos)):
        # tuples are lists, as in the record
        there, here = record.teachers[name], json.loads(to_json(infos[name].to_json()))
        if differences := differences_of(there, here):
            raise ConfigError(
                f"teacher {name!r} labelled unit {record.unit} as another ({differences}): use "
                "what was used before, or give it another name."
            )


def differences_of(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """How two teachers differ, of which `TeacherInfo.to_json` is given; "" if they do not."""
    return "; ".join(
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} here"
        for key in DECISIVE
        if there.get(key) != here.get(key)
    )


def _label(
    storage: Storage,
    job: Job,
    unit: Unit,
    items: Iterator[Item],
    trackers: Trackers,
    tracked: Tracked,
) -> Generator[Event, None, bool]:
    """Track, label, and commit an open unit, whose decoded `items` are given; False if another
    writer was faster, with other bytes."""
    videos: list[VideoEntry] = []
    clips: list[ClipEntry] = []
    rows: list[LeftOut] = []
    names = list(trackers.infos)
    clock = _Stopwatch()
    with scratch_folder() as folder, ShardWriter(folder / "unit.tar") as writer:
        reported = labelled = 0
        for item in items:
            clock.lap("waiting for frames")
            if isinstance(item, OpenedVideo):
                videos.append(VideoEntry(uri=item.uri, sha256=item.sha256, clips=len(item.clips)))
            elif isinstance(item, LeftOut):
                rows.append(item)
            elif isinstance(item, VideoEnd):
                since, made = tuple(rows[reported:]), len(clips) - labelled
                yield VideoDone(unit.number, item.uri, since, dict(clock.seconds), made)
                reported, labelled = len(rows), len(clips)
            else:
                yield ClipStarted(unit.number, item.meta["uri"], item.key)
                results = trackers.track(names, item.frames, item.queries, seed_of(item.key))
                clock.lap("teachers")
                failures = _rows_of_failures(
                    item.meta["uri"], item.key, results, needed=min(2, len(names))
                )
                rows += failures
                if any(row.what == "clip" for row in failures):
                    continue
                sample = _labelled(item, results, trackers.infos, job.agreement)
                clock.lap("agreement and writing")
                if job.judge:
                    verdict = judged(item.frames, sample.queries, sample.tracks, sample.rules)
                    sample = replace(sample, verdict=verdict)
                    clock.lap("verifier")
                sample = proven(sample)
                writer.write(sample.key, members(sample))
                clips.append(entry(sample))
                tracked[_what_is_tracked(sample)] = _whys(results)
                clock.lap("agreement and writing")
                yield ClipDone(unit.number, sample.key, len(sample.queries) * len(names))
        shard = writer.finish()
        record = Record(
            unit=unit.number,
            revision=0,
            plan=unit.plan,
            planned=len(unit.videos),
            **tar_of(unit.number, 0, shard),
            **_made_by(trackers, job),
            videos=videos,
            clips=with_offsets(clips, shard),
            rows=rows,
            seconds=clock.seconds,
        )
        if commit(storage, record, shard):
            return True
        if shard is not None:
            _remember(tracked, names, shard.file)
        return False


def _made_by(trackers: Trackers, job: Job) -> dict[str, Any]:
    """What a record says of who made its labels."""
    return {
        "teachers": info_to_meta(trackers.infos),
        "agreement": asdict(job.agreement),
        "verifier": shipped_version() if job.judge else None,
        "fingerprint": fingerprint(trackers.infos),
    }


def _add_teachers(
    storage: Storage,
    judge: bool,
    record: Record,
    unit: Unit,
    trackers: Trackers,
    tracked: Tracked,
) -> Generator[Event, None, bool]:
    """Track the stored clips with the teachers that the unit lacks, and commit the next revision;
    False as in `_label`. A unit that was judged is judged again whatever `judge` says: a verdict is
    about all of its teachers."""
    judge = judge or record.verifier is not None
    missing = {name: info for name, info in trackers.infos.items() if name not in record.teachers}
    config = AgreementConfig(**record.agreement)
    rows = list(record.rows)
    clock = _Stopwatch()

    def change(sample: Sample, parts: Parts) -> tuple[Sample, Parts]:
        frames = decode_clip(sample.mp4, f"{sample.key}.mp4")
        clock.lap("waiting for frames")
        found = _found(trackers, list(missing), sample, frames, tracked)
        clock.lap("teachers")
        rows.extend(_rows_of_failures(sample.meta["uri"], sample.key, found, needed=0))
        new = {
            name: _tracks_or_nan(result, len(sample.queries), sample.meta["frames"])
            for name, result in found.items()
        }
        meta = {
            **sample.meta,
            "schema": SCHEMA,
            "teachers": {**sample.meta["teachers"], **info_to_meta(missing)},
        }
        changed = replace(sample, tracks={**sample.tracks, **new}, meta=meta)
        labels = agreement.label(
            changed.tracks,
            changed.rules,
            changed.queries,
            changed.size_hw,
            config,
            changed.evidence,
        )
        clock.lap("agreement and writing")
        verdict = None
        if judge:
            verdict = judged(frames, changed.queries, changed.tracks, changed.rules)
            clock.lap("verifier")
        changed = proven(replace(changed, labels=labels, verdict=verdict))
        return changed, updated(parts, members(replace(changed, tracks=new)))

    fields = {
        "teachers": {**record.teachers, **info_to_meta(missing)},
        "verifier": shipped_version() if judge else None,
        "rows": rows,
        "fingerprint": {
            # the devices of earlier teachers stay
            **{name: said for name, said in record.fingerprint.items() if "device of " in name},
            **fingerprint(missing),
        },
    }

    def lost(tar: Path) -> None:
        _remember(tracked, list(missing), tar)

    clips = revise(storage, record, change, lost, **fields)
    return (yield from _events_of_revision(clips, record, unit, len(missing), clock))


def _found(
    trackers: Trackers,
    names: Sequence[str],
    sample: Sample,
    frames: np.ndarray,
    tracked: Tracked,
) -> dict[str, Tracks | str]:
    """What these teachers find in a stored clip, or why nothing; what a lost race has left in
    `tracked` is not tracked again."""
    known = tracked.setdefault(_what_is_tracked(sample), {})
    found = {name: _from_npz_or_why(known[name], f"{sample.key}.{name}.npz") for name in known}
    if todo := [name for name in names if name not in known]:
        results = trackers.track(todo, frames, sample.queries, seed_of(sample.key))
        known.update(_whys(results))
        found |= results
    return {name: found[name] for name in names}


def _events_of_revision(
    clips: Generator[ClipEntry, None, bool],
    record: Record,
    unit: Unit,
    teachers: int,
    clock: _Stopwatch,
) -> Generator[Event, None, bool]:
    """What happens while `clips` are tracked by that many teachers more than `record` has; returns
    what they do."""
    there = iter(record.clips)
    while True:
        if begun := next(there, None):
            yield ClipStarted(unit.number, begun.uri, begun.key)
        try:
            clip = next(clips)
        except StopIteration as end:
            yield from (VideoDone(unit.number, v.uri, (), clock.seconds) for v in unit.videos)
            return end.value
        clock.lap("agreement and writing")
        yield ClipDone(unit.number, clip.key, clip.queries * teachers)


def _labelled(
    clip: UnlabelledClip,
    results: Mapping[str, Tracks | str],
    infos: Mapping[str, TeacherInfo],
    config: AgreementConfig,
) -> Sample:
    """The sample of a clip that enough teachers could track."""
    tracks = {
        name: _tracks_or_nan(result, len(clip.queries), len(clip.frames))
        for name, result in results.items()
    }
    rules = {name: infos[name].rule for name in tracks}
    evidence = {name: infos[name].evidence for name in tracks}
    size_hw = clip.frames.shape[1:3]
    labels = agreement.label(tracks, rules, clip.queries, size_hw, config, evidence)
    return Sample(
        clip.key,
        clip.mp4,
        clip.queries,
        clip.sampler,
        tracks,
        labels,
        {**clip.meta, "teachers": info_to_meta(infos)},
    )


def _what_is_tracked(sample: Sample) -> str:
    """The key with a hash of the pixels and queries: another machine's pixels of the same clip may
    differ, and pruning leaves queries out."""
    digest = hashlib.sha256(sample.mp4 + sample.queries.tobytes()).hexdigest()
    return f"{sample.key} {digest}"


def _tracks_or_nan(result: Tracks | str, queries: int, frames: int) -> Tracks:
    """Tracks with the rounding of a shard; NaN for a teacher that failed."""
    return Tracks.nan(queries, frames) if isinstance(result, str) else stored(result)


def _whys(results: Mapping[str, Tracks | str]) -> dict[str, bytes | str]:
    """Why teachers have no tracks, by name."""
    return {name: result for name, result in results.items() if isinstance(result, str)}


def _remember(tracked: Tracked, names: Sequence[str], tar: Path) -> None:
    """Take the tracks of these teachers from a scratch tar that lost the race."""
    with tar.open("rb") as stream:
        for key, parts in read_samples(stream, tar.name):
            known = tracked.setdefault(_what_is_tracked(from_members(key, parts)), {})
            for name in names:
                known.setdefault(name, parts[f"{name}.npz"])


def _from_npz_or_why(known: bytes | str, what: str) -> Tracks | str:
    return known if isinstance(known, str) else tracks_from_npz(known, what)


def _rows_of_failures(
    uri: str, key: str, results: Mapping[str, Tracks | str], *, needed: int
) -> list[LeftOut]:
    """A row for each teacher that failed, and one for the clip if fewer than `needed` teachers
    succeeded."""
    failed = {name: result for name, result in results.items() if isinstance(result, str)}
    rows = [
        LeftOut(
            uri=uri,
            what="teacher",
            stage=f"teacher:{name}",
            reason="teacher-error",
            detail=detail,
            key=key,
        )
        for name, detail in failed.items()
    ]
    able = len(results) - len(failed)
    if able < needed:
        detail = f"{able} of {len(results)} teachers could track it"
        rows.append(
            LeftOut(
                uri=uri, what="clip", stage="teachers", reason="teachers", detail=detail, key=key
            )
        )
    return rows


class _Stopwatch:
    """Wall time in seconds by step: each lap adds the time since the lap before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now
