"""Check: is this file a checkpoint of that teacher? Answered from its keys and shapes, without
running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from teachers.checkpoints.architectures import configs, weightless
from teachers.checkpoints.files import (
    differences,
    read_weights,
    stored_config,
    wrong_network,
)
from teachers.errors import ConfigError
from teachers.hashing import file_sha256


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file that holds all the weights of a teacher and nothing else."""

    sha256: str
    parameters: int
    """How many numbers the file holds."""
    preset: str
    """"official", "mini", or "own" for another size, which the file itself states."""


def check(name: str, path: str | Path) -> Checked:
    """Check the file at `path` against the network of teacher `name`.

    Raises:
        ConfigError: there is no such teacher, or none of its weights are known here.
        CheckpointError: the file is not a checkpoint, or is one of another network; the message
            names the first keys that differ and the likely teacher.
    """
    presets = configs(name)
    if not presets:
        raise ConfigError(
            f"teacher {name!r} has no weights that can be checked: it is not a learnt teacher of "
            "tapdistill."
        )
    weights = read_weights(path)
    stored = stored_config(path, presets["official"])
    if stored != presets["official"]:
        presets = {preset: config for preset, config in presets.items() if config == stored} or {
            "own": stored
        }
    for preset, config in presets.items():
        if not differences(weights, weightless(name, config).state_dict()):
            return Checked(
                sha256=file_sha256(path),
                parameters=sum(value.numel() for value in weights.values()),
                preset=preset,
            )
    first = next(iter(presets.values()))
    raise wrong_network(
        path, name, weights, differences(weights, weightless(name, first).state_dict())
    )
