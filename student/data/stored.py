"""Stored clips: where they lie, by their numbers. Of fifteen million, each is looked up when it is
asked for: what is held of a shard is a row of the table of its record."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pandas as pd

from labeler.labels.agreement import AgreementConfig
from labeler.shards.record import ClipEntry, Record
from labeler.shards.records import Records
from student.data.augment import LARGEST_SCALE, scale_to_fill
from teachers import ShardError

LATEST_SHARDS = 64
"""Shards whose clips are held; a stream takes from `shards_at_once` at a time."""


@dataclass(frozen=True)
class Shard:
    """What the clips of a tar have in common."""

    url: str
    """The data set."""
    tar: str
    teachers: Mapping[str, dict[str, Any]]
    """`TeacherInfo` by name."""
    agreement: AgreementConfig
    """What its stored labels were made with."""
    verifier: str | None
    """Version of the verifier that judged its clips; None where none did."""


@dataclass(frozen=True)
class StoredClip:
    """Where a clip lies, and which teachers could track it."""

    shard: Shard
    entry: ClipEntry
    teachers: tuple[str, ...]
    """Sorted."""


class StoredClips(Sequence[StoredClip]):
    """Clips of data sets that a crop can be cut from, by data set and unit. The record of a shard
    is read when one of its clips is asked for, and few are held."""

    def __init__(
        self,
        sets: Sequence[tuple[str, Records]],  # URL of each data set, its records
        shards: np.ndarray,  # int64 [S, 2]    of each shard: its data set, and place in the records
        counts: np.ndarray,  # int64 [S]       clips of each that fit the crop
        crop_hw: tuple[int, int],
    ) -> None:
        self.sets, self.shards, self.crop_hw = sets, shards, crop_hw
        self.ends = np.cumsum(counts)
        self._latest: OrderedDict[int, list[StoredClip]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @overload
    def __getitem__(self, which: int) -> StoredClip: ...

    @overload
    def __getitem__(self, which: slice) -> list[StoredClip]: ...

    def __getitem__(self, which: int | slice) -> StoredClip | list[StoredClip]:
        if isinstance(which, slice):
            return [self[i] for i in range(len(self))[which]]
        number = range(len(self))[which]
        shard = int(np.searchsorted(self.ends, number, side="right"))
        return self._clips_of(shard)[number - int(self.ends[shard])]

    def ranges(self) -> list[range]:
        """Numbers of the clips of each shard."""
        return [range(begin, end) for begin, end in pairwise([0, *self.ends.tolist()])]

    def tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """(URL, rows of the records whose clips can be used) of each data set."""
        for number, (url, records) in enumerate(self.sets):
            places = self.shards[self.shards[:, 0] == number, 1]
            yield url, records.table.iloc[places]

    def shapes(self) -> Counter[tuple[int, int, int, int]]:
        """(height, width, frames, stride) -> clips of the shards that can be used; of clips that
        are too small too."""
        found = Counter[tuple[int, int, int, int]]()
        for _, table in self.tables():
            for text, times in table["shapes"].value_counts().items():
                for of, count in json.loads(str(text)).items():
                    height, width, frames, stride = map(int, of.split(","))
                    found[height, width, frames, stride] += count * int(times)
        return found

    def _clips_of(self, shard: int) -> list[StoredClip]:
        found = self._latest.get(shard)
        if found is None:
            of, place = self.shards[shard].tolist()
            url, records = self.sets[of]
            found = _fitting(url, records[place], self.crop_hw)
            begin = int(self.ends[shard - 1]) if shard else 0
            if len(found) != self.ends[shard] - begin:
                raise ShardError(
                    f"{url}: {records.table['name'].iat[place]} and its copy differ: remove "
                    f"{url}/records.parquet."
                )
            self._latest[shard] = found
            while len(self._latest) > LATEST_SHARDS:
                self._latest.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_latest": OrderedDict()}


def fits(size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> bool:
    """Whether a crop can be cut from a clip of that size, enlarged where needed."""
    return scale_to_fill(size_hw, crop_hw) <= LARGEST_SCALE


def _fitting(url: str, record: Record, crop_hw: tuple[int, int]) -> list[StoredClip]:
    """The clips of a unit that a crop can be cut from."""
    failed = {(row.key, row.stage) for row in record.rows if row.what == "teacher"}
    shard = Shard(
        url,
        record.tar_name,
        record.teachers,
        AgreementConfig(**record.agreement),
        record.verifier,
    )
    return [
        StoredClip(
            shard,
            entry,
            tuple(n for n in sorted(record.teachers) if (entry.key, f"teacher:{n}") not in failed),
        )
        for entry in record.clips
        if fits((entry.height, entry.width), crop_hw)
    ]
