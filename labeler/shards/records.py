"""Commit records: a shard exists once its record does.

    shards/000123.r0.json    written LAST and create-only: names its tar, its size and sha256, one
                             entry per clip with byte offsets, and a row for whatever was left out
                             or failed

    records.parquet          copies of the records that counted when a job last ended, so that
                             thousands are read with one request; a copy is used only while its
                             record's own file is the one that was copied

The highest revision of a unit counts; a unit's revisions have no gap. `commit` publishes the tar,
then creates the record; who loses the race for a revision is done if the winner's tar has the same
name (the same bytes), else deletes its own tar and goes on from the winner's revision.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from labeler.clips.recipe import SCHEMA
from labeler.io import Storage
from labeler.reasons import LeftOut
from labeler.shards.checked_json import check_types
from labeler.shards.members import MAX_MEMBER_BYTES, check_schema, to_json
from labeler.shards.tar import Offsets, WrittenShard, shard_name
from teachers import ShardError

RECORD = re.compile(r"(\d{6,})\.r(\d+)\.json")
TAR = re.compile(r"shards/\d{6,}\.r\d+\.[0-9a-f]{12}\.tar")
COPIES = "records.parquet"


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """One labelled clip, as its record and `clips.parquet` have it."""

    key: str
    uri: str
    source_start: int
    """Index of the clip's first frame in the source."""
    stride: int
    frames: int
    height: int
    width: int
    queries: int
    kept: int
    """Queries whose labels are kept."""
    mean_support: float | None
    """Mean support over the valid visible frames of kept queries; None if there is none."""
    mean_trust: float | None = None
    """Mean over points and frames of the verifier's probability for what it holds to be so: the
    most trusted place, or that the point is hidden. None where it has not judged the clip, or
    there is no point."""
    decoder: str
    truncated: bool
    offsets: Offsets
    """Suffix -> (offset, size) in the tar."""


@dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """One video of the unit that could be read; the others are rows."""

    uri: str
    sha256: str
    clips: int
    """Clips found in it; each is labelled or a row."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one commit says."""

    schema: int = SCHEMA
    unit: int
    revision: int
    plan: int
    """Number of the plan file that the unit belongs to."""
    tar: str | None
    """Path of the tar in the data set; None if no clip of the unit could be labelled."""
    size_bytes: int
    sha256: str | None
    teachers: dict[str, dict[str, Any]]
    """`TeacherInfo` by name."""
    agreement: dict[str, Any]
    verifier: str | None = None
    """Version of the verifier that judged every clip of the unit; None where none did (schema
    1)."""
    videos: list[VideoEntry]
    clips: list[ClipEntry]
    rows: list[LeftOut]
    planned: int
    """Videos of the unit."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """Versions and device that the bytes depend on."""

    @property
    def name(self) -> str:
        return record_name(self.unit, self.revision)

    @property
    def tar_name(self) -> str:
        """`tar`, of a record with clips; ShardError for one that names none."""
        if self.tar is None:
            raise ShardError(
                f"{self.name} has clips, but names no tar: it is damaged. Run `tapdistill verify`."
            )
        return self.tar

    def uris(self) -> set[str]:
        """Every source that the record speaks of."""
        return {one.uri for some in (self.videos, self.clips, self.rows) for one in some}

    def to_bytes(self) -> bytes:
        lists = {
            name: [vars(one) for one in getattr(self, name)] for name in ("videos", "clips", "rows")
        }
        # `asdict` would copy every offset: three times as slow
        return (to_json({**vars(self), **lists}) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, what: str) -> Record:
        """Parse a record; `what` names the file in errors."""
        try:
            fields = json.loads(data)
            check_schema(fields.get("schema"), what)
            fields["videos"] = [VideoEntry(**entry) for entry in fields["videos"]]
            fields["clips"] = [
                ClipEntry(
                    **{
                        **entry,
                        "offsets": {
                            suffix: (start, size)
                            for suffix, (start, size) in entry["offsets"].items()
                        },
                    }
                )
                for entry in fields["clips"]
            ]
            fields["rows"] = [LeftOut(**row) for row in fields["rows"]]
            record = cls(**fields)
            for one in (record, *record.videos, *record.clips, *record.rows):
                check_types(one)
            record._check_ranges()
            return record
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ShardError(
                f"{what} is not a commit record ({error}). Run `tapdistill verify`."
            ) from error

    def _check_ranges(self) -> None:
        """ValueError for a range that no record of ours has: records come with data sets of other
        people."""
        if self.tar is not None and not TAR.fullmatch(self.tar):
            raise ValueError(f"{self.tar!r} is no name of a shard")
        ranges = [found for entry in self.clips for found in entry.offsets.values()]
        if any(
            not (
                type(at) is int and type(size) is int and at >= 0 and 0 <= size <= MAX_MEMBER_BYTES
            )
            for at, size in ranges
        ):
            raise ValueError("it names a range that cannot be in a shard")


def record_name(unit: int, revision: int) -> str:
    return f"shards/{unit:06d}.r{revision}.json"


def revisions(storage: Storage) -> dict[int, list[int]]:
    """Revisions that have a record, ascending, by unit; one listing."""
    return _by_unit(storage.names("shards"))


def _by_unit(names: Iterable[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in names:
        if match := RECORD.fullmatch(name):
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {unit: sorted(numbers) for unit, numbers in sorted(found.items())}


def read_record(storage: Storage, unit: int, revision: int) -> Record:
    name = record_name(unit, revision)
    return _parsed(storage, name, storage.read(name))


def _parsed(storage: Storage, name: str, data: bytes) -> Record:
    """The record of that name; ShardError if it is none, or one of another unit or revision."""
    record = Record.from_bytes(data, f"{storage.url}/{name}")
    if record.name != name:
        raise ShardError(
            f"{storage.url}/{name} is not a commit record (it says that it is {record.name}). Run "
            "`tapdistill verify`."
        )
    return record


def latest(storage: Storage, unit: int) -> Record | None:
    """The record that counts for `unit`, or None if it is open. Looks at its names one by one: a
    listing would cost every unit's."""
    revision = 0
    while storage.size(record_name(unit, revision)) is not None:
        revision += 1
    return read_record(storage, unit, revision - 1) if revision else None


def latest_names(storage: Storage) -> list[str]:
    """Names of the records that count, by unit; one listing."""
    return _latest_of(storage.names("shards"))


def _latest_of(names: Iterable[str]) -> list[str]:
    return [record_name(unit, numbers[-1]) for unit, numbers in _by_unit(names).items()]


def latest_records(storage: Storage) -> list[Record]:
    """The record that counts for every unit that has one, by unit; from their copies where those
    are up to date."""
    tags = storage.tags("shards")
    counting = _latest_of(tags)
    copies = _read_copies(storage) if counting else {}

    def read(name: str) -> Record:
        copied = copies.get((name, tags[name.removeprefix("shards/")]))
        return _parsed(storage, name, storage.read(name) if copied is None else copied)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, counting))


def copy_records(storage: Storage, records: Sequence[Record]) -> None:
    """Write records.parquet: a copy of each record, with the tag of its file."""
    tags = storage.tags("shards")
    table = pd.DataFrame(
        [
            (record.name, tags.get(record.name.removeprefix("shards/"), ""), record.to_bytes())
            for record in records
        ],
        columns=["name", "tag", "record"],
    )
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    storage.replace(COPIES, buffer.getvalue())


def _read_copies(storage: Storage) -> dict[tuple[str, str], bytes]:
    """(name, tag) -> bytes of each copied record. A damaged file of copies is as good as none: the
    records are the truth."""
    if storage.size(COPIES) is None:
        return {}
    try:
        table = pd.read_parquet(io.BytesIO(storage.read(COPIES)))
        return {
            (name, tag): data
            for name, tag, data in zip(table["name"], table["tag"], table["record"], strict=True)
        }
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
        return {}


def commit(storage: Storage, record: Record, shard: WrittenShard | None) -> bool:
    """Publish `shard`, then create `record`, which names it.

    Returns:
        True if the unit now has this revision with these bytes, ours or an equal one of another
        writer. False if another writer took the revision with other bytes: our tar is gone again;
        read its record and go on from there.
    """
    if shard is not None:
        storage.publish(shard.file, record.tar_name)
    if storage.create(record.name, record.to_bytes()):
        return True
    winner = read_record(storage, record.unit, record.revision)
    if winner.tar == record.tar:
        return True
    if record.tar is not None:
        storage.remove(record.tar)
    return False


def tar_of(unit: int, revision: int, shard: WrittenShard | None) -> dict[str, Any]:
    """The fields of a `Record` that describe its tar."""
    if shard is None:
        return {"tar": None, "size_bytes": 0, "sha256": None}
    return {
        "tar": shard_name(unit, revision, shard.sha256),
        "size_bytes": shard.size_bytes,
        "sha256": shard.sha256,
    }
