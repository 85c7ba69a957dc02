"""Reader: labelled clips out of shards, by the byte ranges that their commit records name.

    stored, left_out = open_clips(("labels", "s3://bucket/more"), crop_hw=(384, 512))
    clip = read_clip(stored[0], "random", rng)         # TrainClip, its labels chosen by the policy

Opening reads the records, never a tar: sizes, teachers, visible rules, agreement, verifier, and
failures all stand there. Of a tar only the members that a policy needs are read: the mp4, the
queries, and the drawn teacher's tracks, or all teachers', and the verifier's verdict if it is asked
for.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from labeler.dataset.dataset import open_dataset
from labeler.dataset.review import Fit, Review
from labeler.io.storage import Storage
from labeler.labels.policies import Candidates, Policy, chosen, uses_verdict, weights
from labeler.labels.trust import TrustConfig
from labeler.shards.members import VERDICT, read_npz, tracks_from_npz, verdict_from_npz
from labeler.shards.record import ClipEntry
from labeler.shards.records import Records
from labeler.video.colours import Region
from labeler.video.encode import decode_clip
from student.data.augment import (
    LARGEST_SCALE,
    UnusableSample,
    View,
    at_frames,
    labels_at,
)
from student.data.batch import InlineRequest, TrainClip
from student.data.config import AS_STORED, AgreementOverride
from student.data.stored import Shard, StoredClip, StoredClips, fits
from teachers import ConfigError, ShardError, TeacherInfo
from teachers.tracks import has_position

TAR_FILE = re.compile(r".+\.tar")
NEIGHBOUR_BYTES = 2048
"""Members no further apart are read together: padding and the headers of pax, which the writer
uses."""


@dataclass(frozen=True)
class UnusableClips:
    """Clips of a shard that cannot be read or used, found before training."""

    file: str
    reason: Literal["missing", "truncated", "too-small"]
    clips: int
    detail: str


@dataclass(frozen=True)
class LabelChoice:
    """Which of the stored teachers and queries count; none named: all."""

    teachers: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    review: Review | None = None
    """Points that it calls wrong do not count."""
    reviewed_only: bool = False
    """Only those count that it calls right."""

    def of_points(
        self,
        key: str,
        sampler: np.ndarray,  # unicode [N]
        queries: np.ndarray,  # [N, 3]
    ) -> np.ndarray:  # bool [N]
        """The queries of a clip that count."""
        counts = self.of_samplers(sampler)
        if self.review is not None:
            counts = counts & self.review.learnt(key, queries, only=self.reviewed_only)
        return counts

    def of_teachers(self, there: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in there if name in self.teachers) if self.teachers else there

    def of_samplers(self, sampler: np.ndarray) -> np.ndarray:  # unicode [N] -> bool [N]
        return np.isin(sampler, self.samplers) if self.samplers else np.ones(len(sampler), bool)


ALL = LabelChoice()
READERS = 8
"""How many clips are read at once: S3 answers many requests as fast as one."""
NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)
"""Until they are decoded."""


def open_clips(
    urls: Sequence[str], crop_hw: tuple[int, int]
) -> tuple[StoredClips, list[UnusableClips]]:
    """The clips of data sets that a crop of `crop_hw` px can be cut from, by data set and unit, and
    those left out.

    Raises:
        ShardError: a data set is missing, of another schema, has no clip, or none that can be used.
    """
    sets: list[tuple[str, Records]] = []
    shards: list[tuple[int, int, int]] = []
    left_out: list[UnusableClips] = []
    for url in urls:
        dataset = open_dataset(url)
        if not len(dataset):
            raise ShardError(
                f"{dataset.storage.url} has no labelled clip yet: run `tapdistill label VIDEOS "
                f"--out {url}` to its end."
            )
        table = dataset.records.table
        missing = table["tar"].isna() & (table["clips"] > 0)
        if missing.any():
            raise ShardError(
                f"{dataset.storage.url}: a record with {table.loc[missing, 'clips'].iloc[0]} clips "
                "names no tar."
            )
        sizes = {file.name: file.size for file in dataset.storage.files("shards", TAR_FILE)}
        for place, (tar, clips, size, shapes) in enumerate(
            zip(
                *(table[name].tolist() for name in ("tar", "clips", "size_bytes", "shapes")),
                strict=True,
            )
        ):
            if not clips:
                continue
            there = sizes.get(tar.removeprefix("shards/"))
            fit = clips - _too_small(shapes, crop_hw)
            problem = _problem(f"{dataset.storage.url}/{tar}", clips, there, size, fit, crop_hw)
            if problem:
                left_out.append(problem)
            if fit and (problem is None or problem.reason == "too-small"):
                shards.append((len(sets), place, fit))
        sets.append((dataset.storage.url, dataset.records))
    if urls and not shards:
        counts = Counter[str]()
        for one in left_out:
            counts[one.reason] += one.clips
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise ShardError(
            f"{', '.join(urls)}: none of the clips can be used ({why}; first: {left_out[0].file}: "
            f"{left_out[0].detail}). Take a smaller crop (--height, --width) for small clips; "
            "`tapdistill verify` lists damaged shards."
        )
    found = np.array(shards, np.int64).reshape(-1, 3)
    return StoredClips(sets, found[:, :2], found[:, 2], crop_hw), left_out


def refuse_unknown_teachers(clips: StoredClips, wanted: Sequence[str]) -> None:
    """ConfigError where a data set was labelled by none of the `wanted` teachers."""
    for url, table in clips.tables():
        names = {name for text in table["teachers"].unique() for name in json.loads(str(text))}
        missing = [name for name in wanted if name not in names]
        if missing and len(table):
            raise ConfigError(
                f"use_teachers = {', '.join(wanted)}: {url} has no tracks of {missing[0]!r}, only "
                f"of {', '.join(sorted(names))}."
            )


def reviewed(
    clips: Sequence[StoredClip], review: Review, *, only: bool = False
) -> tuple[list[StoredClip], str]:
    """The clips of which a point is left to learn from, and a sentence about points of the review
    that have another number by now, or are gone; "" if there are none.

    Reads the queries of the clips that the review is about.

    Raises:
        ConfigError: as `Review.learnt`; or none of its clips or points is here; or nothing is left.
    """
    about, fit = review.keys, Fit()
    there = [clip for clip in clips if clip.entry.key in about]
    if not there:
        raise ConfigError(
            f"review {review.file}: names no clip of the data: is it of another data set?"
        )
    with ThreadPoolExecutor(READERS) as readers:
        left = {
            _place(clip): review.learnt(clip.entry.key, queries, only=only, fit=fit).any()
            for clip, queries in zip(there, readers.map(_queries, there), strict=True)
            if queries is not None
        }
    if fit.gone and not fit.there and not review.whole.keys() & {one.entry.key for one in there}:
        raise ConfigError(
            f"review {review.file}: none of its points is among the queries of its clips, the "
            f"first of which is {there[0].entry.key}: it was written of a data set with other "
            "queries. Review this one with `tapdistill inspect`."
        )
    kept = [clip for clip in clips if left.get(_place(clip), not only)]
    if not kept:
        raise ConfigError(f"review {review.file}: leaves no point to learn from.")
    said = [f"{fit.moved:,} have another number by now"] if fit.moved else []
    said += [f"{fit.gone:,} are no longer queries of their clips"] if fit.gone else []
    points = f"{fit.there + fit.gone:,} points"
    return kept, f"review {review.file}: of {points}, {' and '.join(said)}" if said else ""


def _place(clip: StoredClip) -> tuple[str, str, str]:
    return clip.shard.url, clip.shard.tar, clip.entry.key


def _queries(clip: StoredClip) -> np.ndarray | None:
    """[N, 3]; None if the bytes are damaged, which is counted when the clip is drawn."""
    name = "queries.npz"
    data = _read_members(clip.shard, {name: clip.entry.offsets[name]})[name]
    try:
        return read_npz(data, f"{clip.entry.key}.{name}")["queries"]
    except (ShardError, KeyError):
        return None


def first_by_hash(clips: Sequence[StoredClip], most: int) -> list[StoredClip]:
    """`most` of the clips, as if drawn at random, in their order; a smaller number gives a part of
    what a larger one gives."""

    def place(clip: StoredClip) -> bytes:
        return hashlib.sha256(f"{clip.shard.url}/{clip.entry.key}".encode()).digest()

    kept = heapq.nsmallest(most, ((place(clip), i, clip) for i, clip in enumerate(clips)))
    return [clip for _, _, clip in sorted(kept, key=lambda one: one[1])]


def refuse_unjudged(clips: Sequence[StoredClip], why: str) -> None:
    """ConfigError where a verifier has not judged all of them."""
    if isinstance(clips, StoredClips):
        missing = Counter(
            {url: int(table["verifier"].isna().sum()) for url, table in clips.tables()}
        )
    else:
        shards = {(clip.shard.url, clip.shard.tar): clip.shard for clip in clips}.values()
        missing = Counter(shard.url for shard in shards if shard.verifier is None)
    url, count = missing.most_common(1)[0] if missing else ("", 0)
    if count:
        raise ConfigError(
            f"{why} needs the verifier's verdict, and {count} shards of {url} have none: "
            f"`tapdistill relabel {url}` lets it judge them, without a teacher."
        )


def read_clip(
    clip: StoredClip,
    policy: Policy,
    rng: np.random.Generator,
    agreement: AgreementOverride = AS_STORED,
    trust: TrustConfig | None = None,
    weigh: bool = False,
    choice: LabelChoice = ALL,
    view: Callable[[ClipEntry], View] | None = None,
) -> TrainClip:
    """The clip with the labels of `policy`.

    Args:
        policy: "random" draws one teacher for the clip, as the published training does for each
            step.
        agreement: thresholds of the policies that need them, where they differ from those of the
            stored labels.
        trust: from which probability on the verifier is believed.
        weigh: each frame counts by the verifier's probability that its label is right.
        choice: which of its teachers and queries count.
        view: what is wanted of it; nothing else is decoded. It is called last, so that its random
            numbers are drawn after all others. None: the whole clip.

    Raises:
        UnusableSample: its bytes are damaged, or no teacher could track it.
        ShardError: its tar is gone.
        ConfigError: no such policy, or it (or `weigh`) needs a verdict and the clip has none.
    """
    names = choice.of_teachers(clip.teachers)
    if not names:
        raise UnusableSample("no-labels")
    if policy == "random":
        names = (names[rng.integers(len(names))],)
    mp4, sampler, tracks = _read_tracks(clip, names, with_verdict=weigh or uses_verdict(policy))
    candidates = replace(
        tracks, agreement=agreement.over(clip.shard.agreement), trust=trust or TrustConfig()
    )
    target = chosen(policy, candidates, rng)
    knows = np.array([_info(clip, name).knows_hidden_points for name in names])
    knows_place = (target.teacher >= 0) & knows[target.teacher]
    # for a blend of all teachers, every teacher must know where a hidden point is
    knows_place |= (target.teacher < 0) & knows.all() & target.used
    counts = choice.of_points(clip.entry.key, sampler, candidates.queries)
    used = target.used & counts[:, None]
    whole = TrainClip(
        clip.entry.key,
        "shards",
        NO_FRAMES,
        candidates.queries,
        target.xy,
        target.visible,
        valid=used & has_position(target.xy) & (target.visible | knows_place),
        visibility_valid=used,
        supervise_occluded=bool(knows.any()),
        weight=weights(target, candidates) if weigh else None,
    )
    return _with_frames(whole, mp4, clip.entry, view)


def _with_frames(
    labels: TrainClip, mp4: bytes, entry: ClipEntry, view: Callable[[ClipEntry], View] | None
) -> TrainClip:
    """The clip with its frames, or with what the view shows of them, and the labels there."""
    if view is None:
        return replace(labels, frames=_frames(mp4, entry, None, None))
    seen = view(entry)
    labels = at_frames(labels, seen.frames)
    if seen.crop is None:
        return replace(labels, frames=_frames(mp4, entry, seen.frames, None))
    labels = labels_at(labels, seen.crop)
    if seen.crop.resizes:  # each pixel takes from others, so the frame is needed around the crop
        frames = seen.crop.of(_frames(mp4, entry, seen.frames, None))
    else:
        frames = _frames(mp4, entry, seen.frames, seen.crop.window)
    return replace(labels, frames=frames)


def _frames(
    mp4: bytes, entry: ClipEntry, index: np.ndarray | None, window: Region | None
) -> np.ndarray:
    """What `decode_clip` gives, if that is what the record says of the clip."""
    try:
        frames = decode_clip(mp4, f"{entry.key}.mp4", index, window)
    except (ShardError, IndexError) as error:
        raise UnusableSample("corrupt") from error
    size_hw = (entry.height, entry.width) if window is None else window[2:]
    if frames.shape != (entry.frames if index is None else len(index), *size_hw, 3):
        raise UnusableSample("corrupt")
    return frames


def _read_tracks(
    clip: StoredClip, names: Sequence[str], *, with_verdict: bool
) -> tuple[bytes, np.ndarray, Candidates]:
    """The mp4, the sampler of each query, and what those teachers say; the verdict too, if there is
    one."""
    entry = clip.entry
    suffixes = ["mp4", "queries.npz", *(f"{name}.npz" for name in names)]
    if with_verdict and VERDICT in entry.offsets:
        suffixes.append(VERDICT)
    members = _read_members(clip.shard, {suffix: entry.offsets[suffix] for suffix in suffixes})
    try:
        asked = read_npz(members["queries.npz"], f"{entry.key}.queries.npz")
        queries, sampler = asked["queries"], asked["sampler"]
        tracks = {
            name: tracks_from_npz(members[f"{name}.npz"], f"{entry.key}.{name}.npz")
            for name in names
        }
        verdict = (
            verdict_from_npz(members[VERDICT], f"{entry.key}.{VERDICT}")
            if VERDICT in members
            else None
        )
    except (ShardError, KeyError) as error:
        raise UnusableSample("corrupt") from error
    expected = entry.queries, entry.frames
    if any(each.xy.shape != (*expected, 2) for each in tracks.values()):
        raise UnusableSample("corrupt")
    if verdict and (verdict.hidden.shape != expected or set(names) - set(verdict.teachers)):
        raise UnusableSample("corrupt")
    return (
        members["mp4"],
        sampler,
        Candidates(
            tracks=tracks,
            rules={name: _info(clip, name).rule for name in names},
            evidence={name: _info(clip, name).evidence for name in names},
            queries=queries,
            size_hw=(entry.height, entry.width),
            verdict=verdict,
        ),
    )


def _info(clip: StoredClip, name: str) -> TeacherInfo:
    return TeacherInfo.from_json(clip.shard.teachers[name])


def read_unlabelled(
    clip: StoredClip,
    request: InlineRequest,
    choice: LabelChoice = ALL,
    view: Callable[[ClipEntry], View] | None = None,
) -> TrainClip:
    """The clip with its queries, for a teacher that is yet to track them: each is valid in its own
    frame alone. `choice` and `view` as for `read_clip`.

    Raises:
        UnusableSample: its bytes are damaged.
        ShardError: its tar is gone.
    """
    entry = clip.entry
    members = _read_members(
        clip.shard, {suffix: entry.offsets[suffix] for suffix in ("mp4", "queries.npz")}
    )
    try:
        asked = read_npz(members["queries.npz"], f"{entry.key}.queries.npz")
        queries, sampler = asked["queries"], asked["sampler"]
    except (ShardError, KeyError) as error:
        raise UnusableSample("corrupt") from error
    own = queries[:, :1].astype(int) == np.arange(entry.frames)
    own &= choice.of_points(entry.key, sampler, queries)[:, None]
    xy = np.repeat(queries[:, None, 1:], entry.frames, 1)
    whole = TrainClip(
        entry.key, "shards", NO_FRAMES, queries, xy, own, own, own, False, inline=request
    )
    return _with_frames(whole, members["mp4"], entry, view)


def _problem(
    file: str, clips: int, there: int | None, size: int, fit: int, crop_hw: tuple[int, int]
) -> UnusableClips | None:
    """Which of the `clips` of a tar cannot be used, and why: it has `there` bytes, its record says
    `size`, and `fit` clips are large enough."""
    if there is None:
        return UnusableClips(
            file, "missing", clips, "its record names it, but there is no such file"
        )
    if there != size:
        detail = f"has {there:,} bytes, its record says {size:,}"
        return UnusableClips(file, "truncated", clips, detail)
    if fit == clips:
        return None
    detail = (
        f"smaller than the crop of {crop_hw[1]} x {crop_hw[0]} px even when enlarged "
        f"{LARGEST_SCALE:g} times"
    )
    return UnusableClips(file, "too-small", clips - fit, detail)


@lru_cache(4096)
def _too_small(shapes: str, crop_hw: tuple[int, int]) -> int:
    """How many clips a crop cannot be cut from, of shapes as `digest_of` a record says them."""
    sizes = ((of.split(","), count) for of, count in json.loads(shapes).items())
    return sum(count for of, count in sizes if not fits((int(of[0]), int(of[1])), crop_hw))


def _read_members(shard: Shard, wanted: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
    """Bytes of members by suffix, from their (offset, size); neighbours in the tar come in one
    read."""
    runs: list[list[str]] = []
    end = -NEIGHBOUR_BYTES - 1
    for suffix, (offset, size) in sorted(wanted.items(), key=lambda item: item[1]):
        if offset - end > NEIGHBOUR_BYTES:
            runs.append([])
        runs[-1].append(suffix)
        end = offset + size
    parts: dict[str, bytes] = {}
    for run in runs:
        start, stop = wanted[run[0]][0], sum(wanted[run[-1]])
        try:
            data = _storage(shard.url, os.getpid()).read_range(shard.tar, start, stop - start)
        except ShardError as error:
            raise ShardError(
                f"{error} It was there when reading began: if `tapdistill gc` removed an old "
                "revision, start again to read the new one."
            ) from error
        parts |= {suffix: data[wanted[suffix][0] - start :][: wanted[suffix][1]] for suffix in run}
    return parts


@lru_cache
def _storage(url: str, process: int) -> Storage:
    """One connection for each process: those of S3 do not survive a fork."""
    return Storage(url)
