"""Device and precision: where a network runs, and which of its parts multiply in bf16.

A network names those parts in `BF16_PARTS`. Everything between them stays float32: positions (bf16
has 8 significant bits, so it cannot count beyond 256 px), correlations, and TAPIR's matching with
the features it needs, where two cells that look nearly alike would otherwise change places. bf16 is
off by default; on a CPU without bf16 instructions it is slower than float32.

On a GPU, products of float32 matrices and convolutions may round their factors to TF32, which is
many times faster: `multiplying` decides whether they do while a network computes."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from teachers.errors import ConfigError
from teachers.info import Precision
from teachers.layers.branch import for_gpu


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. A ConfigError if this machine has
    no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("nothing here was written for it.")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used here: {reason} Use 'auto', 'cpu', or 'cuda:<number>'."
        ) from error
    return device


def resolved(precision: Precision, device: torch.device, has_bf16_parts: bool) -> Precision:
    """The precision that "auto" stands for on that device, as does "bf16" for a network that has no
    part for it.

    Raises:
        ConfigError: there is no such precision, or it is tf32 on a CPU.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision = {precision!r}: there are {', '.join(get_args(Precision))}.")
    on_gpu = device.type == "cuda"
    if precision == "tf32" and not on_gpu:
        raise ConfigError(
            "precision = 'tf32': only GPUs have it, and this runs on a CPU. Take 'auto', which is "
            "float32 here."
        )
    if precision == "auto" or (precision == "bf16" and not has_bf16_parts):
        return "tf32" if on_gpu else "float32"
    return precision


@contextlib.contextmanager
def multiplying(precision: Precision, device: torch.device) -> Iterator[None]:
    """A context in which float32 factors are rounded to TF32 on a GPU unless `precision` is
    "float32". In torch, this is a setting of the whole process; afterwards it is what it was
    before."""
    if device.type != "cuda":
        yield
        return
    before = [(place, name, _value(place, name)) for place, name, *_ in _switches()]
    try:
        _set([(*switch[:2], switch[2 + (precision != "float32")]) for switch in _switches()])
        yield
    finally:
        _set(before)


class _Products:
    """torch's setting of all float32 products, of which reading and writing are functions."""

    precision = property(
        lambda self: torch.get_float32_matmul_precision(),
        lambda self, value: torch.set_float32_matmul_precision(value),
    )


def _switches() -> list[tuple[Any, str, Any, Any]]:
    """Where torch stores how products and convolutions round: object, attribute, its value for
    float32, and its value for TF32. torch 2.9 renamed them, but still reads the old names, some of
    them in `torch.compile`, and refuses to where they say otherwise than the new ones. Setting an
    old one sets new ones too, those of the CPU among them, so the old ones come first."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    convolutions = (cudnn, "allow_tf32", False, True)
    if not hasattr(matmul, "fp32_precision"):
        return [(matmul, "allow_tf32", False, True), convolutions]
    on_cpu: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    return [
        (_Products(), "precision", "highest", "high"),
        convolutions,
        *((place, "fp32_precision", "ieee", "tf32") for place in (matmul, cudnn.conv, cudnn.rnn)),
        (on_cpu, "fp32_precision", "ieee", "ieee"),
    ]


def _value(place: Any, name: str) -> Any:
    """None for an old name where torch refuses to read it: the program has set a new one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.9 advises against the old names
            return getattr(place, name)
    except RuntimeError:
        return None


def _set(values: list[tuple[Any, str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, name, value in values:
            if value is not None:
                setattr(place, name, value)


@functools.lru_cache
def describe(device: torch.device) -> str:
    """A GPU with what its results depend on: "NVIDIA H100 80GB HBM3, driver 550.54.15, CUDA 12.6,
    cuDNN 9.5.1"; empty for a CPU."""
    if device.type != "cuda":
        return ""
    try:
        name = torch.cuda.get_device_name(device)
    except (RuntimeError, AssertionError):
        name = "a GPU without a name"
    major, minor, patch = (cudnn_version() // 10**n % 100 for n in (4, 2, 0))
    return f"{name}, driver {_driver()}, CUDA {torch.version.cuda}, cuDNN {major}.{minor}.{patch}"


def cudnn_version() -> int:
    """A version number of cuDNN, written as cuDNN 9 does: 90501 is 9.5.1; 0 where there is none."""
    return torch.backends.cudnn.version() or 0


def _driver() -> str:
    """The version of NVIDIA's kernel module, if the system tells it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else "unknown"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; to a GPU, it is copied from pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    # where no memory can be pinned, only the copy is slower
    with contextlib.suppress(RuntimeError, AssertionError):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def constant(like: Tensor, *values: float) -> Tensor:  # [len(values)]
    """The values where `like` is, and in its type. On a GPU they are filled in there, because a
    copy from the host waits for all that was computed before."""
    if like.device.type != "cuda":
        return like.new_tensor(values)
    made = like.new_full((len(values),), float(values[0]))
    for place, value in enumerate(values[1:], 1):
        made[place : place + 1].fill_(value)
    return made


def compute_in_bf16(network: nn.Module) -> None:
    """Make the network's `BF16_PARTS` multiply in bf16; their inputs and outputs stay float32. On a
    GPU, the weights of their layers are rounded here, once for all calls, if the network says that
    nothing else uses them (`BF16_WEIGHTS`)."""
    names: tuple[str, ...] = network.BF16_PARTS  # type: ignore[assignment]
    rounded = getattr(network, "BF16_WEIGHTS", False)
    for name in names:
        part = network.get_submodule(name)
        part.forward = _in_bf16(part.forward)
        for layer in part.modules():
            weighted = isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d))
            if rounded and weighted and for_gpu(cast(Tensor, layer.weight)):
                layer.to(torch.bfloat16)


def compile_parts(network: nn.Module) -> None:
    """Hand the network's `BF16_PARTS`, in which nearly all of its products are, to `torch.compile`,
    for clips of any size. The first clip then takes a minute or more; the answers are the same but
    for rounding."""
    names: tuple[str, ...] = network.BF16_PARTS  # type: ignore[assignment]
    for name in names:
        network.get_submodule(name).compile(dynamic=True)


def _in_bf16(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(x: Tensor, *args: Any) -> Any:
        with torch.autocast(x.device.type, torch.bfloat16):
            answer = forward(x, *args)
        return (
            answer.float() if isinstance(answer, Tensor) else tuple(part.float() for part in answer)
        )

    return wrapped
