"""Loading: from a name to a teacher, with its weights. `load("lk")` makes one; which names there
are, the registry says."""

from __future__ import annotations

import re
from typing import Any

from teachers.checkpoints.cache import cached_checkpoint
from teachers.errors import ConfigError
from teachers.interface import MODES, Mode, Teacher
from teachers.registry import VERIFIERS, entry_of, factory_of, names, own_name


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    mode: Mode = "predictor",
    **settings: Any,
) -> Teacher:
    """Make a teacher.

    Args:
        name: one of `names()`, or "module:Class" for one that is registered nowhere; or any other
            name, for a student whose `checkpoint` says itself which of them it is for.
        checkpoint: file with weights of that architecture; None takes the file that
            `tapdistill teachers pull` got, or that lies in this package; "random" must be asked for
            by name, and never labels.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        mode: see `teachers.interface.Mode`.
        **settings: of the architecture, such as `window_px` of "lk".

    Raises:
        ConfigError: no such teacher or mode (the message lists those there are), or no such
            setting.
        CheckpointError: no weights, or not those of this architecture; the message says where to
            get them.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode {mode!r}: there are {', '.join(MODES)}.")
    known = _known_name(name, checkpoint)
    if known in (verifier.name for verifier in VERIFIERS):
        raise ConfigError(
            f"{known!r} judges the tracks of teachers and makes none: it is no teacher. "
            "`teachers.verifier.load` makes it."
        )
    factory = factory_of(known)
    if ":" not in known and (shipped := entry_of(known).shipped_checkpoint):
        checkpoint, settings = checkpoint or str(shipped), {"preset": "mini"} | settings
    official = (
        ":" not in known
        and entry_of(known).file is not None
        and settings.get("preset", "official") == "official"
    )
    if checkpoint is None and official and (cached := cached_checkpoint(name)):
        checkpoint = str(cached)
    try:
        teacher = factory(
            name=own_name(name), checkpoint=checkpoint, device=device, mode=mode, **settings
        )
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        raise ConfigError(
            f"teacher {name!r}: {f'it has no setting {unknown[1]!r}' if unknown else error}."
        ) from error
    if not isinstance(teacher, Teacher):
        raise ConfigError(
            f"teacher {name!r}: {factory!r} did not make a Teacher: see docs/add-a-teacher.md."
        )
    return teacher


def _known_name(name: str, checkpoint: str | None) -> str:
    """The teacher that `name` is; for a student under a name of its own, the one that its file is
    for."""
    if checkpoint is None or ":" in name or name in names():
        return name
    from teachers.checkpoints.files import TEACHER, read_metadata  # here, because it imports torch

    return read_metadata(checkpoint).get(TEACHER, name)
