"""A data set, opened for reading: its clips as a table, and each as a `Sample`, read by offset without scanning its tar.

ds = open_dataset("labels")            # a folder or any fsspec URL
ds.clips                               # pandas: one row per labelled clip
ds[0], ds["<key>"]                     # Sample: mp4, queries, tracks by teacher, labels
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pandas as pd

from labeler import tables
from labeler.manifest import read_manifest
from labeler.plan import read_plans
from labeler.records import ClipEntry, Record, latest_records
from labeler.sample import Sample, from_members
from labeler.storage import Storage
from teachers import ShardError


class Dataset:
    """What the commit records say now; open it again to see what was written since."""

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        self.manifest: dict[str, Any] = read_manifest(self.storage)
        self._plans = read_plans(self.storage)
        self.records = tables.without_superseded(self._plans, latest_records(self.storage))
        self._places = [(record, entry) for record in self.records for entry in record.clips]
        self._by_key = {entry.key: i for i, (_, entry) in reversed(list(enumerate(self._places)))}

    @cached_property
    def clips(self) -> pd.DataFrame:
        """One row per labelled clip: see `labeler.tables.clips_table`."""
        return tables.clips_table(self.records)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per video, clip, or teacher that did not become a label, with its reason."""
        return tables.failures_table(self._plans, self.records)

    @cached_property
    def accounts(self) -> tables.Accounts:
        """What went in, and what became of it."""
        return tables.accounts(self._plans, self.records)

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers that labelled any of it."""
        return sorted({name for record in self.records for name in record.teachers})

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, which: int | str) -> Sample:
        """A sample by number or key, from one ranged read of its tar. IndexError or KeyError if there is none."""
        record, entry = self._places[self._by_key[which] if isinstance(which, str) else which]
        return read_sample(self.storage, record, entry)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        clips = [entry for _, entry in self._places]
        queries, kept = sum(entry.queries for entry in clips), sum(entry.kept for entry in clips)
        return (
            f"Dataset({self.storage.url!r}): {len(self)} clips in {len(self.records)} units, {queries:,} queries of which {kept:,} kept "
            f"({kept / max(queries, 1):.0%}), teachers {', '.join(self.teachers) or 'none'}"
        )


def open_dataset(url: str) -> Dataset:
    """Open a data set that `tapdistill label` wrote, or is still writing.

    Raises:
        ShardError: there is none at `url`, or one of another schema.
    """
    return Dataset(url)


def read_sample(storage: Storage, record: Record, entry: ClipEntry) -> Sample:
    """One sample, from one ranged read."""
    assert record.tar is not None
    start = min(offset for offset, _ in entry.offsets.values())
    end = max(offset + size for offset, size in entry.offsets.values())
    data = storage.read_range(record.tar, start, end - start)
    if len(data) != end - start:
        raise ShardError(f"{storage.url}/{record.tar} ends before its record says. Run `tapdistill verify {storage.url}`.")
    parts = {suffix: data[offset - start : offset - start + size] for suffix, (offset, size) in entry.offsets.items()}
    return from_members(entry.key, parts)
