"""Revisions: make a new revision of a shard from an old one. Members that do not change keep their
bytes.

    revise     sample by sample, through a function, such as the one that adds teachers
               (`labeler/unit.py`)
    relabel    agreement and the verifier again, from the stored raw tracks and the stored clip;
               `prune` leaves rejected queries out
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from labeler.clips.recipe import SCHEMA
from labeler.io import Storage, transient_errors
from labeler.io.scratch import scratch_folder
from labeler.labels import AgreementConfig, Labels, Sample, agreement
from labeler.labels.hidden import proven
from labeler.labels.verdict import judged, mean_trust, shipped_version
from labeler.shards.commit import commit, tar_of
from labeler.shards.members import VERDICT, from_members, members
from labeler.shards.record import ClipEntry, Record
from labeler.shards.tar import ShardWriter, WrittenShard, read_samples
from labeler.video import decode_clip
from teachers import ShardError, Tracks

DERIVED = ("labels.npz", VERDICT, "json")
Parts = dict[str, bytes]
"""The bytes of the members of a sample, by suffix."""


def revise(
    storage: Storage,
    record: Record,
    change: Callable[[Sample, Parts], tuple[Sample, Parts]],
    lost: Callable[[Path], None] = lambda tar: None,
    **fields: Any,
) -> Generator[ClipEntry, None, bool]:
    """Write and commit the revision after `record`.

    Args:
        change: makes the new sample and its members from the old ones.
        lost: called with the local tar of the new revision if another writer was faster.
        **fields: fields of the new record that differ; `change` may still append to lists among
            them.

    Yields:
        The entry of each sample, as it is written (still without offsets).

    Returns:
        False if another writer was faster, with other bytes: read the latest record and continue
            from there.
    """
    if record.tar is not None and storage.size(record.tar) != record.size_bytes:
        raise ShardError(
            f"{storage.url}/{record.tar} is missing, or does not have the {record.size_bytes:,} "
            f"bytes that its record says. Run `tapdistill verify {storage.url}`."
        )
    entries: list[ClipEntry] = []
    with scratch_folder() as folder, ShardWriter(folder / "unit.tar") as writer:
        if record.tar is not None:
            for key, parts in _samples(storage, record.tar):
                sample, parts = change(from_members(key, parts), parts)
                writer.write(key, parts)
                entries.append(entry(sample))
                yield entries[-1]
        if len(entries) != len(record.clips):
            raise ShardError(
                f"{storage.url}/{record.tar} is damaged: it has {len(entries)} samples, but its "
                f"record names {len(record.clips)}. Run `tapdistill verify {storage.url}`."
            )
        shard = writer.finish()
        tar = tar_of(record.unit, record.revision + 1, shard)
        new = replace(
            record,
            schema=SCHEMA,
            revision=record.revision + 1,
            clips=with_offsets(entries, shard),
            **{**tar, **fields},
        )
        committed = commit(storage, new, shard)
        if shard is not None and not committed:
            lost(shard.file)
        return committed


def _samples(storage: Storage, tar: str) -> Iterator[tuple[str, Parts]]:
    """The samples of a stored tar; a ShardError if somebody removes it meanwhile, which a bucket
    tells at the next block."""
    try:
        with storage.open(tar) as stream:
            yield from read_samples(stream, f"{storage.url}/{tar}")
    except FileNotFoundError as error:
        raise ShardError(
            f"{storage.url}/{tar} was removed while it was read, as `tapdistill gc` does with one "
            "that a newer one replaces. Run the same command again."
        ) from error


def relabel(
    storage: Storage,
    record: Record,
    config: AgreementConfig,
    *,
    prune: bool = False,
    judge: bool = True,
) -> bool:
    """Commit the next revision, with labels by `config` from the stored raw tracks; False as in
    `revise`.

    Args:
        prune: leave queries whose labels are not kept out of every member.
        judge: let the shipped verifier judge the clips, which are decoded for this, if another
            verifier or none has judged them; otherwise, stored verdicts stay as they are.

    A clip is judged with all of its queries, including those that are then pruned, because the
    verdict on a query depends on its neighbours. The bytes are equal wherever libraries use one
    thread (`labeler.fingerprint.one_thread`).
    """
    version = shipped_version() if judge else record.verifier

    def change(sample: Sample, parts: Parts) -> tuple[Sample, Parts]:
        labels = agreement.label(
            sample.tracks,
            sample.rules,
            sample.queries,
            sample.size_hw,
            config,
            sample.evidence,
        )
        changed = replace(sample, labels=labels)
        if version != record.verifier:
            frames = decode_clip(sample.mp4, f"{sample.key}.mp4")
            verdict = judged(frames, sample.queries, sample.tracks, sample.rules)
            changed = replace(changed, verdict=verdict, meta={**sample.meta, "schema": SCHEMA})
        changed = proven(changed)
        if prune:
            changed = _pruned(changed)
            return changed, members(changed)
        return changed, updated(parts, members(replace(changed, tracks={})))

    clips = revise(storage, record, change, agreement=asdict(config), verifier=version)
    with transient_errors(f"relabel unit {record.unit}"):
        while True:
            try:
                next(clips)
            except StopIteration as end:
                return end.value


def updated(parts: Parts, fresh: Parts) -> Parts:
    """`parts`, with derived members, json, and new members taken from `fresh`; every other member
    keeps its bytes."""
    kept = {suffix: data for suffix, data in parts.items() if suffix not in DERIVED}
    return {**fresh, **kept}


def entry(sample: Sample) -> ClipEntry:
    """The entry of a sample in the record, still without offsets."""
    labels, meta = sample.labels, sample.meta
    used = labels.valid & (labels.state == agreement.VISIBLE) & labels.keep[:, None]
    return ClipEntry(
        key=sample.key,
        uri=meta["uri"],
        source_start=meta["source_frames"][0],
        stride=meta["stride"],
        frames=meta["frames"],
        height=meta["height"],
        width=meta["width"],
        queries=len(sample.queries),
        kept=int(labels.keep.sum()),
        mean_support=round(float(labels.support[used].mean()), 4) if used.any() else None,
        mean_trust=mean_trust(sample.verdict),
        decoder=meta["decoder"],
        truncated=meta["truncated"],
        offsets={},
    )


def with_offsets(entries: list[ClipEntry], shard: WrittenShard | None) -> list[ClipEntry]:
    """The same entries, each with the offsets of its members in the finished tar."""
    return [replace(one, offsets=shard.offsets[one.key]) for one in entries] if shard else entries


def _pruned(sample: Sample) -> Sample:
    keep, labels, verdict = sample.labels.keep, sample.labels, sample.verdict
    return replace(
        sample,
        queries=sample.queries[keep],
        sampler=sample.sampler[keep],
        tracks={
            name: Tracks(t.xy[keep], t.visibility[keep], t.confidence[keep])
            for name, t in sample.tracks.items()
        },
        labels=Labels(
            labels.support[keep],
            labels.spread[keep],
            labels.state[keep],
            labels.valid[keep],
            labels.keep[keep],
            labels.settings,
        ),
        verdict=verdict
        and replace(verdict, right=verdict.right[:, keep], hidden=verdict.hidden[keep]),
    )
