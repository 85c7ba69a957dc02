"""Where a network runs: the device of a name."""

from __future__ import annotations

import torch

from teachers.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. A ConfigError if this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {reason} Use 'auto', 'cpu', or 'cuda:<number>'.") from error
    return device
