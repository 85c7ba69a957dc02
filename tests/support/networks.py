"""What the tests of all networks need: clips as batches, small teachers, which weights learn."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from teachers.layers.memory import Memory
from teachers.network_teacher import NetworkTeacher
from tests.support import parity

SMALL_BLOCKS = Memory(frames_per_block=3, points_per_block=1)
LARGE_BLOCKS = Memory(frames_per_block=100, points_per_block=10**6)

Kind = TypeVar("Kind", bound=NetworkTeacher)


def mini(kind: type[Kind], **settings: Any) -> Kind:
    """A teacher with the small network, untrained unless `settings` name a checkpoint."""
    always = {"name": "mini", "checkpoint": "random", "device": "cpu", "preset": "mini"}
    return kind(**(always | settings))


def mini_with(kind: type[Kind], model: nn.Module, folder: Path, **settings: Any) -> Kind:
    """A teacher with the weights of `model`."""
    path = folder / "mini.safetensors"
    save_file(model.state_dict(), path)
    return mini(kind, checkpoint=str(path), **settings)


def as_batch(frames: np.ndarray, queries: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 [T, H, W, 3] and [N, 3] to [1, T, 3, H, W] and [1, N, 3]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None], torch.from_numpy(queries)[None]


def together_and_alone(
    run: Callable[[Tensor, Tensor], Tensor], frames: np.ndarray, queries: np.ndarray
) -> tuple[Tensor, Tensor]:
    """What `run` gives for the clip and the reversed one in a batch, and for each by itself."""
    video, points = as_batch(frames, queries)
    clips, both = torch.cat([video, video.flip(1)]), torch.cat([points, points.flip(1)])
    with torch.inference_mode():
        alone = [run(clip[None], query[None]) for clip, query in zip(clips, both, strict=True)]
        return run(clips, both), torch.cat(alone)


def not_learning(model: nn.Module) -> list[str]:
    """Names of the weights that a backward pass has not reached with finite numbers."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]


def weights_of(case: parity.Case) -> dict[str, Tensor]:
    """The weights of a case whose `meta` names the list of keys."""
    return _filled(case.meta["model"], json.dumps(case.meta["weights"]))


@functools.lru_cache(maxsize=1)
def _filled(keys: str, formula: str) -> dict[str, Tensor]:
    filled = parity.weights(keys, **json.loads(formula))
    return {key: torch.from_numpy(value) for key, value in filled.items()}
