"""A pretended GPU: what a network would wait for, and copy, on a real one.

    with pretended_gpu() as seen:
        teacher = teachers.load("tapir-mini", device="cuda:0")
        teacher.track(frames, queries)
    seen.waits        # Counter of "file.py:line what"

A tensor "on the GPU" is a wrapper around a CPU tensor that says it is on cuda:0. Every operation is
caught before it runs, so it computes the real values, with all branches that depend on them. What
makes the host wait for a GPU is counted: a value that is read (`.item()`, `if tensor`), a copy
back, an operation whose output's size depends on values (`nonzero`, boolean masks), and a copy to
it that is not `non_blocking`. Operations that get tensors of both devices are refused, as CUDA
refuses them.

`tests.support.one_cuda_device` must be loaded before torch is. Gradients are computed where they
are asked for; nothing is told about speed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
from torch.autograd.grad_mode import set_multithreading_enabled
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("cuda", 0)
FOLDERS = ("teachers", "student", "labeler", "pipelines")
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


class Seen:
    """What a run did beside computing, each with the line of ours that did it."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        """To the GPU, without a wait."""
        self.kernels = 0

    def wait(self, what: str) -> None:
        self.waits[f"{_line()} {what}"] += 1


class OnGpu(torch.Tensor):
    """A CPU tensor that says it is on the GPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=GPU,
        )
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a tensor of the pretended GPU was used outside of it")

    def tolist(self) -> Any:
        _SEEN[-1].wait("tolist")
        return self.held.tolist()


_SEEN: list[Seen] = []


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _SEEN[-1])


@contextmanager
def pretended_gpu(gradients: bool = False) -> Iterator[Seen]:
    """Inside, cuda:0 can be computed on."""
    seen = Seen()
    inference, to, lazy = torch.inference_mode, torch.nn.Module.to, torch.cuda._lazy_init
    torch.cuda._lazy_init = lambda: None
    torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc]  # no wrapper can be an inference tensor
    torch.nn.Module.to = partialmethod(_module_to, gradients)  # type: ignore[method-assign,assignment]
    # torch.tensor(..., device="cuda") makes a CPU tensor first, and copies it where this sees it
    torch._C._set_only_lift_cpu_tensors(True)
    _SEEN.append(seen)
    try:
        with _Mode(), torch.set_grad_enabled(gradients), set_multithreading_enabled(False):
            yield seen
    finally:
        _SEEN.pop()
        torch._C._set_only_lift_cpu_tensors(False)
        torch.inference_mode, torch.nn.Module.to = inference, to  # type: ignore[misc,method-assign]
        torch.cuda._lazy_init = lazy


def _run(func: Any, args: Any, kwargs: Any, seen: Seen) -> Any:
    leaves, shape = pytree.tree_flatten((args, kwargs))
    there = [leaf for leaf in leaves if isinstance(leaf, OnGpu)]
    here = [
        leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnGpu)
    ]
    asked = kwargs.get("device")
    to_gpu = bool(there) if asked is None else torch.device(asked).type == "cuda"
    if func is aten._fused_sdp_choice.default:
        return 0  # the plain formula
    if func is aten._to_copy.default or func is aten.copy_.default:
        source = args[0] if func is aten._to_copy.default else args[1]
        goes = to_gpu if func is aten._to_copy.default else isinstance(args[0], OnGpu)
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if goes and not isinstance(source, OnGpu) and blocking and source.dim():
            seen.wait("copy to the GPU that waits")
        elif goes and not isinstance(source, OnGpu):
            seen.copies[_line()] += 1
        elif not goes and isinstance(source, OnGpu):
            seen.wait("copy to the CPU")
    elif there:
        if func in READS or func in SIZED_BY_VALUES:
            seen.wait(func.__name__.partition(".")[0])
        if func in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(isinstance(i, OnGpu) and i.dtype in (torch.bool, torch.uint8) for i in indices):
                seen.wait("boolean mask")
            if any(not isinstance(i, OnGpu) for i in indices):
                seen.wait("index from the CPU")
            here = [one for one in here if not any(one is index for index in indices)]
        mixed = [tuple(one.shape) for one in here if one.dim()]
        assert not mixed, f"{_line()} {func.__name__}: tensors on cuda:0 and on the CPU {mixed}"
    seen.kernels += to_gpu and not getattr(func, "is_view", False)
    leaves = [leaf.held if isinstance(leaf, OnGpu) else leaf for leaf in leaves]
    real_args, real_kwargs = pytree.tree_unflatten(leaves, shape)
    if asked is not None:
        real_kwargs["device"] = torch.device("cpu")
    real_kwargs.pop("non_blocking", None)
    real_kwargs.pop("pin_memory", None)
    out = func(*real_args, **real_kwargs)
    if func is aten._addmm_activation.default:  # a GPU's GELU is the approximation by tanh
        out = torch.nn.functional.gelu(torch.addmm(*real_args), approximate="tanh")
    if func is aten.copy_.default:
        return args[0]
    if not to_gpu:
        return out
    out = pytree.tree_map_only(torch.Tensor, OnGpu, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if there else out


def _module_to(
    self: torch.nn.Module, gradients: bool, /, *args: Any, **kwargs: Any
) -> torch.nn.Module:
    """`Module.to` without swapping contents in place, which wrappers do not allow."""
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    for module in self.modules():
        for entries in (module._parameters, module._buffers):
            for key, value in list(entries.items()):
                if value is None:
                    continue
                kind = dtype if value.is_floating_point() else None
                moved = value.detach().to(device, kind, non_blocking)
                parameter = isinstance(value, torch.nn.Parameter)
                learns = gradients and value.requires_grad
                entries[key] = torch.nn.Parameter(moved, learns) if parameter else moved
    return self


def _line() -> str:
    """Where the innermost line of ours is: "teachers/tapir/network.py:12"."""
    frame = sys._getframe(1)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        at = [i for i, part in enumerate(parts) if part in FOLDERS]
        if at and "site-packages" not in parts and "tests" not in parts:
            return f"{'/'.join(parts[at[-1] :])}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
