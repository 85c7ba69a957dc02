"""Fifteen million clips: what grows with a data set, at its full size, without its videos.

    python -m benchmarks.large                       # 4,000,000 videos, 250,000 units, 16 M clips
    python -m benchmarks.large --units 25000

Made up: a plan, an empty file for every record and every tar, and records.parquet with what is said
of each record; that the job's own code reads. The record that a copy holds is that of one unit,
since none of the steps reads the others. Each step runs in a process of its own, and prints its CPU
time and the most memory that it took, imports included (about 300 MiB of it).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness.records import clip_entry, record_of
from labeler.io import Storage
from labeler.labels import AgreementConfig
from labeler.shards.copies import write_copies
from labeler.shards.manifest import Frozen, freeze
from labeler.shards.plan import create_plan, cut_into_units, hash_of, read_plans
from labeler.shards.record import VideoEntry, digest_of
from labeler.shards.records import latest_records
from labeler.sources import Source
from labeler.sources.table import Sources

VIDEOS_PER_UNIT, CLIPS = 16, 4
TAR_BYTES = 20_000_000
STEPS = ("plan", "files", "resume", "open", "train", "reader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=250_000)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.step:
        measured(args.step, args.folder, args.units)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for step in STEPS:
            own = ["--units", str(args.units), "--step", step, "--folder", folder]
            subprocess.run([sys.executable, "-m", "benchmarks.large", *own], check=True)


def measured(step: str, folder: Path, units: int) -> None:
    before, started = time.process_time(), time.perf_counter()
    said = globals()[f"do_{step}"](folder, units)
    cpu, wall = time.process_time() - before, time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{step:8} {cpu:6.1f} CPU s, {wall:6.1f} s, peak {peak:,.0f} MiB: {said}", flush=True)


def uris_of(unit: int) -> list[str]:
    first = unit * VIDEOS_PER_UNIT
    return [f"s3://bucket/videos/{i // 1000:05d}/{i:08d}.mp4" for i in range(first, first + 16)]


def do_plan(folder: Path, units: int) -> str:
    """Videos as a listing says them, to a plan on disk."""

    def listed() -> Iterator[Source]:
        for unit in range(units):
            for uri in uris_of(unit):
                yield Source(uri, 1_000_000, f"{unit:032x}")

    storage = Storage(str(folder))
    freeze(storage, Frozen(sources=("s3://bucket/videos",)), "0")
    sources, _ = Sources.of(listed()).in_order()
    create_plan(storage, 0, cut_into_units(sources, VIDEOS_PER_UNIT))
    return f"{len(sources):,} videos planned"


def do_files(folder: Path, units: int) -> str:
    """The made-up shards and copies: no figure of the project."""
    shards = folder / "shards"
    shards.mkdir()
    one = record_of(
        0,
        teachers={"cotracker3-offline": {}, "tapir": {}},
        agreement=asdict(AgreementConfig()),
        clips=[
            clip_entry(f"{video:02d}{clip}", uri)
            for video, uri in enumerate(uris_of(0))
            for clip in range(CLIPS)
        ],
        videos=[VideoEntry(uri=uri, sha256="0" * 64, clips=CLIPS) for uri in uris_of(0)],
        planned=VIDEOS_PER_UNIT,
        size_bytes=TAR_BYTES,
        verifier="2",
    )
    digest, data = digest_of(one), one.to_bytes()

    def rows() -> Iterator[dict[str, Any]]:
        for unit in range(units):
            name, tar = f"shards/{unit:06d}.r0.json", f"shards/{unit:06d}.r0.{'0' * 12}.tar"
            for file, size in ((name, 0), (tar, TAR_BYTES)):
                opened = os.open(folder / file, os.O_CREAT | os.O_WRONLY)
                os.ftruncate(opened, size)
                status = os.fstat(opened)
                os.close(opened)
                if file == name:
                    tag = f"{status.st_size}-{status.st_mtime}"
            own = {"unit": unit, "tar": tar, "uris": hash_of(uris_of(unit))}
            yield {"name": name, "tag": tag, **digest, **own, "record": data if not unit else b""}

    write_copies(Storage(str(folder)), rows())
    return f"{2 * units:,} files made up"


def do_resume(folder: Path, units: int) -> str:
    """What a driver does before its first unit, and to say how the data set stands."""
    from labeler.shards.tables import accounts, open_units

    storage = Storage(str(folder))
    plans, records = read_plans(storage), latest_records(storage)
    todo = open_units(plans, records, {"tapir"})
    found = accounts(plans, records)
    return f"{len(records):,} records, {found.labelled:,} clips, {len(todo)} units to do"


def do_open(folder: Path, units: int) -> str:
    """What a notebook does first."""
    from labeler.dataset import open_dataset

    return open_dataset(str(folder)).summary["clips"]


def do_train(folder: Path, units: int) -> str:
    """What a trainer does before it reads a clip."""
    stream = _stream(folder)
    return f"{sum(stream.views.values()):,} clips"


def do_reader(folder: Path, units: int) -> str:
    """What a reader holds: the clips as they come to it, and the order of an epoch."""
    import pickle

    from student.data.config import DataConfig
    from student.data.order import pools_of, slots
    from student.data.reader import open_clips

    config = DataConfig(data=(str(folder),))
    sent = pickle.dumps(open_clips(config.data, (config.height, config.width))[0])
    clips = pickle.loads(sent)
    stream = slots(config, pools_of(config, clips), 0, seed=0)
    return f"{len(sent) / 2**20:,.0f} MiB sent; its first clip is number {next(stream).clip:,}"


def _stream(folder: Path) -> Any:
    from student.data.config import DataConfig
    from student.data.mixture import batches

    return batches(DataConfig(data=(str(folder),), readers=0), seed=0)


if __name__ == "__main__":
    main()
