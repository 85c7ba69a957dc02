"""What a clip of `tapdistill label` costs in arithmetic: prints the table in `teachers/advice.py`.

    python -m benchmarks.flops [--only tapir alltracker] [--frames 80] [--queries 1024]

Each teacher tracks a whole clip in mode `label`, with torch's FLOP counter and tensors that have
shapes but no numbers, so that networks of the published size run in seconds. It is counted in the
form for a GPU (`teachers.layers.branch`), which may compute less than that for a CPU, or more.
Where a branch asks for a number it is told that it is 1, or true: a query lies before some frame, a
point is hidden in some. What tracks on as far as it sees (PIPs, PIPs++) costs what the video makes
of it and has no row, and so has what computes without torch.

AllTracker makes a pass from each frame in which a query lies, in both directions. All windows of a
pass cost the same but the first, so three passes say what all of them cost.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import teachers
from benchmarks.networks import flop_counter
from teachers.layers import branch
from teachers.layers.memory import Memory

NAMES = (
    "cotracker3-offline", "cotracker3-online", "cotracker2", "tapir", "bootstapir",
    "bootstapir-causal", "locotrack-base", "locotrack-small", "alltracker", "alltracker-tiny",
    "tapnext", "tapnextpp-512",
)  # fmt: skip
"""One of each network; those that differ in their weights alone cost the same."""
TFLOP = 1e12
WHOLE = Memory(frames_per_block=64, points_per_block=1 << 20)
"""Few and large blocks: what is computed at once changes no count."""
WINDOW, STRIDE = 16, 8
"""Of AllTracker."""

aten = torch.ops.aten
ASKING = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)


@dataclass(frozen=True)
class Clip:
    """The size of a clip, and where its queries lie."""

    frames: int
    height: int
    width: int
    queries: int

    @property
    def pixels(self) -> np.ndarray:
        return np.zeros((self.frames, self.height, self.width, 3), np.uint8)

    @property
    def points(self) -> np.ndarray:
        """As `tapdistill label` draws them: three quarters in eight frames of the first quarter,
        the others in any frame."""
        times = np.arange(self.queries) % self.frames
        first = np.linspace(0, (self.frames - 1) // 4, 8).round()
        often = 3 * self.queries // 4
        times[:often] = first[np.arange(often) % 8]
        places = np.random.default_rng(0).uniform(0, 1, (self.queries, 2))
        return np.column_stack([times, places * [self.width - 1, self.height - 1]])


class Yes(TorchDispatchMode):
    """A number that is asked of a tensor is 1, or true."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in ASKING and args[0].is_meta:
            return args[0].dtype is torch.bool or 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_numbers(teacher: Any) -> Iterator[None]:
    """Its tensors have shapes alone; what leaves torch is zero, and is not asked whether it is
    finite."""
    cpu = torch.Tensor.cpu

    def zeros(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else cpu(tensor)

    teacher.model.to("meta")
    teacher.device = torch.device("meta")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.Tensor, "cpu", zeros))
        stack.enter_context(mock.patch.object(torch, "is_autocast_enabled", return_value=False))
        for module in [m for name, m in sys.modules.items() if name.startswith("teachers.")]:
            if hasattr(module, "require_finite"):
                stack.enter_context(mock.patch.object(module, "require_finite"))
        stack.enter_context(Yes())
        yield


def counted(teacher: Any, clip: Clip, points: np.ndarray | None = None) -> int:
    """FLOPs of `teacher.track`, computed without numbers."""
    with flop_counter() as counter, without_numbers(teacher), branch.going(gpu=True):
        teacher.track(clip.pixels, clip.points if points is None else points)
    return counter.get_total_flops()


def flops(teacher: Any, clip: Clip) -> int:
    """FLOPs of a clip."""
    if not teacher.info.architecture.startswith("AllTracker"):
        return counted(teacher, clip)
    once = np.array([[0, 1.0, 1.0]])

    def one_pass(frames: int) -> int:  # with its encoding
        return counted(teacher, Clip(frames, clip.height, clip.width, 1), once)

    encoding = counted_encoding(teacher, clip)
    full, more, most = (
        one_pass(frames) - frames * encoding for frames in (WINDOW, WINDOW + 1, WINDOW + STRIDE)
    )
    upsampling = (most - more) // (STRIDE - 1)
    further = more - full - upsampling
    pair = one_pass(2) - 2 * encoding

    def cost(frames: int) -> int:
        if frames < 3:
            return pair if frames == 2 else 0
        windows = 1 + max(0, -(-(frames - WINDOW) // STRIDE))
        return full + (windows - 1) * further + (frames - WINDOW) * upsampling

    passes = (cost(clip.frames - t) + cost(t + 1) for t in np.unique(clip.points[:, 0]).astype(int))
    return clip.frames * encoding + sum(passes)


def counted_encoding(teacher: Any, clip: Clip) -> int:
    """FLOPs of the features of a frame."""
    no_gradient = torch.inference_mode()
    with flop_counter() as counter, without_numbers(teacher), no_gradient, branch.going(gpu=True):
        teacher._encode(np.zeros((1, clip.height, clip.width, 3), np.uint8))
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these teachers")
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=680)
    parser.add_argument("--queries", type=int, default=1024)
    options = parser.parse_args()
    clip = Clip(options.frames, options.height, options.width, options.queries)
    for name in options.only:
        started = time.process_time()
        teacher = teachers.load(name, checkpoint="random", device="cpu", mode="label", memory=WHOLE)
        count = flops(teacher, clip) / TFLOP
        print(f'"{name}": {count:.2f},  # {time.process_time() - started:.0f} s', flush=True)


if __name__ == "__main__":
    main()
