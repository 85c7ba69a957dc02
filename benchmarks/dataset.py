"""How long it takes to open a data set of 10,000 clips and print its summary, from its records
alone.

    python -m benchmarks.dataset

625 commit records of 16 clips are written by hand, without tars: opening needs none. Measured with
and without records.parquet, the file of their copies that a finished job leaves; while a job runs
there are more records than copies. The goal is below 2 s.
"""

from __future__ import annotations

import platform
import tempfile
import time
from importlib.metadata import version

from benchmarks.harness.records import clip_entry, record_of
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.labels.agreement import AgreementConfig
from labeler.shards.manifest import Frozen, freeze
from labeler.shards.plan import create_plan, cut_into_units
from labeler.shards.record import ClipEntry, VideoEntry
from labeler.shards.records import copy_records, latest_records
from labeler.sources.listing import Source

UNITS, CLIPS = 625, 16
GOAL_S = 2.0
SUFFIXES = (
    "bootstapir.npz",
    "cotracker3-offline.npz",
    "cotracker3-online.npz",
    "json",
    "labels.npz",
    "mp4",
    "queries.npz",
    "tapir.npz",
)


def main() -> None:
    print(
        f"{platform.machine()}, Python {platform.python_version()}, pandas {version('pandas')}, "
        f"pyarrow {version('pyarrow')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        write_records(storage)
        for what in ("each record's own file", "records.parquet"):
            started = time.perf_counter()
            dataset = open_dataset(folder)
            opened = time.perf_counter()
            text = repr(dataset)
            printed = time.perf_counter()
            clips = len(dataset.clips)
            tabled = time.perf_counter()
            print(
                f"{what:<24} open {opened - started:.2f} s, summary {printed - opened:.2f} s, "
                f"together {printed - started:.2f} s (goal {GOAL_S:g}); `clips`, {clips:,} rows: "
                f"{tabled - printed:.2f} s"
            )
            copy_records(storage, latest_records(storage))
        print(text)


def write_records(storage: Storage) -> None:
    """A data set of `UNITS` units that is done: manifest, plan, records."""
    freeze(storage, Frozen(sources=("videos",), videos_per_unit=CLIPS), "benchmark")
    sources = [
        Source(f"videos/{number:05d}.mp4", 1_000_000, str(number))
        for number in range(UNITS * CLIPS)
    ]
    create_plan(storage, 0, cut_into_units(sources, CLIPS))
    info = {
        "architecture": "network",
        "licence": "Apache-2.0",
        "mode": "label",
        "visible_rule": "v > 0.5",
        "settings": {},
    }
    teachers = {
        suffix.removesuffix(".npz"): info
        for suffix in SUFFIXES
        if suffix not in ("json", "labels.npz", "mp4", "queries.npz")
    }
    for unit in range(UNITS):
        uris = [source.uri for source in sources[unit * CLIPS : (unit + 1) * CLIPS]]
        record = record_of(
            unit,
            size_bytes=48_000_000,
            teachers=teachers,
            agreement=vars(AgreementConfig()),
            planned=CLIPS,
            videos=[VideoEntry(uri=uri, sha256="0" * 64, clips=1) for uri in uris],
            clips=[entry(uri, unit * CLIPS + number) for number, uri in enumerate(uris)],
        )
        storage.create(record.name, record.to_bytes())


def entry(uri: str, number: int) -> ClipEntry:
    offsets = {suffix: (512 * i, 400_000) for i, suffix in enumerate(SUFFIXES)}
    key = f"{number:016x}-f000000-s1"
    return clip_entry(key, uri, kept=700 + number % 200, offsets=offsets)


if __name__ == "__main__":
    main()
