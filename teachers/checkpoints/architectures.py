"""Networks of teachers without their weights: which keys and shapes a checkpoint of each must have.

They are made on torch's "meta" device, where a tensor has a shape and no memory, so that all of
them take a second. A class of a learnt teacher says `network`, a class made from a config, and
`presets`, which name the configs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from teachers.registry import VERIFIERS, entries, factory_of, left_out

Shapes = Mapping[str, tuple[int, ...]]

ALIKE = 0.8
"""Least share of equal keys and shapes that makes a file look like a teacher's."""


def configs(name: str) -> dict[str, Any]:
    """Configs of the network of teacher `name`, by preset; empty for one without a network."""
    factory = factory_of(name)
    return {
        preset: config(**getattr(factory, "variant", {}))
        for preset, config in getattr(factory, "presets", {}).items()
    }


@functools.cache
def weightless(name: str, config: Any) -> nn.Module:
    """The network of teacher `name` on the meta device; only to be looked at."""
    with torch.device("meta"):
        return factory_of(name).network(config)


def teachers_with(shapes: Shapes) -> list[str]:
    """The teachers, or the verifier, whose network has these keys and shapes; if none, the nearest.

    Each as "'name'", with its preset if that is not "official". Empty if none is like it.
    """
    likeness: dict[str, float] = {}
    for entry in (*entries(), *VERIFIERS):
        if entry.shipped:  # a network of another entry, and what its file is for stands in it
            continue
        with left_out(entry.name):
            for preset, config in configs(entry.name).items():
                label = (
                    repr(entry.name)
                    if preset == "official"
                    else f"{entry.name!r} (preset {preset!r})"
                )
                likeness[label] = _likeness(shapes, weightless(entry.name, config))
    best = max(likeness.values(), default=0.0)
    return [label for label, value in likeness.items() if value == best >= ALIKE]


def _likeness(shapes: Shapes, network: nn.Module) -> float:
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    return len(shapes.items() & own.items()) / max(1, len(shapes.keys() | own.keys()))
