"""What the learnt teachers cost, against the official code and against the arithmetic limit.

    python -m benchmarks.networks [--only cotracker2 tapir] [--threads 1] [--bf16] [--runs 3]

One forward pass of each network with random weights, at the sizes at which the official code was
measured. Each row has a process of its own, so that its peak memory is its own. The limit is FLOPs
/ the rate at which 2048 x 2048 matrices are multiplied before and after the pass, with the same
threads and precision: a network that did nothing else would reach 100 %. FLOPs are those that run:
of a convolution that saves arithmetic, fewer than the plain one has. Other processes take cache and
memory bandwidth, so that CPU seconds grow by 10-40 %; the share of the limit moves less.

With `--bf16` the float32 pass runs too, and the rows end with how far the tracks drift from it.
Untrained networks move points little, so the way that they move is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One network at one size, and what the official code needs for that."""

    teacher: str
    frames: int
    height: int
    width: int
    iterations: int | None
    """None where the network has a number of its own."""
    threads: int
    """With which the official figures were measured."""
    official_cpu_s: float
    official_peak_mib: float
    goal: float
    """How many times as fast as the official code it should be."""


QUERIES = 256
ROWS = (
    Row("cotracker3-offline", 24, 384, 512, 6, 2, 62.1, 2.71 * 1024, 1.4),
    Row("cotracker3-online", 24, 384, 512, 6, 2, 86.0, 3.39 * 1024, 1.4),
    Row("cotracker2", 24, 384, 512, 6, 2, 82.0, 3.49 * 1024, 1.4),
    Row("tapir", 24, 256, 256, None, 1, 35.0, 1001, 1.4),
    Row("bootstapir", 24, 256, 256, None, 1, 45.9, 1090, 1.2),
    Row("bootstapir-causal", 1, 256, 256, None, 1, 5.1, 1398, 1.2),
    Row("pips", 8, 384, 512, 6, 1, 21.2, 1942, 1.4),
    Row("pips2", 24, 384, 512, 16, 1, 63.4, 2325, 1.2),
    Row("tapnext", 6, 256, 256, None, 1, 33.0, 2918, 1.3),
    Row("tapnextpp", 1, 256, 256, None, 1, 4.6, 2314, 1.3),
    Row("tapnextpp-512", 1, 512, 512, None, 1, 24.6, 4423, 1.3),
    Row("locotrack-base", 24, 256, 256, None, 1, 18.5, 975, 1.3),
    Row("locotrack-small", 24, 256, 256, None, 1, 16.3, 925, 1.3),
    Row("alltracker", 24, 384, 512, None, 1, 65.1, 2581, 1.3),
    Row("alltracker-tiny", 24, 384, 512, None, 1, 51.6, 2706, 1.3),
)
"""Official figures: the published code of each model (facebookresearch/co-tracker at 82e02e8,
google-deepmind/tapnet, aharley/pips, aharley/pips2) with torch 2.13.0 in float32 on two cores of an
AMD EPYC with AVX-512, user + system seconds: CoTrackers on an idle machine, median of 3; the others
on a loaded one, one run. Peaks were measured with 2 threads. LocoTrack (cvlab-kaist/locotrack at
3385a23) and AllTracker (aharley/alltracker at c1ed462) on an idle machine, one thread, the fastest
run. AllTracker's row is one pass from frame 0 with every frame brought to full size."""


@dataclass(frozen=True)
class Result:
    """Measured in the process of a row."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    gflop: float
    gflop_per_s: float
    """Of large matrix products."""
    drift_px: tuple[float, float, float] | None
    """bf16 against float32: median, 95 %, largest."""
    travel_px: float
    """Median way of a point from its query."""

    @property
    def limit(self) -> float:
        """Share of the arithmetic limit that is reached; CPU seconds of all threads count."""
        return self.gflop / self.gflop_per_s / self.cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=[row.teacher for row in ROWS], help="these teachers"
    )
    parser.add_argument("--threads", type=int, help="instead of those of the official figures")
    parser.add_argument("--bf16", action="store_true", help="bf16 where it is safe, and its drift")
    parser.add_argument("--runs", type=int, default=1, help="timed passes; the median counts")
    parser.add_argument("--process-of", metavar="TEACHER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = [row for row in ROWS if row.teacher in (options.only or [row.teacher])]
    if options.process_of:
        (row,) = (row for row in ROWS if row.teacher == options.process_of)
        print(json.dumps(asdict(measure(row, options.threads, options.bf16, options.runs))))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, ",
        end="",
    )
    print(
        f"Python {platform.python_version()}, torch {version('torch')}, "
        f"{'bf16' if options.bf16 else 'float32'}, {QUERIES} queries"
    )
    print(
        "| network | size | threads | CPU s | wall s | official CPU s | ratio (goal) | peak MiB | "
        "official | GFLOP | of limit |",
        end="",
    )
    print(" drift px: median, 95 %, largest (travel) |" if options.bf16 else "")
    print("|---" * (12 if options.bf16 else 11) + "|")
    for row in rows:
        threads = options.threads or row.threads
        print(line(row, threads, in_own_process(row, threads, options)), flush=True)


def in_own_process(row: Row, threads: int, options: argparse.Namespace) -> Result:
    """`measure`; this process imports no torch, because a child's peak begins with that of its
    parent."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.networks",
        "--process-of",
        row.teacher,
        "--threads",
        str(threads),
        "--runs",
        str(options.runs),
    ]
    output = subprocess.run(
        [*command, *(["--bf16"] if options.bf16 else [])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Result(**json.loads(output.stdout.splitlines()[-1]))


def line(row: Row, threads: int, result: Result) -> str:
    """A row of the printed table; an official figure for another number of threads stays out of the
    ratio."""
    same = threads == row.threads
    ratio = f"{row.official_cpu_s / result.cpu_s:.2f} ({row.goal})" if same else "other threads"
    cells = [
        row.teacher,
        f"{row.frames} x {row.height} x {row.width}",
        threads,
        f"{result.cpu_s:.1f}",
        f"{result.wall_s:.1f}",
        row.official_cpu_s,
        ratio,
        f"{result.peak_mib:.0f}",
        f"{row.official_peak_mib:.0f}",
        f"{result.gflop:.0f}",
        f"{result.limit:.0%}",
    ]
    if result.drift_px:
        middle, most, largest = result.drift_px
        cells.append(f"{middle:.4f}, {most:.4f}, {largest:.3f} ({result.travel_px:.2f})")
    return "| " + " | ".join(map(str, cells)) + " |"


def measure(row: Row, threads: int, bf16: bool, runs: int) -> Result:
    """Everything about one row, in this process."""
    import torch

    torch.set_num_threads(threads)
    run, queries = network(row, bf16)
    rate = [matrix_rate(bf16)]
    times = []
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        tracks = run()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate.append(matrix_rate(bf16))
    plain = network(row, bf16=False)[0]
    drift = None
    with flop_counter() as counter:
        exact = plain()
    if bf16:
        apart = (tracks - exact).norm(dim=-1).flatten()
        drift = tuple(apart.quantile(apart.new_tensor([0.5, 0.95, 1.0])).tolist())
    return Result(
        cpu_s=median(cpu for cpu, _ in times),
        wall_s=median(wall for _, wall in times),
        peak_mib=peak_mib,
        gflop=counter.get_total_flops() / 1e9,
        gflop_per_s=sum(rate) / 2,
        drift_px=drift,
        travel_px=(exact - queries[:, None, 1:]).norm(dim=-1).median().item(),
    )


def network(row: Row, bf16: bool) -> tuple[Callable[[], Tensor], Tensor]:
    """A pass that gives tracks [N, T, 2] in px, and its queries [N, 3]."""
    import torch

    import teachers

    teacher: Any = teachers.load(row.teacher, checkpoint="random", device="cpu", bf16=bf16)
    draw = torch.Generator().manual_seed(70)
    frames = torch.randint(
        256, (row.frames, row.height, row.width, 3), dtype=torch.uint8, generator=draw
    )
    queries = torch.rand(QUERIES, 3, generator=draw) * torch.tensor(
        [row.frames, 0.84 * row.width, 0.84 * row.height]
    )
    queries[:, 0] = queries[:, 0].floor()
    queries[: QUERIES // 3, 0] = 0
    queries[:, 1:] += 0.08 * torch.tensor([row.width, row.height])
    if row.teacher.startswith("tapnext"):
        return tapnext_pass(teacher, frames.numpy(), queries.numpy()), queries
    video, points = frames.permute(0, 3, 1, 2)[None], queries[None]

    def forward() -> Tensor:
        with torch.inference_mode():
            if row.teacher.startswith("cotracker3-offline"):
                return teacher.model(video, points, row.iterations).xy[-1, 0]
            if row.teacher.startswith("cotracker"):
                windows = teacher.model(video, points, row.iterations)
                half = windows[0].xy.shape[3] // 2
                return torch.cat(
                    [
                        *(window.xy[-1, 0, :, :half] for window in windows[:-1]),
                        windows[-1].xy[-1, 0],
                    ],
                    1,
                )
            if row.teacher.startswith("pips"):
                start = points[:, :, None, 1:].expand(-1, -1, row.frames, -1)
                answer = teacher.model(video, start, row.iterations)
                return answer.xy[0] if row.teacher == "pips2" else answer[0, :, -1, :, :2]
            if row.teacher.startswith("locotrack"):
                return teacher.model(video, points)[-1, 0, ..., :2]
            if row.teacher.startswith("alltracker"):
                dense = torch.from_numpy(teacher.flow(frames.numpy(), 0).flow)
                x, y = points[0, :, 1:].round().long().T
                return points[0, :, None, 1:] + dense[:, y, x].transpose(0, 1)
            return teacher.model(video, points).answer[0, ..., :2]

    if row.teacher != "bootstapir-causal":
        return forward, queries
    stream = teacher.stream(queries.numpy())
    stream.push(frames.numpy())  # the points join; what is measured is a frame after that
    return lambda: torch.from_numpy(stream.push(frames.numpy()).xy), queries


def tapnext_pass(teacher: Any, frames: Any, queries: Any) -> Callable[[], Tensor]:
    """Through a clip from its beginning; through a single frame as one of a stream, after
    another."""
    import torch

    with torch.inference_mode():
        points, state = teacher.to_units(queries, frames.shape[1:3]), None
        if len(frames) == 1:
            _, state = teacher.advance(frames, points, len(queries), None)

    def run() -> Tensor:
        with torch.inference_mode():
            answers, _ = teacher.advance(frames, points, len(queries), state)
        return answers[..., :2] * (frames.shape[2] / 256)

    return run


def matrix_rate(bf16: bool) -> float:
    """GFLOP per CPU second of the product of two 2048 x 2048 matrices, the best of five."""
    import torch

    a, b = torch.randn(2, 2048, 2048, dtype=torch.bfloat16 if bf16 else torch.float32)
    out, times = torch.mm(a, b), []
    for _ in range(5):
        started = time.process_time()
        torch.mm(a, b, out=out)
        times.append(time.process_time() - started)
    return 2 * 2048**3 / min(times) / 1e9


def flop_counter() -> Any:
    """Torch's counter, taught the attention that runs on a CPU."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_flop_count(query, key, value)

    attention_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={attention_on_cpu: attention})


if __name__ == "__main__":
    main()
