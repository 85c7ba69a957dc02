"""Branch: a function that is written twice, for the caches of a CPU and for a GPU, goes one way.

What is fast differs. A CPU wants small blocks that stay in its cache, and few operations on each
number. A GPU wants few launches, each over as much as fits, and few passes over its memory. Where
one form cannot be both there are two, equal up to rounding; tests compare them on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_forced: bool | None = None


def for_gpu(x: Tensor) -> bool:
    """Whether what is computed from x goes the GPU's way: where x is on one, or `going` says so."""
    return x.is_cuda if _forced is None else _forced


def for_gpu_inference(x: Tensor) -> bool:
    """The same, for forms that no gradient flows through, or through which it flows slowly."""
    return for_gpu(x) and not torch.is_grad_enabled()


@contextmanager
def going(gpu: bool) -> Iterator[None]:
    """Inside, every function goes that way on every device: for comparisons."""
    global _forced
    before, _forced = _forced, gpu
    try:
        yield
    finally:
        _forced = before
