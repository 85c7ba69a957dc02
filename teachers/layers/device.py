"""Device and precision: where a network runs, and which of its parts multiply in bf16.

A network names those parts in `BF16_PARTS`. Everything between them stays float32: positions (bf16
has 8 significant bits, so it cannot count beyond 256 px), correlations, and TAPIR's matching with
the features it needs, where two cells that look nearly alike would otherwise change places. bf16 is
off by default; on a CPU without bf16 instructions it is slower than float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from teachers.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. A ConfigError if this machine has
    no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used here: {reason} Use 'auto', 'cpu', or 'cuda:<number>'."
        ) from error
    return device


def compute_in_bf16(network: nn.Module) -> None:
    """From now on the network's `BF16_PARTS` multiply in bf16; what they take and give stays
    float32."""
    names: tuple[str, ...] = network.BF16_PARTS  # type: ignore[assignment]
    for name in names:
        part = network.get_submodule(name)
        part.forward = _in_bf16(part.forward)


def _in_bf16(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(x: Tensor, *args: Any) -> Any:
        with torch.autocast(x.device.type, torch.bfloat16):
            answer = forward(x, *args)
        return (
            answer.float() if isinstance(answer, Tensor) else tuple(part.float() for part in answer)
        )

    return wrapped
