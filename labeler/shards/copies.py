"""Copies of commit records in a few files, so that a data set of any size is opened with few
requests and little memory. What counts is the record itself: a copy is used only as long as its
record's own file is the one that was copied, and a damaged file of copies is ignored.

    records.parquet          the records that counted when a job last ended
    copies/<hash>.parquet    those that a running job has committed since, a few hundred in each;
                             they remain if the job is killed

A row is a record: the name and tag of its file, its digest (`COLUMNS`), and the record itself. All
but the last are kept in memory, some hundred bytes for each unit; records are read from the file in
parts, when they are needed.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labeler.io import Storage, transient_errors
from labeler.io.scratch import scratch_folder
from labeler.shards.plan import as_frame
from teachers import ShardError

COPIES, FOLDER = "records.parquet", "copies"
IN_MEMORY_BYTES = 8 << 20
"""A file of copies up to this size is read whole, with one request."""
ROW_GROUP = 256
"""How many records are read together."""

COLUMNS = {
    "unit": pa.int64(),
    "revision": pa.int64(),
    "plan": pa.int64(),
    "planned": pa.int64(),
    "tar": pa.string(),
    "size_bytes": pa.int64(),
    "teachers": pa.string(),
    "agreement": pa.string(),
    "verifier": pa.string(),
    "videos": pa.int64(),
    "found": pa.int64(),
    "clips": pa.int64(),
    "queries": pa.int64(),
    "kept": pa.int64(),
    "frames": pa.int64(),
    "support": pa.float64(),
    "trust": pa.float64(),
    "judged": pa.int64(),
    "shapes": pa.string(),
    "reasons": pa.string(),
    "uris": pa.string(),
}
"""The digest of a record: `labeler.shards.record.digest_of`."""
REPEATED = ("teachers", "agreement", "verifier", "shapes", "reasons")
"""Columns in which most records have the same value."""
SCHEMA = pa.schema(
    [("name", pa.string()), ("tag", pa.string()), *COLUMNS.items(), ("record", pa.binary())]
)
AS_WRITTEN: dict[str, Any] = {
    "compression": {name: "zstd" if name == "record" else "none" for name in SCHEMA.names},
    "use_dictionary": list(REPEATED),
    "write_statistics": False,
}
"""How parquet writes the copies: the index has so many small pages that unpacking them would take
longer than reading them."""
INDEX = ["name", "tag", *COLUMNS, "file", "row"]


class Copies:
    """The copies in a data set, of records that count and of others.

    `index` has a row for each copy: name, tag, `COLUMNS`, and where it is (file, row).
    """

    def __init__(self, storage: Storage) -> None:
        self._storage, self._lock = storage, threading.Lock()
        self.files: list[str] = []
        """Paths in the data set."""
        self._opened: list[pq.ParquetFile] = []
        self._begins: list[np.ndarray] = []
        """For each file, the first row of each of its row groups, and the number of its rows."""
        self._lost: set[int] = set()
        """Files that can no longer be read."""
        tables = []
        parts = sorted(file.name for file in storage.files(FOLDER))
        for name in (COPIES, *(f"{FOLDER}/{part}" for part in parts)):
            if (table := self._open(name)) is not None:
                tables.append(table)
        self.index = pd.concat(tables, ignore_index=True) if tables else _nothing()

    def _open(self, name: str) -> pd.DataFrame | None:
        """The index of one file; None if it is missing or damaged."""
        try:
            size = self._storage.size(name)
            if size is None:
                return None
            file = pq.ParquetFile(
                io.BytesIO(self._storage.read(name))
                if size <= IN_MEMORY_BYTES
                else self._storage.open(name)
            )
            index = _index_of(file)
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError, ShardError):
            return None
        index["file"], index["row"] = len(self._opened), range(len(index))
        self.files.append(name)
        self._opened.append(file)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._begins.append(np.cumsum([0, *counts]))
        return index

    def records(self, rows: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of the records in some rows of the index, read a few at a time; without
        those of a file that another job has replaced since, or that is damaged."""
        for number, wanted in rows.groupby("file", sort=False):
            which = int(str(number))
            if which in self._lost:
                continue
            try:
                yield from self._of_file(which, wanted["row"].to_numpy(dtype=np.int64))
            except (OSError, pa.ArrowException):  # S3 reads no part of a file that was replaced
                self._lost.add(which)

    def _of_file(
        self,
        which: int,
        rows: np.ndarray,  # int64 [N]
    ) -> Iterator[tuple[str, bytes]]:
        file, begins = self._opened[which], self._begins[which]
        numbers = np.sort(rows)
        groups = np.searchsorted(begins, numbers, side="right") - 1
        for group in np.unique(groups).tolist():
            here = numbers[groups == group] - begins[group]
            with self._lock:  # only one thread can read from a file
                table = file.read_row_group(group, ["name", "record"]).take(here)
            yield from zip(table["name"].to_pylist(), table["record"].to_pylist(), strict=True)


def _index_of(file: pq.ParquetFile) -> pd.DataFrame:
    """The columns of a file of copies, without the records. In a file from before there were
    digests, only names and tags have values."""
    there = file.schema_arrow
    named = ["name", "tag"]
    if there.field("record").type != pa.binary():
        raise ValueError("the records are not bytes")
    whole = all(name in there.names and there.field(name).type == COLUMNS[name] for name in COLUMNS)
    table = file.read([*named, *COLUMNS] if whole else named)
    for name in named:
        if not pa.types.is_string(table[name].type) and not pa.types.is_large_string(
            table[name].type
        ):
            raise TypeError(f"{name} is not text")
    found = _as_frame(table)
    return found if whole else found.reindex(columns=[*named, *COLUMNS])


def _as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas, which holds values that are repeated only once."""
    for name in REPEATED:
        if name in table.column_names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, table[name].dictionary_encode())
    return as_frame(table)


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="object") for name in INDEX})


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows that have every column, as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)


class CopiesWriter:
    """Writes a file of copies, from rows with every column of `SCHEMA`, a few at a time."""

    def __init__(self, file: Path) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, **AS_WRITTEN)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; those that are written together are read together."""
        for first in range(0, len(rows), ROW_GROUP):
            self._writer.write_table(table_of(rows[first : first + ROW_GROUP]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()


def write_copies(storage: Storage, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write records.parquet from rows with every column of `SCHEMA`, a few of which are held at a
    time."""
    stream = iter(rows)
    with transient_errors(f"write {storage.url}/{COPIES}"), scratch_folder() as folder:
        with CopiesWriter(folder / COPIES) as writer:
            while some := list(islice(stream, ROW_GROUP)):
                writer.write(some)
        storage.publish(folder / COPIES, COPIES)


def write_part(storage: Storage, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one file into `copies/`, under a name that depends on its content."""
    buffer = io.BytesIO()
    pq.write_table(table_of(rows), buffer, row_group_size=ROW_GROUP, **AS_WRITTEN)
    data = buffer.getvalue()
    storage.create(f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:12]}.parquet", data)
