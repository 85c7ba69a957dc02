"""Past this machine, by simulation: a job of 100,000 videos on S3 with 64 GPUs.

    python -m benchmarks.scale

Measured with the job's own code: listing and planning 100,000 objects, resuming with the records of
all their units, and the driver's work on every event of the job. Simulated: the bucket (a local
server that makes up the listing and the records, without a network's delay), and the workers (their
events are played to the driver, as many as 64 GPUs would send). Counted: the requests of the
driver, and those of a worker for a unit, in a real small job through a counting proxy.
"""

from __future__ import annotations

import argparse
import bisect
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from benchmarks.harness.jobs import requests_of_a_unit
from benchmarks.harness.records import clip_entry, record_of
from labeler.io import s3
from labeler.io.storage import Storage
from labeler.shards.plan import Unit, cut_into_units, units
from labeler.shards.record import Record, VideoEntry, record_name
from labeler.shards.records import copy_records, latest_records
from labeler.sources.listing import list_sources
from labeler.unit import ClipDone, ClipStarted, Event, UnitDone, VideoDone
from pipelines.jobs.progress import JobProgress

VIDEOS, VIDEOS_PER_UNIT, CLIPS = 100_000, 16, 4
GPUS, CLIPS_PER_GPU_S = 64, 0.5
"""A guess for the pace of several learnt teachers on one GPU; it sets how long the job takes, and
nothing else here."""
PAGE = 1000
"""Objects in an answer of S3 to a listing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=int, default=VIDEOS)
    videos = parser.parse_args().videos
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    port = multiprocessing.get_context("spawn").Value("i", 0)
    requests = multiprocessing.get_context("spawn").Value("i", 0)
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(videos, port, requests), daemon=True
    )
    server.start()
    while not port.value:
        time.sleep(0.1)
    s3.use(endpoint=f"http://127.0.0.1:{port.value}")
    try:
        planned = planning(videos, requests)
        resuming(requests)
    finally:
        server.kill()
    driving(planned)
    each, rest = requests_of_a_unit()
    print(f"requests: a unit costs {each} (videos on local disk); the rest of a job {rest:.0f}")


def planning(videos: int, requests) -> list[Unit]:
    started, before = time.perf_counter(), requests.value
    sources = list_sources(["s3://bucket/videos"])
    listed = time.perf_counter() - started
    table = cut_into_units(sources, VIDEOS_PER_UNIT)
    planned = units([table])
    seconds = time.perf_counter() - started
    print(
        f"planning: {len(sources):,} videos listed in {listed:.1f} s with "
        f"{requests.value - before} requests, {len(planned):,} units planned in {seconds:.1f} s in "
        "all",
        flush=True,
    )
    assert len(sources) == videos
    return planned


def timed_records(storage: Storage, requests, how: str) -> list[Record]:
    started, before = time.perf_counter(), requests.value
    records = latest_records(storage)
    print(
        f"resuming, {how}: {len(records):,} in {time.perf_counter() - started:.1f} s, "
        f"{requests.value - before} requests",
        flush=True,
    )
    return records


def resuming(requests) -> None:
    storage = Storage("s3://bucket/labels")
    records = timed_records(storage, requests, "records one by one")
    copy_records(storage, records)
    again = timed_records(storage, requests, "from records.parquet")
    assert [record.name for record in again] == [record.name for record in records]


def driving(planned: list[Unit]) -> None:
    """The driver's own work on the events of the whole job."""
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    count = 0
    with JobProgress(videos=sum(len(unit.videos) for unit in planned)) as progress:
        for event in events(planned):
            progress.count(event)
            count += 1
    cpu = time.process_time() - cpu
    job_s = len(planned) * VIDEOS_PER_UNIT * CLIPS / (GPUS * CLIPS_PER_GPU_S)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"driving: {count:,} events cost {cpu:.0f} CPU s ({1e6 * cpu / count:.0f} us each), of a "
        f"job of {job_s / 3600:.1f} h: {cpu / job_s:.1%} of a core, without Ray's part; peak "
        f"{peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} MiB by the events",
        flush=True,
    )


def events(planned: list[Unit]) -> Iterator[Event]:
    """What the workers would say."""
    seconds = {"waiting for frames": 1.0, "teachers": 8.0, "agreement and writing": 0.2}
    for unit in planned:
        for video in unit.videos:
            for clip in range(CLIPS):
                yield ClipStarted(unit.number, video.uri, f"{unit.number}-{clip}")
                yield ClipDone(unit.number, f"{unit.number}-{clip}", 4 * 1024)
            yield VideoDone(unit.number, video.uri, (), seconds)
        yield UnitDone(unit.number, 0)


def serve(videos: int, port, requests) -> None:
    """A made-up bucket: videos/, and labels/ with a tar and a record of every unit."""
    names = {f"videos/{i // 1000:03d}/{i:06d}.mp4": 1_000_000 + i for i in range(videos)}
    count = -(-videos // VIDEOS_PER_UNIT)
    written: dict[str, bytes] = {}
    for unit in range(count):
        names[record_name(unit, 0).replace("shards", "labels/shards")] = 9000
        names[f"labels/shards/{unit:06d}.r0.{'0' * 12}.tar"] = 20_000_000
    ordered = sorted(names)

    class Bucket(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            requests.value += 1
            url = urlsplit(self.path)
            key, query = unquote(url.path).partition("/bucket")[2].strip("/"), parse_qs(url.query)
            if "list-type" in query:
                self._answer(_listing(ordered, names, query).encode())
            elif key in written:
                self._answer(written[key])
            elif key in names:
                self._answer(_record(int(key.rpartition("/")[2][:6])))
            else:
                self._answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)

        def do_HEAD(self) -> None:
            requests.value += 1
            key = unquote(urlsplit(self.path).path).partition("/bucket/")[2]
            self._answer(written.get(key, b""), 200 if key in written or key in names else 404)

        def do_PUT(self) -> None:
            requests.value += 1
            key = unquote(urlsplit(self.path).path).partition("/bucket/")[2]
            written[key] = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"")

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    port.value = server.server_address[1]
    server.serve_forever()


def _listing(ordered: list[str], names: dict[str, int], query: dict[str, list[str]]) -> str:
    """A page of a listing, as S3 words it: objects, and with a delimiter the folders below the
    prefix."""
    prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    start = bisect.bisect_right(ordered, after) if after else bisect.bisect_left(ordered, prefix)
    end = bisect.bisect_left(ordered, prefix + chr(0x10FFFF))
    if query.get("delimiter", [""])[0] == "/":
        below = dict.fromkeys(
            name[len(prefix) :].partition("/")[0] + "/"
            for name in ordered[start:end]
            if "/" in name[len(prefix) :]
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(prefix + folder)}</Prefix></CommonPrefixes>"
            for folder in below
        )
        page = [name for name in ordered[start:end] if "/" not in name[len(prefix) :]][:PAGE]
        more = not below and end > start + PAGE
    else:
        folders, page, more = "", ordered[start : min(start + PAGE, end)], end > start + PAGE
    items = "".join(
        f'<Contents><Key>{escape(name)}</Key><Size>{names[name]}</Size><ETag>"{names[name]}"</ETag>'
        "<LastModified>2026-11-24T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
        for name in page
    )
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0"?><ListBucketResult '
        'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}{folders}</ListBucketResult>"
    )


def _record(unit: int) -> bytes:
    """The record of a unit in which every video gave its clips."""
    uris = [
        f"s3://bucket/videos/{i:06d}.mp4"
        for i in range(unit * VIDEOS_PER_UNIT, (unit + 1) * VIDEOS_PER_UNIT)
    ]
    suffixes = ("mp4", "queries.npz", "cotracker3-offline.npz", "tapir.npz", "labels.npz", "json")
    offsets = {suffix: (512 + 400_000 * k, 400_000) for k, suffix in enumerate(suffixes)}
    clips = [
        clip_entry(f"{unit:06d}{i:02d}{clip}", uri, offsets=offsets)
        for i, uri in enumerate(uris)
        for clip in range(CLIPS)
    ]
    record = record_of(
        unit,
        teachers={"cotracker3-offline": {}, "tapir": {}},
        clips=clips,
        videos=[VideoEntry(uri=uri, sha256="0" * 64, clips=CLIPS) for uri in uris],
        planned=len(uris),
    )
    return record.to_bytes()


if __name__ == "__main__":
    main()
