"""Everything that is to be known of a GPU, in under ten minutes, as tables for the log.

    python -m benchmarks.gpu > gpu.md
    python -m benchmarks.gpu --device cpu --small          # a trial of the script itself

Device      its name and libraries; measured here: products of large matrices in each precision, and
            copies inside its memory. Shares below are of these figures, not of a data sheet's.
Parity      each network on the device in float32 against the CPU, where the parity cases hold it to
            the published code; and how far tf32 and bf16 move the tracks on the device
Labelling   clips a second of each teacher as `label` calls it, of the recipe's four together, with
            the share of the peak that they reach, and peak memory
Training    steps a second of one clip of the recipes' size, with peak memory

Weights are those that are here, else random ones: they change drift, not speed. A row that would
begin after `--minutes` is left out, and said to be.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

import teachers
from student.data.batch import Batch
from student.data.config import DataConfig
from student.training.config import TrainConfig
from student.training.schedule import Optimiser
from student.training.step import add_gradient
from student.training.students import STUDENTS
from teachers import Teacher
from teachers.checkpoints.cache import cached_checkpoint
from teachers.info import Precision
from teachers.layers.device import describe, multiplying, pick_device

FOUR = ("cotracker3-offline", "cotracker3-online", "cotracker2", "tapir")
"""Teachers of the published recipe."""
OTHERS = ("bootstapir", "locotrack-base", "tapnext", "alltracker", "pips", "pips2")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured, and where."""

    device: str = "auto"
    teachers: tuple[str, ...] = FOUR + OTHERS
    minutes: float = 10.0
    """No row begins later."""
    small: bool = False
    """Mini networks and small clips, to try the script."""

    @property
    def clip(self) -> tuple[int, int, int, int]:
        """Frames, height, width, and queries of a clip that is labelled."""
        return (6, 48, 64, 4) if self.small else (80, 384, 680, 1024)

    @property
    def parity_clip(self) -> tuple[int, int, int, int]:
        return (6, 48, 64, 4) if self.small else (24, 256, 256, 64)

    @property
    def training_clip(self) -> tuple[int, int, int, int]:
        return (8, 48, 64, 4) if self.small else (64, 384, 512, 384)

    @property
    def side(self) -> int:
        """Of the matrices that are multiplied."""
        return 256 if self.small else 8192


class Bench:
    """A device, and the time that is left for it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.device = pick_device(asked.device)
        self.ends = time.monotonic() + 60 * asked.minutes
        self.on_gpu = self.device.type == "cuda"
        self.precisions: tuple[Precision, ...] = (
            ("float32", "tf32", "bf16") if self.on_gpu else ("float32", "bf16")
        )
        self.peak: dict[Precision, float] = {}
        """TFLOP/s that were measured."""

    def run(self) -> Iterator[str]:
        """The lines of the tables."""
        yield f"# {describe(self.device) or platform.processor() or platform.machine()}"
        yield f"\ntorch {torch.__version__}; {self.asked.clip} = frames, height, width, queries"
        yield from self.limits()
        yield from self.parity()
        yield from self.labelling()
        yield from self.training()

    def limits(self) -> Iterator[str]:
        """What the device does at best."""
        yield "\n| measured | |\n|---|---|"
        side = self.asked.side
        for precision in self.precisions:
            kind = torch.bfloat16 if precision == "bf16" else torch.float32
            one, other = torch.randn(2, side, side, device=self.device, dtype=kind)
            with multiplying(precision, self.device):
                seconds = self.seconds(lambda one=one, other=other: one @ other)
            self.peak[precision] = 2 * side**3 / seconds / 1e12
            yield f"| products, {precision} | {self.peak[precision]:.3g} TFLOP/s |"
        source = torch.empty(side * side * 4, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.seconds(lambda: target.copy_(source))
        yield f"| copies in memory | {2 * source.numel() / seconds / 1e9:.3g} GB/s |"

    def parity(self) -> Iterator[str]:
        """The device against the CPU, and each precision against float32."""
        yield "\n| px of the clip | CPU | " + " | ".join(self.precisions[1:]) + " | flags |"
        yield "|---|---|" + "---|" * (len(self.precisions) - 1) + "---|"
        frames, queries = clip(*self.asked.parity_clip)
        for name in self.asked.teachers:
            if self.late():
                yield f"| {name} | not run: out of time |"
                continue
            exact = self.teacher(name, "float32")
            there = exact.track(frames, queries)
            on_cpu = self.teacher(name, "float32", "cpu").track(frames, queries)
            cells, flags = [apart(on_cpu.xy, there.xy)], 0.0
            for precision in self.precisions[1:]:
                other = self.teacher(name, precision)
                found = other.track(frames, queries)
                cells.append(apart(found.xy, there.xy))
                changed = exact.info.rule(there) != other.info.rule(found)
                flags = max(flags, float(changed.mean()))
            yield f"| {name} | {' | '.join(cells)} | {flags:.2%} |"

    def labelling(self) -> Iterator[str]:
        """Clips a second, of each teacher and of the four."""
        yield "\n| teacher, precision | s a clip | clips/s | TFLOP | of the peak | GiB |"
        yield "|---|---|---|---|---|---|"
        frames, queries = clip(*self.asked.clip)
        together: Counter[Precision] = Counter()
        counted: Counter[Precision] = Counter()
        for name in self.asked.teachers:
            for precision in self.precisions[1:]:
                if self.late():
                    yield f"| {name}, {precision} | not run: out of time |"
                    continue
                teacher = self.teacher(name, precision)
                self.forget_peak()
                with counted_flops() as flops:
                    teacher.track(frames, queries)  # also warms up
                seconds = self.seconds(
                    lambda teacher=teacher: teacher.track(frames, queries), least=1
                )
                tflop = flops.get_total_flops() / 1e12
                share = tflop / seconds / self.peak[precision]
                yield (
                    f"| {name}, {precision} | {seconds:.3f} | {1 / seconds:.3g} | {tflop:.3g} | "
                    f"{share:.0%} | {self.peak_gib()} |"
                )
                if name in FOUR:
                    together[precision] += seconds
                    counted[precision] += 1
        for precision, seconds in together.items():
            if counted[precision] == len(FOUR):
                yield f"| the four, {precision} | {seconds:.3f} | {1 / seconds:.3g} | | | |"

    def training(self) -> Iterator[str]:
        """Steps a second of one clip."""
        yield "\n| student | activations | s a step | steps/s | GiB |\n|---|---|---|---|---|"
        for kind in ("offline", "online"):
            for recompute in (True, False):
                title = f"| {kind} | {'again' if recompute else 'kept'} |"
                if self.late():
                    yield f"{title} not run: out of time |"
                    continue
                self.forget_peak()
                try:
                    seconds = self.seconds(self.step(kind, recompute), least=1)
                except torch.OutOfMemoryError:
                    yield f"{title} out of memory |"
                    continue
                yield f"{title} {seconds:.3f} | {1 / seconds:.3g} | {self.peak_gib()} |"

    def step(self, kind: str, recompute: bool) -> Callable[[], object]:
        """A training step, without reading its clip."""
        frames, height, width, queries = self.asked.training_clip
        data = DataConfig(
            data=("none",), frames=frames, height=height, width=width, queries=queries, batch=1
        )
        config = TrainConfig(
            data=data, init="given.pth", student=kind, recompute=recompute, device=str(self.device)
        )  # type: ignore[arg-type]
        student = STUDENTS[kind]
        preset = "mini" if self.asked.small else "official"
        model = student.from_scratch(preset, frames, (height, width), 0)
        model = model.to(self.device)
        optimiser = Optimiser(model, config.schedule, student.head)
        batch = moving_batch(frames, height, width, queries).to(self.device)

        def once() -> None:
            with multiplying("auto", self.device):
                add_gradient(student, model, batch, config, 1, 0.0)
            optimiser.step()

        return once

    def teacher(self, name: str, precision: Precision, device: str | None = None) -> Teacher:
        """The teacher as `label` calls it; mini if sizes are small."""
        given: dict[str, Any] = {"preset": "mini"} if self.asked.small else {}
        weights = None if self.asked.small else cached_checkpoint(name)
        return teachers.load(
            name,
            checkpoint=str(weights) if weights else "random",
            device=device or str(self.device),
            mode="label",
            precision=precision,
            **given,
        )

    def seconds(self, once: Callable[[], object], least: int = 3) -> float:
        """The shortest of a few runs, after one that warms up; about three seconds in all."""
        once()
        times: list[float] = []
        ends = time.monotonic() + 3
        while len(times) < least or (time.monotonic() < ends and len(times) < 20):
            self.wait()
            began = time.perf_counter()
            once()
            self.wait()
            times.append(time.perf_counter() - began)
        return min(times)

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def late(self) -> bool:
        return time.monotonic() > self.ends

    def forget_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> str:
        """Most memory since `forget_peak`; empty for a CPU, which does not say."""
        if not self.on_gpu:
            return ""
        return f"{torch.cuda.max_memory_allocated(self.device) / GIB:.1f}"


def counted_flops() -> FlopCounterMode:
    """torch's counter, and what it does not count: products that end in a GELU, which are a third
    of a transformer's and computed so on a GPU alone."""

    def product(bias: Any, x: Any, weight: Any, *_: Any, **__: Any) -> int:  # shapes
        return 2 * x[0] * x[1] * weight[1]

    counts = {torch.ops.aten._addmm_activation: product}
    return FlopCounterMode(display=False, custom_mapping=counts)


def clip(
    frames: int, height: int, width: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:  # uint8 [T, H, W, 3], float32 [N, 3]
    """A texture that moves by a pixel a frame, and queries anywhere in it."""
    draw = np.random.default_rng(0)
    wide = draw.integers(0, 256, (height, width + frames, 3), dtype=np.uint8)
    moving = np.stack([wide[:, t : t + width] for t in range(frames)])
    t = draw.integers(0, frames, queries)
    xy = draw.uniform(4, (width - 5, height - 5), (queries, 2))
    return moving, np.column_stack([t, xy]).astype(np.float32)


def moving_batch(frames: int, height: int, width: int, queries: int) -> Batch:
    """That clip with its exact tracks, as the trainer takes it."""
    pictures, points = clip(frames, height, width, queries)
    t = torch.arange(frames)
    asked = torch.from_numpy(points)
    x = asked[:, 1, None] - (t - asked[:, :1])
    xy = torch.stack([x, asked[:, 2, None].expand_as(x)], -1)
    seen = (x >= 0) & (x <= width - 1)
    return Batch(
        frames=torch.from_numpy(pictures)[None],
        queries=asked[None],
        xy=xy[None].float(),
        visible=seen[None],
        valid=torch.ones_like(seen)[None],
        visibility_valid=torch.ones_like(seen)[None],
        supervise_occluded=torch.ones(1, dtype=torch.bool),
        weight=torch.ones(1, queries, frames),
        keys=("moving",),
        sources=("shards",),
        position=1,
        inline=(None,),
        skipped=Counter(),
    )


def apart(xy: np.ndarray, other: np.ndarray) -> str:
    """Median, 95 %, and largest distance."""
    distance = np.hypot(*np.moveaxis(xy - other, -1, 0))
    known = distance[np.isfinite(distance)]
    return f"{np.median(known):.2g}, {np.quantile(known, 0.95):.2g}, {known.max():.2g}"


def main(asked: Asked) -> None:
    for line in Bench(asked).run():
        print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Asked))
