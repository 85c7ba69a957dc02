"""Commit records: a shard exists once its record does.

    shards/000123.r0.json    written LAST and create-only: names its tar, its size and sha256, one
                             entry per clip with byte offsets, and a row for whatever was left out
                             or failed

The highest revision of a unit counts; a unit's revisions have no gap. `labeler.shards.commit`
writes them.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, starmap
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from labeler.io import Storage
from labeler.lazy_sequence import LazySequence
from labeler.reasons import REASONS
from labeler.shards.copies import (
    COLUMNS,
    COPIES,
    FOLDER,
    INDEX,
    REPEATED,
    Copies,
    write_copies,
    write_part,
)
from labeler.shards.plan import hash_of
from labeler.shards.record import TAR, Record, digest_of, record_name
from teachers import ShardError, TransientError

RECORD = re.compile(r"(\d{6,})\.r(\d+)\.json")
HELD = 256
"""How many records of a data set are kept in memory."""
COPIED_AT_ONCE, COPIED_EVERY_S = 256, 600.0
"""A running job copies its records once it has this many new ones, or after this long."""
READERS = 16
"""How many records are read at once: S3 answers many requests as fast as one."""


def revisions(storage: Storage) -> dict[int, list[int]]:
    """The revisions of each unit that have a record, ascending; costs one listing."""
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
    """The record in a file of that name; a ShardError if there is none in it, or one of another
    unit or revision."""
    record = Record.from_bytes(data, f"{storage.url}/{name}")
    if record.name != name:
        raise ShardError(
            f"{storage.url}/{name} is not a commit record (it says that it is {record.name}). Run "
            "`tapdistill verify`."
        )
    return record


def latest(storage: Storage, unit: int) -> Record | None:
    """The record that counts for `unit`, or None if the unit is open. Looks for one revision after
    the other, because a listing would be of all units."""
    revision = 0
    while storage.size(record_name(unit, revision)) is not None:
        revision += 1
    return read_record(storage, unit, revision - 1) if revision else None


def latest_names(storage: Storage) -> list[str]:
    """Names of the records that count, by unit; costs one listing."""
    return _latest_of(storage.names("shards"))


def _latest_of(names: Iterable[str]) -> list[str]:
    return [record_name(unit, numbers[-1]) for unit, numbers in _by_unit(names).items()]


class Records(LazySequence[Record]):
    """The records of a data set that count, by unit. Each is read when it is accessed, and only a
    few are kept in memory.

    `table` has a row for each record, with the columns of `digest_of`: whatever concerns all
    records is computed from it.
    """

    def __init__(
        self,
        storage: Storage,
        table: pd.DataFrame,
        copies: Copies | None = None,
        held: dict[str, Record] | None = None,
    ) -> None:
        self._storage, self._copies = storage, copies
        self.table = table.reset_index(drop=True)
        self._held = {} if held is None else held
        self._lock = threading.Lock()
        self._units: frozenset[int] = frozenset()
        self._change: Callable[[Record], Record] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Record]:
        for first in range(0, len(self), HELD):
            yield from self._read(self.table.iloc[first : first + HELD])

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The records with these indices, in that order."""
        rows = self.table.iloc[list(indices)]
        some = type(self)(self._storage, rows, self._copies, self._held)
        some._units, some._change, some._lock = self._units, self._change, self._lock
        return some

    def _item(self, index: int) -> Record:
        record = self._held.get(str(self.table["name"].iat[index]))
        return next(iter(self.take([index]))) if record is None else self._now(record)

    def changed(self, units: Collection[int], change: Callable[[Record], Record]) -> Records:
        """The same records, with `change` applied to those of some units whenever they are read."""
        found = Records(self._storage, self.table, self._copies)
        found._units, found._change = frozenset(units), change
        indices = found.table.index[found.table["unit"].isin(list(units))].tolist()
        others = found.table.drop(index=indices)
        rows = []
        for index, record in zip(indices, found.take(indices), strict=True):
            rows.append({**found.table.loc[index].to_dict(), **digest_of(record)})
        again = pd.DataFrame(rows, columns=INDEX, index=indices)
        found.table = pd.concat([others, again]).sort_index() if rows else others
        return found

    def fingerprint(self) -> str:
        """A hash of the names and the tags of all these records."""
        named = zip(self.table["name"], self.table["tag"], strict=True)
        return hash_of(f"{name} {tag}" for name, tag in named)

    def are_copied(self) -> bool:
        """Whether records.parquet has these records and no others."""
        copies = self._copies
        if copies is None or copies.files != [COPIES]:
            return False
        return len(copies.index) == len(self) and bool((self.table["file"] >= 0).all())

    def forget_copies(self) -> None:
        """Remove the files in `copies/` from which these records were read, now that
        records.parquet has them; files that were added since then stay."""
        for name in self._copies.files if self._copies else ():
            if name != COPIES:
                self._storage.remove(name)

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: it reads the records from their own files."""
        return {**vars(self), "_copies": None, "_held": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def _read(self, rows: pd.DataFrame) -> Iterator[Record]:
        """The records of a few rows."""
        with self._lock:
            found = {name: self._held[name] for name in rows["name"] if name in self._held}
        missing = rows[~rows["name"].isin(list(found))]
        if self._copies is not None:
            copied = missing[missing["file"] >= 0]
            for name, data in self._copies.records(copied):
                with contextlib.suppress(ShardError):  # what counts is the record's own file
                    found[name] = _parsed(self._storage, name, data)
        names = [name for name in missing["name"] if name not in found]
        if names:
            with ThreadPoolExecutor(READERS) as pool:
                found.update(zip(names, pool.map(self._own, names), strict=True))
        for name in rows["name"]:
            record = found[name]
            self._hold(name, record)
            yield self._now(record)

    def _now(self, record: Record) -> Record:
        return self._change(record) if self._change and record.unit in self._units else record

    def _own(self, name: str) -> Record:
        return _parsed(self._storage, name, self._storage.read(name))

    def _hold(self, name: str, record: Record) -> None:
        with self._lock:
            self._held[name] = record
            while len(self._held) > HELD:
                del self._held[next(iter(self._held))]


class Digests:
    """The table of `Records`, row by row; what many records have in common is held once."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in INDEX}
        self._known: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._columns["name"])

    def add(self, record: Record, tag: str = "", file: int = -1, row: int = -1) -> None:
        """Add a record; `tag` is that of its file, `file` and `row` say where its copy is."""
        values = {"name": record.name, "tag": tag, **digest_of(record), "file": file, "row": row}
        for name, value in values.items():
            if name in REPEATED and isinstance(value, str):
                value = self._known.setdefault(value, value)
            self._columns[name].append(value)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._columns)


def latest_records(storage: Storage) -> Records:
    """The record that counts for each unit that has one, by unit; from the copies where those are
    up to date. Only a few are kept in memory: see `Records`."""
    tags = _tags_of_latest(storage)
    if not tags:
        return Records(storage, pd.DataFrame(columns=INDEX))
    copies = Copies(storage)
    index = _up_to_date(copies.index, tags)
    digested = index["unit"].notna()
    old, table = index[~digested], index[digested]
    held: dict[str, Record] = {}
    digests = Digests()
    for name, record, where in _without_digest(storage, copies, old, index, tags):
        digests.add(record, tags[name], **where)
        if len(held) < HELD:
            held[name] = record
    if len(digests):
        table = pd.concat([table, digests.table()])
    table = _checked(table, storage)
    if not table["unit"].is_monotonic_increasing:
        table = table.sort_values("unit")
    return Records(storage, table, copies, held)


def _tags_of_latest(storage: Storage) -> dict[str, str]:
    """Name -> tag of the record that counts for each unit, in any order."""
    tags = {f"shards/{name}": tag for name, tag, _ in storage.files("shards", RECORD)}
    highest: dict[str, int] = {}
    for name in tags:
        if not name.endswith(".r0.json"):
            unit, revision = _unit_and_revision(name)
            highest[unit] = max(revision, highest.get(unit, 0))
    if not highest:
        return tags
    return {
        name: tag
        for name, tag in tags.items()
        for unit, revision in [_unit_and_revision(name)]
        if revision == highest.get(unit, 0)
    }


def _unit_and_revision(name: str) -> tuple[str, int]:
    """Both as the name of a record says them."""
    unit, _, digits = name.removesuffix(".json").rpartition(".r")
    return unit, int(digits)


def _up_to_date(index: pd.DataFrame, tags: Mapping[str, str]) -> pd.DataFrame:
    """The copies of files that have these tags, one of each."""
    named = zip(index["name"].tolist(), index["tag"].tolist(), strict=True)
    same = np.array([tags.get(name) == tag for name, tag in named], dtype=bool)
    index = index if same.all() else index[same]
    return index if index["name"].is_unique else index.drop_duplicates("name")


def _without_digest(
    storage: Storage,
    copies: Copies,
    old: pd.DataFrame,
    index: pd.DataFrame,
    tags: Mapping[str, str],
) -> Iterator[tuple[str, Record, dict[str, int]]]:
    """(name, record, where its copy is) of each record whose digest is not known yet, because its
    copy has none, or because it has no copy."""
    where = {
        name: {"file": file, "row": row}
        for name, file, row in zip(old["name"], old["file"], old["row"], strict=True)
    }
    read_already = set()
    for name, data in copies.records(old):
        try:
            record = _parsed(storage, name, data)
        except ShardError:  # what counts is the record's own file
            continue
        read_already.add(name)
        yield name, record, where[name]
    missing: Iterator[str] = iter(())
    if len(index) < len(tags) or len(read_already) < len(old):
        lost = set(old["name"]) - read_already
        copied = set(index["name"]) - lost
        missing = iter(sorted(name for name in tags if name not in copied))

    def read(name: str) -> Record:
        return _parsed(storage, name, storage.read(name))

    with ThreadPoolExecutor(READERS) as pool:
        while some := list(islice(missing, HELD)):
            for name, record in zip(some, pool.map(read, some), strict=True):
                yield name, record, {"file": -1, "row": -1}


def _checked(table: pd.DataFrame, storage: Storage) -> pd.DataFrame:
    """The table, with its numbers as int64; a ShardError if a copy says what no genuine record
    says: a data set may come from somebody else."""
    try:
        table = table.astype({name: "int64" for name in COLUMNS if COLUMNS[name] == pa.int64()})
        numbers = zip(table["unit"].tolist(), table["revision"].tolist(), strict=True)
        for name, said in zip(table["name"].tolist(), starmap(record_name, numbers), strict=True):
            if name != said:
                raise ValueError(f"{name} says that it is {said}")
        named = table["tar"].notna()
        tars = zip(table["tar"][named].tolist(), table["name"][named].tolist(), strict=True)
        for tar, name in tars:
            if not TAR.fullmatch(tar) or not tar.startswith(name.removesuffix("json")):
                raise ValueError(f"{name} names {tar!r}")
        for column, kind in (("teachers", dict), ("agreement", dict), ("shapes", dict)):
            for text in table[column].unique():
                if type(json.loads(text)) is not kind:
                    raise ValueError(f"{column} is {text[:80]!r}")
        for text in table["reasons"].unique():
            for what, reason, count in json.loads(text):
                if reason not in REASONS or type(what) is not str or type(count) is not int:
                    raise ValueError(f"reasons are {text[:80]!r}")
    except (ValueError, TypeError, RecursionError) as error:
        raise ShardError(
            f"{storage.url}/{COPIES} is damaged ({error}): remove it, and the folder {FOLDER} "
            "beside it; they are only copies."
        ) from error
    return table


def wrong_copies(storage: Storage, table: pd.DataFrame) -> list[str]:
    """Names of the records of which a copy says something else than the records themselves, whose
    digests `table` has; a ShardError as for `latest_records`."""
    index = _up_to_date(Copies(storage).index, _tags_of_latest(storage))
    copied = _checked(index[index["unit"].notna()], storage).set_index("name")
    own = table.set_index("name")
    both = copied.index[copied.index.isin(own.index)]
    wrong = np.zeros(len(both), dtype=bool)
    for name in COLUMNS:
        said, is_so = (of.loc[both, name].astype("object") for of in (copied, own))
        wrong |= ((said != is_so) & ~(said.isna() & is_so.isna())).to_numpy()
    return both[wrong].tolist()


def digests_of(records: Sequence[Record]) -> pd.DataFrame:
    """The `table` of `Records`, or the same for a list of records."""
    if isinstance(records, Records):
        return records.table
    table = pd.DataFrame([digest_of(record) for record in records], columns=[*COLUMNS])
    return table.astype({name: "int64" for name in COLUMNS if COLUMNS[name] == pa.int64()})


def copy_records(storage: Storage, records: Sequence[Record]) -> None:
    """Write records.parquet: a copy of each record, with the tag of its file."""
    write_copies(storage, (row for _, row in rows_to_copy(storage, records)))


def rows_to_copy(
    storage: Storage, records: Sequence[Record]
) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Each record, and its row for a file of copies."""
    if isinstance(records, Records):
        tags = dict(zip(records.table["name"], records.table["tag"], strict=True))
    else:
        tags = {f"shards/{name}": tag for name, tag in storage.tags("shards").items()}
    for record in records:
        yield record, row_of(record, tags.get(record.name, ""))


def row_of(record: Record, tag: str) -> dict[str, Any]:
    """A row for a file of copies; `tag` is that of the record's own file."""
    return {
        "name": record.name,
        "tag": tag,
        **digest_of(record),
        "record": record.to_bytes(),
    }


class Copying:
    """Copies the records that a running job commits, a few hundred at a time, so that a job that is
    killed can be continued within a minute."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._pending: list[tuple[int, int]] = []
        self._since = time.monotonic()

    def __enter__(self) -> Copying:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:  # a job that ends well writes records.parquet
            self.flush()

    def committed(self, unit: int, revision: int) -> None:
        """Note that a unit has a record of that revision."""
        self._pending.append((unit, revision))
        late = time.monotonic() - self._since > COPIED_EVERY_S
        if len(self._pending) >= COPIED_AT_ONCE or late:
            self.flush()

    def flush(self) -> None:
        """Copy what is not copied yet. If that fails, the next job reads the records themselves."""
        pending, self._pending, self._since = self._pending, [], time.monotonic()
        if not pending:
            return
        with contextlib.suppress(ShardError, TransientError):
            with ThreadPoolExecutor(READERS) as pool:
                rows = list(pool.map(self._row, pending))
            write_part(self._storage, rows)

    def _row(self, which: tuple[int, int]) -> dict[str, Any]:
        name = record_name(*which)
        # taken before the record is read: if that changes in between, the copy does not count
        tag = self._storage.tag(name) or ""
        return row_of(read_record(self._storage, *which), tag)
