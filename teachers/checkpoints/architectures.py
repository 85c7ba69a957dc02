"""Architectures: which keys and shapes a checkpoint of each teacher must have.

The networks are made on torch's "meta" device, where a tensor has a shape but no memory, so that
making all of them takes a second. The class of a learnt teacher declares `network`, the class of
its network, which is made from a config, and `presets`, the configs by name.
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
"""A file looks like a teacher's if at least this share of its keys and shapes are equal."""


def configs(name: str) -> dict[str, Any]:
    """Configs of the network of teacher `name`, by preset; empty for one without a network."""
    factory = factory_of(name)
    return {
        preset: config(**getattr(factory, "variant", {}))
        for preset, config in getattr(factory, "presets", {}).items()
    }


@functools.cache
def weightless(name: str, config: Any) -> nn.Module:
    """The network of teacher `name` on the meta device: it can be inspected, but not run."""
    with torch.device("meta"):
        return factory_of(name).network(config)


def teachers_with(shapes: Shapes) -> list[str]:
    """The teachers, or the verifier, whose network has these keys and shapes; if none, the nearest.

    Each is written as "'name'", with its preset if that is not "official". Empty if none is
    similar.
    """
    likeness: dict[str, float] = {}
    for entry in (*entries(), *VERIFIERS):
        # a shipped file has the network of another entry, and says itself which one it is for
        if entry.shipped:
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
