"""A data set, opened for reading: its clips as a table, and each as a `Clip`, read by offset
without scanning its tar.

    ds = open_dataset("labels")            # a folder or any fsspec URL, even while it is still
                                           being written
    ds                                     # printed: a summary
    ds.clips, ds.failures                  # pandas: a row per labelled clip; a row with a reason
                                           per video, clip, or teacher without a label
    ds[0], ds["<key>"], ds[:3]             # Clip: frames, queries, tracks by teacher, labels;
                                           show(), plot()
    ds.sample("hardest", 4)                # clips worth a look
    ds.distances(), ds.kept_by("motion")   # how the teachers differ, from the raw tracks of a
                                           sample of clips
    ds.what_if(tau_px=(1, 2, 4))           # what other thresholds would keep
    ds.what_if(min_right=(0.5, 0.7, 0.9))  # the same for thresholds of the verifier
    ds.by_policy()                         # what each label policy would take

Tables and summary come from the commit records alone. What is measured on a sample of clips says
how many they were.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, get_args, overload

import numpy as np
import pandas as pd

from labeler.dataset.clip import Clip
from labeler.dataset.summary import as_html, as_text, summary_rows
from labeler.io import Storage
from labeler.labels import AgreementConfig, Sample, TrustConfig, disagreement, trying
from labeler.labels.policies import Policy, without_truth
from labeler.shards import tables
from labeler.shards.manifest import read_manifest
from labeler.shards.members import from_members, labels_from_npz
from labeler.shards.plan import WHAT_BECAME, number_of_units, read_plans
from labeler.shards.record import ClipEntry, Record
from labeler.shards.records import Records, latest_records
from teachers import ConfigError, ShardError

Which = Literal["hardest", "random", "most disagreement"]
CLIPS = 64
"""How many clips are measured by default."""
LOOKED_AT = 256
"""How many clips' labels are read to find those with the most disagreement."""
READERS = 8
"""How many clips are read at once: S3 answers many requests as fast as one."""


class Dataset:
    """What the commit records say now; open it again to see what was written since."""

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        self.manifest: dict[str, Any] = read_manifest(self.storage)
        self._plans = read_plans(self.storage, WHAT_BECAME)
        self.records = tables.without_superseded(self._plans, latest_records(self.storage))
        self._entries: Sequence[tuple[Record, ClipEntry]] = _Entries(self.records)

    @cached_property
    def clips(self) -> pd.DataFrame:
        """One row per labelled clip: see `labeler.shards.tables.clips_table`. Where its bytes lie
        in the tar is in clips.parquet, as `offsets`."""
        return tables.clips_table(self.records).drop(columns="offsets")

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per video, clip, or teacher that did not become a label, with its reason."""
        return tables.failures_table(self._plans, self.records)

    @cached_property
    def accounts(self) -> tables.Accounts:
        """What went in, and what became of it."""
        return tables.accounts(self._plans, self.records)

    @cached_property
    def teacher_infos(self) -> dict[str, dict[str, Any]]:
        """`TeacherInfo` of each teacher that labelled any of it, as JSON, by name; if units differ,
        that of the last one."""
        texts = self.records.table["teachers"].drop_duplicates(keep="last")
        found = {name: info for text in texts for name, info in json.loads(str(text)).items()}
        return dict(sorted(found.items()))

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers that labelled any of it."""
        return list(self.teacher_infos)

    @cached_property
    def verifiers(self) -> dict[str, int]:
        """How many clips each version of the verifier judged."""
        table = self.records.table[["verifier", "clips"]].astype({"verifier": "object"})
        return {
            str(version): int(clips)
            for version, clips in table.groupby("verifier")["clips"].sum().items()
        }

    @cached_property
    def agreements(self) -> list[dict[str, Any]]:
        """The agreement settings that any unit was labelled with, each once."""
        return [json.loads(str(text)) for text in self.records.table["agreement"].unique()]

    @property
    def unjudged(self) -> int:
        """Clips that no verifier judged: those of schema 1, until `tapdistill relabel`."""
        return len(self) - sum(self.verifiers.values())

    @property
    def tars(self) -> list[str]:
        """Full paths of the current tars with clips, for other readers of WebDataset shards; a glob
        would find old revisions too.

        Where `label --retry` did a video again, the tar of its first unit still holds the samples
        that no longer count: `clips` has the tar and key of each that does.
        """
        table = self.records.table
        tars = table.loc[table["clips"] > 0, "tar"].dropna()
        return [f"{self.storage.url}/{tar}" for tar in tars]

    @property
    def summary(self) -> dict[str, str]:
        """What is printed, by name."""
        return summary_rows(
            self.records.table, self.accounts, number_of_units(self._plans), self.teacher_infos
        )

    def sample(self, which: Which, n: int = 4, seed: int = 0) -> list[Clip]:
        """`n` clips worth a look, or all if there are fewer; arguments as in `chosen`."""
        return list(self.read(self.chosen(which, n, seed)))

    def chosen(self, which: Which, n: int, seed: int = 0) -> list[int]:
        """Numbers of `n` clips worth a look, or of all if there are fewer.

        Args:
            which: "random"; "hardest": those of whose queries the smallest share is kept, by the
                records of all clips; "most disagreement": those in which teachers disagree on the
                largest share of points and frames (`labeler.labels.disagreement.parted`), by the
                labels of all clips or, in a large data set, of 256 that are drawn.
            seed: of the draw.
        """
        if which not in get_args(Which):
            raise ConfigError(
                f"no sample {which!r}: there are {', '.join(map(repr, get_args(Which)))}."
            )
        if n < 1:
            raise ConfigError(f"n = {n}: must be at least 1.")
        if which == "random":
            return self.drawn(n, seed)
        if which == "hardest":
            by_share = heapq.nsmallest(
                n,
                (
                    (entry.kept / max(entry.queries, 1), entry.mean_support or 0, i)
                    for i, (_, entry) in enumerate(self._entries)
                ),
            )
            return [i for _, _, i in by_share]
        pool = self.drawn(max(LOOKED_AT, n), seed)
        with ThreadPoolExecutor(READERS) as readers:
            amount = dict(zip(pool, readers.map(self._disagreement, pool), strict=True))
        return sorted(pool, key=lambda i: (-amount[i], i))[:n]

    def distances(self, clips: int = CLIPS, seed: int = 0) -> pd.DataFrame:
        """Median distance of each two teachers, px of the 256 raster, where both see the point;
        over at most `clips` drawn clips."""
        drawn = self.drawn(clips, seed)
        table = disagreement.teacher_distances(self.read(drawn))
        return table.rename_axis(columns=f"median px, {self._share(drawn)}")

    def kept_by(
        self, what: Literal["sampler", "motion"], clips: int = CLIPS, seed: int = 0
    ) -> pd.DataFrame:
        """The share of queries that is kept, by sampler or by how far they move; over at most
        `clips` drawn clips."""
        measures = {"sampler": disagreement.kept_by_sampler, "motion": disagreement.kept_by_motion}
        if what not in measures:
            raise ConfigError(f"kept by {what!r}: there are {', '.join(map(repr, measures))}.")
        drawn = self.drawn(clips, seed)
        return measures[what](self.read(drawn)).rename_axis(
            columns=f"by {what}, {self._share(drawn)}"
        )

    def what_if(
        self,
        tau_px: float | Sequence[float] = (1.0, 2.0, 4.0),
        min_support: float | Sequence[float] = (0.5, 0.6, 0.8),
        clips: int = CLIPS,
        seed: int = 0,
        *,
        min_right: float | Sequence[float] | None = None,
        min_hidden: float | Sequence[float] | None = None,
    ) -> pd.DataFrame:
        """What other thresholds would keep, from the raw tracks of at most `clips` drawn clips;
        other settings as the latest unit's.

        With `min_right`, `min_hidden`, or both they are thresholds of the verifier (one that is not
        given is that of `TrustConfig`), and `tau_px` and `min_support` are ignored. See
        `labeler.labels.disagreement.what_if` and `labeler.labels.trying.what_if_trusted` for the
        columns.

        Raises:
            ConfigError: thresholds of the verifier are given, but no verifier judged the clips.
        """
        drawn = self.drawn(clips, seed)
        if min_right is not None or min_hidden is not None:
            trust = TrustConfig()
            rights, hiddens = (
                np.atleast_1d(default if value is None else value).tolist()
                for value, default in (
                    (min_right, trust.min_right),
                    (min_hidden, trust.min_hidden),
                )
            )
            table = trying.what_if_trusted(
                self.read(drawn), rights, hiddens, self._latest_agreement
            )
        else:
            taus, supports = (np.atleast_1d(value).tolist() for value in (tau_px, min_support))
            table = disagreement.what_if(self.read(drawn), taus, supports, self._latest_agreement)
        table.insert(2, "clips", len(drawn))
        return table.rename_axis(columns=self._share(drawn))

    def by_policy(
        self,
        *policies: Policy,
        trust: TrustConfig | None = None,
        clips: int = CLIPS,
        seed: int = 0,
    ) -> pd.DataFrame:
        """What label policies would take, over at most `clips` drawn clips; without names, all
        policies that need no true tracks, including those of installed packages.

        See `labeler.labels.trying.by_policy` for the columns.
        """
        drawn = self.drawn(clips, seed)
        table = trying.by_policy(
            self.read(drawn),
            policies or without_truth(),
            self._latest_agreement,
            trust or TrustConfig(),
            seed,
        )
        return table.rename_axis(columns=self._share(drawn))

    @property
    def _latest_agreement(self) -> AgreementConfig:
        """Of the latest unit."""
        return AgreementConfig(**self.records[-1].agreement) if self.records else AgreementConfig()

    @cached_property
    def _by_key(self) -> dict[str, int]:
        """Key -> number of a clip; the first of several."""
        found: dict[str, int] = {}
        for i, (_, entry) in enumerate(self._entries):
            found.setdefault(entry.key, i)
        return found

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, which: int | str) -> Clip: ...

    @overload
    def __getitem__(self, which: slice) -> list[Clip]: ...

    def __getitem__(self, which: int | str | slice) -> Clip | list[Clip]:
        """A clip by number or key, from one ranged read of its tar; a list of clips by slice.
        IndexError or KeyError if there is none."""
        if isinstance(which, slice):
            return list(self.read(range(len(self))[which]))
        try:
            record, entry = self._entries[self._by_key[which] if isinstance(which, str) else which]
        except (IndexError, KeyError) as error:
            raise type(error)(f"no clip {which!r}: {self.storage.url} has {len(self):,}.") from None
        return Clip.of(read_sample(self.storage, record, entry))

    def __iter__(self) -> Iterator[Clip]:
        return (self[i] for i in range(len(self)))

    def drawn(self, most: int, seed: int) -> list[int]:
        """Numbers of at most `most` clips, drawn by the seed; in the order of the data set."""
        if most < 1:
            raise ConfigError(f"clips = {most}: must be at least 1.")
        return sorted(random.Random(seed).sample(range(len(self)), min(most, len(self))))

    def read(self, numbers: Sequence[int]) -> Iterator[Clip]:
        """The clips, in that order; a few more are read while one is looked at."""
        ahead: deque[Future[Clip]] = deque()
        with ThreadPoolExecutor(READERS) as readers:
            for number in numbers:
                ahead.append(readers.submit(self.__getitem__, number))
                if len(ahead) > READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def __repr__(self) -> str:
        return as_text(f"Dataset {self.storage.url}", self.summary)

    def _repr_html_(self) -> str:
        return as_html(f"Dataset {self.storage.url}", self.summary)

    def _share(self, drawn: Sequence[int]) -> str:
        """How many clips were looked at."""
        return f"{len(drawn):,} of {len(self):,} clips"

    def _disagreement(self, number: int) -> float:
        """Of one clip, from its labels alone."""
        record, entry = self._entries[number]
        data = self.storage.read_range(record.tar_name, *entry.offsets["labels.npz"])
        return disagreement.disagreement(labels_from_npz(data, f"{entry.key}.labels.npz"))


class _Entries(Sequence[tuple[Record, ClipEntry]]):
    """Every clip with its record, in order; a record is read when one of its clips is accessed."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._ends = np.cumsum(records.table["clips"].to_numpy(dtype=np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[tuple[Record, ClipEntry]]:
        return ((record, entry) for record in self._records for entry in record.clips)

    @overload
    def __getitem__(self, which: int) -> tuple[Record, ClipEntry]: ...

    @overload
    def __getitem__(self, which: slice) -> list[tuple[Record, ClipEntry]]: ...

    def __getitem__(
        self, which: int | slice
    ) -> tuple[Record, ClipEntry] | list[tuple[Record, ClipEntry]]:
        if isinstance(which, slice):
            return [self[i] for i in range(len(self))[which]]
        number = range(len(self))[which]
        index = int(np.searchsorted(self._ends, number, side="right"))
        record = self._records[index]
        return record, record.clips[number - int(self._ends[index])]


def open_dataset(url: str) -> Dataset:
    """Open a data set that `tapdistill label` wrote, or is still writing.

    Raises:
        ShardError: there is none at `url`, or one of another schema.
    """
    return Dataset(url)


def read_sample(storage: Storage, record: Record, entry: ClipEntry) -> Sample:
    """One sample, from one ranged read."""
    start = min(offset for offset, _ in entry.offsets.values())
    end = max(offset + size for offset, size in entry.offsets.values())
    data = storage.read_range(record.tar_name, start, end - start)
    if len(data) != end - start:
        raise ShardError(
            f"{storage.url}/{record.tar} ends before its record says. Run `tapdistill verify "
            f"{storage.url}`."
        )
    parts = {
        suffix: data[offset - start : offset - start + size]
        for suffix, (offset, size) in entry.offsets.items()
    }
    return from_members(entry.key, parts)
