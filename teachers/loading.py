"""Loading: from a name to a teacher, with its weights. `load("lk")` makes one; the registry says
which names there are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from teachers.checkpoints.cache import cached_checkpoint
from teachers.errors import ConfigError
from teachers.info import MODES, Mode, Precision
from teachers.interface import Teacher, no_setting
from teachers.registry import VERIFIERS, declared, entry_of, factory_of, names, own_name

CALLED_WITH = ("name", "checkpoint", "device", "mode")
"""The arguments that every teacher is made with, besides its settings."""


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    mode: Mode = "predictor",
    precision: Precision = "auto",
    **settings: Any,
) -> Teacher:
    """Make a teacher.

    Args:
        name: one of `names()`, or "module:Class" for one that is not registered; or any other name,
            for a student whose `checkpoint` states which of these teachers it is for.
        checkpoint: file with weights of that architecture; None takes the file that `tapdistill
            teachers pull` got, or that lies in this package; "random" must be asked for by name,
            and never labels.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        mode: see `teachers.info.Mode`.
        precision: see `teachers.info.Precision`; it matters only for networks.
        **settings: settings of the architecture, such as `window_px` of "lk".

    Raises:
        ConfigError: there is no such teacher or mode (the message lists those there are), or no
            such setting.
        CheckpointError: there are no weights, or not those of this architecture; the message says
            where to get them.

    Any other exception that a teacher raises while it is made is its author's, and passes through.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode {mode!r}: there are {', '.join(MODES)}.")
    known = known_name(name, checkpoint)
    if known in (verifier.name for verifier in VERIFIERS):
        raise ConfigError(
            f"{known!r} judges the tracks of teachers and makes none, so it is not a teacher. "
            "`teachers.load_verifier` makes it."
        )
    factory = factory_of(known)
    if precision != "auto" and "precision" in settings_of(factory):
        settings["precision"] = precision
    if ":" not in known and (shipped := entry_of(known).shipped_checkpoint):
        checkpoint, settings = checkpoint or str(shipped), {"preset": "mini"} | settings
    official = (
        ":" not in known
        and entry_of(known).file is not None
        and settings.get("preset", "official") == "official"
    )
    if checkpoint is None and official and (cached := cached_checkpoint(name)):
        checkpoint = str(cached)
    arguments = {
        "name": own_name(name),
        "checkpoint": checkpoint,
        "device": device,
        "mode": mode,
        **settings,
    }
    _check_arguments(name, factory, arguments)
    teacher = factory(**arguments)
    if not isinstance(teacher, Teacher):
        raise ConfigError(
            f"teacher {name!r}: {factory!r} did not make a Teacher: see docs/add-a-teacher.md."
        )
    return teacher


def can_be_compiled(name: str, checkpoint: str | None = None) -> bool:
    """Whether the teacher that `load` would make is a network with parts that `compiled` hands to
    `torch.compile`. Raises the same as `load` for a name or a file that does not exist."""
    network = getattr(declared(known_name(name, checkpoint)), "network", None)
    return hasattr(network, "BF16_PARTS")


def compiled_setting(asked: bool, name: str, checkpoint: str | None) -> dict[str, bool]:
    """What `--compiled`, if it was asked for, adds to the settings of one teacher: nothing for
    those that cannot be compiled."""
    return {"compiled": True} if asked and can_be_compiled(name, checkpoint) else {}


def refuse_compiled(given: Sequence[tuple[str, str | None]]) -> None:
    """A ConfigError for `--compiled` with teachers (name, checkpoint) none of which can be
    compiled."""
    if not any(can_be_compiled(name, checkpoint) for name, checkpoint in given):
        raise ConfigError(
            f"--compiled: {', '.join(name for name, _ in given)}: none is a network with parts "
            "that are compiled; leave the flag out."
        )


def settings_of(factory: Any) -> list[str]:
    """Names of the settings with which a teacher can be made: those in the signature of its factory
    and, if that takes any name, those of its `settings_type`."""
    named, any_name = _named_parameters(factory)
    settings = [name for name in named if name not in CALLED_WITH]
    if any_name and (kind := getattr(factory, "settings_type", None)):
        settings += [field.name for field in fields(kind)]
    return settings


def _named_parameters(factory: Any) -> tuple[dict[str, bool], bool]:
    """Which arguments `factory` takes by name, and whether each is required; and whether it takes
    any other name, which is assumed of a factory without a signature."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}, True
    named = {
        parameter.name: parameter.default is parameter.empty
        for parameter in parameters
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _check_arguments(name: str, factory: Any, arguments: Mapping[str, Any]) -> None:
    """A ConfigError, unless the signature of `factory` takes these arguments by name."""
    named, any_name = _named_parameters(factory)
    unknown = [] if any_name else [argument for argument in arguments if argument not in named]
    for argument in unknown:
        if argument in CALLED_WITH:
            raise ConfigError(
                f"teacher {name!r}: {factory!r} does not take `{argument}`, with which every "
                "teacher is made: see docs/add-a-teacher.md."
            )
        raise ConfigError(no_setting(name, argument, settings_of(factory)))
    for setting, needed in named.items():
        if needed and setting not in arguments:
            raise ConfigError(f"teacher {name!r}: it needs the setting {setting!r}.")


def known_name(name: str, checkpoint: str | None) -> str:
    """The teacher that `name` stands for; for a student under a name of its own, the one that its
    file is for."""
    if checkpoint is None or ":" in name or name in names():
        return name
    from teachers.checkpoints.files import TEACHER, read_metadata  # here, because it imports torch

    return read_metadata(checkpoint).get(TEACHER, name)
