"""How long `tapdistill inspect` takes for the report of many clips, and how large the page is.

    python -m benchmarks.inspect_report LABELS [--clips 500] [--out FOLDER] [--profile]

The clips of the labelled data set LABELS are listed again and again, under new keys, by records of
one data set in a scratch folder: they are read from the tars, decoded, and drawn as often.
--profile prints the functions that take the most time.
"""

from __future__ import annotations

import argparse
import cProfile
import platform
import pstats
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards.manifest import NAME
from labeler.shards.plan import create_plan, cut_into_units
from labeler.shards.record import ClipEntry, Record
from labeler.sources.listing import Source
from pipelines import cli


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        multiply(asked.labels, Path(scratch, "labels"), asked.clips)
        out = asked.out or Path(scratch, "report")
        profile = cProfile.Profile()
        started = time.perf_counter()
        if asked.profile:
            profile.enable()
        status = cli.run(
            [
                "inspect",
                str(Path(scratch, "labels")),
                "--clips",
                str(asked.clips),
                "--out",
                str(out),
            ]
        )
        profile.disable()
        took = time.perf_counter() - started
        page = (out / "index.html").stat().st_size / 1e6
        beside = sum(file.stat().st_size for file in out.glob("index-clips/*")) / 1e6
        print(
            f"{asked.clips:,} clips in {took:.1f} s: {took / asked.clips * 1e3:.0f} ms a clip; "
            f"page {page:.1f} MB, players beside it {beside:.1f} MB; {platform.machine()}, Python "
            f"{platform.python_version()}"
        )
        if asked.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    return status


def multiply(labels: Path, out: Path, clips: int) -> None:
    """A data set at `out` of `clips` clips: those of `labels`, listed so often; its tars are
    links."""
    old, new = open_dataset(str(labels)), Storage(str(out))
    new.create(NAME, old.storage.read(NAME))
    places = [(record, entry) for record in old.records for entry in record.clips]
    (out / "shards").mkdir()
    for tar in {record.tar for record, _ in places if record.tar}:
        (out / tar).symlink_to((labels / tar).resolve())
    uris = [f"{entry.uri}?{number}" for number, (_, entry) in enumerate(many(places, clips))]
    create_plan(new, 0, cut_into_units([Source(uri, 1, "") for uri in uris], 1))
    for number, ((record, entry), uri) in enumerate(zip(many(places, clips), uris, strict=True)):
        video = replace(record.videos[0], uri=uri, clips=1)
        clip = replace(entry, uri=uri, key=f"{number:016x}-f000000-s1")
        copy = replace(
            record,
            unit=number,
            revision=0,
            plan=0,
            planned=1,
            videos=[video],
            clips=[clip],
            rows=[],
        )
        new.create(copy.name, copy.to_bytes())


def many(places: list[tuple[Record, ClipEntry]], count: int) -> list[tuple[Record, ClipEntry]]:
    return [places[number % len(places)] for number in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
