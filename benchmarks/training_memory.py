"""Memory of a training step of CoTracker3: measured on small clips, computed for the published
ones.

    python -m benchmarks.training_memory

Measured   the highest resident set of a fresh process, less that of the process before the step:
           forward pass, losses, backward pass, and AdamW, in float32 on the CPU.
Computed   the bytes that autograd keeps for the way back, counted while the same code runs on
           tensors without content (torch's FakeTensorMode), every storage once; plus 16 bytes a
           parameter for weight, gradient, and AdamW's two moments. What is computed again on the
           way back is not in it, nor what only lives inside one operation: the measured rows show
           how much that adds. bfloat16 is what autocast makes of the CPU's operations, which differ
           from a GPU's in a few.

No GPU was used for the computed rows: they say what a clip needs at least, not what a GPU's
allocator makes of it.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from student.data.config import DataConfig
from student.data.mixture import batches
from student.training.config import TrainConfig
from student.training.schedule import Optimiser, ScheduleConfig
from student.training.step import add_gradient
from student.training.students import STUDENTS, Kind
from teachers.info import Preset
from teachers.layers.memory import Memory

GIB = 2**30
BYTES_PER_PARAMETER = 16
SMALL: tuple[tuple[Preset, int, int, int, int], ...] = (
    ("mini", 16, 96, 128, 64),
    ("mini", 24, 192, 256, 64),
    ("official", 8, 128, 160, 32),
    ("official", 16, 128, 160, 64),
    ("official", 16, 192, 256, 64),
)
"""Preset, frames, height, width, queries: what two CPU cores do in a minute or so."""
PUBLISHED = {
    "offline": ((40, 384, 512, 384), (64, 384, 512, 384), (80, 384, 512, 384)),
    "online": ((64, 384, 512, 384),),
}
GPU_BLOCKS = {"frames_per_block": 16, "points_per_block": 16384}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=7, help=argparse.SUPPRESS)
    asked = parser.parse_args().one
    if asked:
        preset, kind, recompute, *sizes = asked
        print(measured_gib(preset, kind, recompute == "True", *map(int, sizes)))
        return
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {version('numpy')}\n"
    )
    print(
        "measured on the CPU, float32, GiB                          kept      again on the way back"
    )
    print(
        "                                                   measured computed   measured computed"
    )
    for preset, *sizes in SMALL:
        row = f"{preset:<9} offline  {shape(*sizes):<30}"
        for recompute in (False, True):
            measured = in_fresh_process(preset, "offline", recompute, *sizes)
            computed = computed_gib(preset, "offline", recompute, False, *sizes)
            row += f"   {measured:8.2f} {computed:8.2f}"
        print(row, flush=True)
    print(
        "\ncomputed for one clip of the recipes, GiB                 float32                "
        "bfloat16"
    )
    print(
        "                                                       kept    again         kept    again"
    )
    kind: Any
    for kind, clips in PUBLISHED.items():
        for clip in clips:
            row = f"official  {kind:<8} {shape(*clip):<30}"
            for bf16 in (False, True):
                for recompute in (False, True):
                    gib = computed_gib("official", kind, recompute, bf16, *clip, **GPU_BLOCKS)
                    row += f" {gib:8.1f}"
                row += "    "
            print(row, flush=True)


def shape(frames: int, height: int, width: int, queries: int) -> str:
    return f"{frames} x {height} x {width} px, {queries} points"


def in_fresh_process(preset: Preset, kind: Kind, recompute: bool, *sizes: int) -> float:
    """`measured_gib` where nothing else has been in memory."""
    arguments = [preset, kind, str(recompute), *map(str, sizes)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_memory", "--one", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measured_gib(
    preset: Preset, kind: Kind, recompute: bool, frames: int, height: int, width: int, queries: int
) -> float:
    """How much a step adds to the highest resident set of this process."""
    data = DataConfig(
        procedural=1.0, frames=frames, height=height, width=width, queries=queries, batch=1
    )
    config = TrainConfig(
        data=data,
        init="scratch",
        student=kind,
        preset=preset,
        recompute=recompute,
        device="cpu",
        schedule=ScheduleConfig.supervised(),
    )
    student = STUDENTS[kind]
    batch = next(batches(data, seed=0))
    model = student.network(student.presets[preset]())
    before = peak_gib()
    optimiser = Optimiser(model, config.schedule)
    add_gradient(student, model, batch, config, parts=1, progress=0.0)
    optimiser.step()
    return peak_gib() - before + weights_gib(model)


def computed_gib(
    preset: Preset,
    kind: Kind,
    recompute: bool,
    bf16: bool,
    frames: int,
    height: int,
    width: int,
    queries: int,
    **blocks: int,
) -> float:
    """What autograd keeps of a clip, and the optimiser of the network."""
    student = STUDENTS[kind]
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(storage)  # so that its place is given to no other
        return tensor

    with FakeTensorMode():
        model = student.network(student.presets[preset]())
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        clip = torch.empty(1, frames, height, width, 3, dtype=torch.uint8)
        asked = torch.empty(1, queries, 3)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            found = student.track(model, clip, asked, 4, Memory(recompute=recompute, **blocks))
        count = sum(parameter.numel() for parameter in model.parameters())
    assert found
    activations = sum(size for place, size in kept.items() if place not in own)
    return (activations + BYTES_PER_PARAMETER * count) / GIB


def weights_gib(model: torch.nn.Module) -> float:
    return sum(4 * parameter.numel() for parameter in model.parameters()) / GIB


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    main()
