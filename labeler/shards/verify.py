"""Verify and gc: compare every shard with its commit record; remove tars that no record names, or
only an older one."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from labeler.io import Storage, file_sha256, transient_errors
from labeler.io.storage import PART
from labeler.labels import Sample
from labeler.shards.clock import storage_time
from labeler.shards.copies import COPIES, FOLDER
from labeler.shards.manifest import read_manifest
from labeler.shards.members import from_members
from labeler.shards.plan import read_plans
from labeler.shards.record import TAR, Record, record_name
from labeler.shards.records import (
    RECORD,
    Digests,
    Records,
    latest_records,
    read_record,
    revisions,
    wrong_copies,
)
from labeler.shards.tables import accounts, compact
from labeler.shards.tar import read_samples, refuse_odd_member
from teachers import ShardError


@dataclass(frozen=True)
class Finding:
    """Something that differs from what its record says."""

    file: str
    problem: str
    harmless: bool = False
    """Whether it is only left over: no reader ever sees it, and `gc` removes it."""


def verify(
    storage: Storage, *, quick: bool = False, seen: Callable[[Record], None] = lambda record: None
) -> Iterator[Finding]:
    """Compare every shard with its record; yields what is wrong. Holds one record at a time, and of
    the others what `labeler.shards.records.digest_of` says.

    Args:
        quick: compare only names and sizes; otherwise, every byte is hashed and every sample
            parsed.
        seen: called with each record that counts, once its shard has been compared.
    """
    read_manifest(storage)
    names = storage.names("shards")
    digests = Digests()
    named: set[str] = set()
    for unit, numbers in revisions(storage).items():
        for number in numbers:
            try:
                record = read_record(storage, unit, number)
                if record.tar:
                    named.add(record.tar.removeprefix("shards/"))
                if number != numbers[-1]:
                    continue
                record, problem = _compared(storage, record, quick)
            except ShardError as error:
                yield Finding(record_name(unit, number), str(error))
                continue
            if record.tar:
                named.add(record.tar.removeprefix("shards/"))
            digests.add(record)
            if problem:
                yield Finding(record.tar_name, problem)
            seen(record)
    for name in names:
        if name.endswith(PART):
            yield Finding(f"shards/{name}", "was never finished by its writer", harmless=True)
        elif name.endswith(".tar") and name not in named:
            yield Finding(
                f"shards/{name}",
                "no record names it: its writer was interrupted, or is still at work",
                harmless=True,
            )
        elif not name.endswith(".tar") and not RECORD.fullmatch(name):
            yield Finding(f"shards/{name}", "is neither a shard nor a record")
    yield from _damaged_copies(storage, digests)
    try:
        # as a list: what a plan's footer says of its units is not believed here
        accounts([*read_plans(storage)], Records(storage, digests.table()))
    except (ShardError, KeyError) as error:
        yield Finding("plan.*.parquet", f"the accounts are wrong: {error}")


def _damaged_copies(storage: Storage, digests: Digests) -> Iterator[Finding]:
    try:
        wrong = wrong_copies(storage, digests.table())
    except ShardError as error:
        yield Finding(COPIES, str(error))
        return
    if wrong:
        yield Finding(
            COPIES,
            f"says something else of {len(wrong)} records than they themselves do (first: "
            f"{wrong[0]}): remove it, and the folder {FOLDER} beside it; they are only copies.",
        )


def _compared(storage: Storage, record: Record, quick: bool) -> tuple[Record, str | None]:
    """The record that counts for the unit, and what is wrong with its tar. That is a later one
    where `relabel` and `gc` have taken the tar of `record` away since it was found."""
    while True:
        problem = _compare(storage, record, quick) if record.tar else None
        later = record_name(record.unit, record.revision + 1)
        if problem is None or storage.size(later) is None:
            return record, problem
        record = read_record(storage, record.unit, record.revision + 1)


def _compare(storage: Storage, record: Record, quick: bool) -> str | None:
    """What is wrong with a record's tar, or None."""
    tar_name = record.tar_name
    size = storage.size(tar_name)
    if size is None:
        return "is missing"
    if size != record.size_bytes:
        return f"has {size:,} bytes, but its record says {record.size_bytes:,}"
    if quick:
        return None
    entries = {entry.key: entry for entry in record.clips}
    try:
        with transient_errors(f"read {storage.url}/{tar_name}"), storage.open(tar_name) as file:
            # headers first: a member may be larger than the memory
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    refuse_odd_member(member, tar_name)
                    key, _, suffix = member.name.partition(".")
                    if key not in entries or entries[key].offsets.get(suffix) != (
                        member.offset_data,
                        member.size,
                    ):
                        return f"holds {member.name} at an offset that its record does not name"
            file.seek(0)
            digest = file_sha256(file)
            if digest != record.sha256:
                said = f"{str(record.sha256)[:12]}..."
                return f"has sha256 {digest[:12]}..., but its record says {said}"
            file.seek(0)
            keys = []
            for key, parts in read_samples(file, tar_name):
                sample = from_members(key, parts)
                keys.append(key)
                if problem := _wrong_verdict(sample, record):
                    return problem
    except tarfile.TarError as error:
        return (
            f"is not the tar with sha256 {str(record.sha256)[:12]}... that its record names: "
            f"{error}"
        )
    except FileNotFoundError:  # removed while it was read
        return "is missing"
    except ShardError as error:
        return str(error)
    if keys != [entry.key for entry in record.clips]:
        return (
            f"holds {len(keys)} samples, but its record names {len(record.clips)}, or in another "
            "order"
        )
    return None


def _wrong_verdict(sample: Sample, record: Record) -> str | None:
    """How a sample's verdict contradicts its record, or None."""
    verdict = sample.verdict
    version = verdict.version if verdict else None
    if version != record.verifier:
        return (
            f"holds a verdict of verifier {version} on {sample.key}, but its record says "
            f"{record.verifier}"
        )
    if verdict and verdict.teachers != tuple(sorted(sample.tracks)):
        return f"holds a verdict on {sample.key} that is not about the teachers it has"
    return None


def collect_garbage(
    storage: Storage, *, older_than_s: float = 3600.0, dry_run: bool = False
) -> list[str]:
    """Remove tars that a later revision replaces, and those without a record; returns what was (or
    would be) removed.

    Records stay: they are small, and a writer that began earlier must never find the number of a
    revision free again. A tar without a record may belong to a writer that is still at work, so it
    is removed only if it is older than `older_than_s`, by the clock of the storage.
    """
    read_manifest(storage)
    records = latest_records(storage)
    table = records.table
    latest = dict(zip(table["unit"].tolist(), table["revision"].tolist(), strict=True))
    copied = set(table["tar"].dropna())  # only copies of records: nothing is removed on their word
    if not dry_run:
        compact(storage, records)  # before tars are removed: clips.parquet must not name them
    removed = []
    now = None
    for name in (f"shards/{name}" for name in storage.names("shards")):
        if name in copied or not name.endswith((".tar", PART)):
            continue
        which = TAR.fullmatch(name)
        replaced = which is not None and int(which[2]) < latest.get(int(which[1]), 0)
        if not replaced:
            if now is None:
                now = storage_time(storage)
            if now - storage.modified(name) <= older_than_s or _counts(storage, name):
                continue
        removed.append(name)
        if not dry_run:
            storage.remove(name)
    return removed


def _counts(storage: Storage, name: str) -> bool:
    """Whether the record of a tar's own unit and revision names it, as that record itself says."""
    which = TAR.fullmatch(name)
    if which is None or storage.size(record_name(int(which[1]), int(which[2]))) is None:
        return False
    return read_record(storage, int(which[1]), int(which[2])).tar == name
