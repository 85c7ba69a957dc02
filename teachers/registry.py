"""The table of teachers: which names there are, and how one is made.

`load("lk")` makes a teacher. A name comes from the table below, from an entry point of the group `tapdistill.teachers`, or is a
"module:Class" string. A factory is called as `factory(name=..., checkpoint=..., device=..., mode=..., **settings)` and returns a
`Teacher`; its module is imported only then.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from teachers.errors import ConfigError
from teachers.interface import MODES, Mode, Teacher, checked_name

ENTRY_POINTS = "tapdistill.teachers"


@dataclass(frozen=True, kw_only=True)
class TeacherEntry:
    """One row of the table that `tapdistill teachers` prints."""

    name: str
    factory: str
    """"module:Class"."""
    architecture: str
    licence: str
    weights: str
    """Where the weights come from; "none needed" for the classical teachers."""


_OWN = "Apache-2.0 (OpenCV inside)"

TABLE: tuple[TeacherEntry, ...] = (
    TeacherEntry(
        name="lk", factory="teachers.lk:LucasKanadeTeacher", architecture="pyramidal Lucas-Kanade, forward-backward check",
        licence=_OWN, weights="none needed",
    ),
    TeacherEntry(
        name="flow", factory="teachers.flow:FlowTeacher", architecture="chained dense flow (DIS), forward-backward occlusion",
        licence=_OWN, weights="none needed",
    ),
    TeacherEntry(
        name="match", factory="teachers.match:MatchTeacher", architecture="descriptor matching in every frame, sub-pixel",
        licence=_OWN, weights="none needed",
    ),
    TeacherEntry(
        name="cotracker3-offline", factory="teachers.cotracker3:CoTracker3OfflineTeacher", architecture="CoTracker3, one window",
        licence="CC-BY-NC 4.0", weights="https://huggingface.co/facebook/cotracker3 scaled_offline.pth",
    ),
    TeacherEntry(
        name="cotracker3-offline-baseline", factory="teachers.cotracker3:CoTracker3OfflineTeacher",
        architecture="CoTracker3, one window", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 baseline_offline.pth",
    ),
    TeacherEntry(
        name="cotracker3-online", factory="teachers.cotracker3_online:CoTracker3OnlineTeacher",
        architecture="CoTracker3, windows of 16", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 scaled_online.pth",
    ),
    TeacherEntry(
        name="cotracker3-online-baseline", factory="teachers.cotracker3_online:CoTracker3OnlineTeacher",
        architecture="CoTracker3, windows of 16", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 baseline_online.pth",
    ),
    TeacherEntry(
        name="tapir", factory="teachers.tapir:TapirTeacher", architecture="TAPIR", licence="Apache-2.0",
        weights="dm-tapnet tapir_checkpoint_panning.pt",
    ),
    TeacherEntry(
        name="bootstapir", factory="teachers.tapir:BootsTapirTeacher", architecture="TAPIR, larger", licence="Apache-2.0",
        weights="dm-tapnet bootstap/bootstapir_checkpoint_v2.pt",
    ),
    TeacherEntry(
        name="bootstapir-causal", factory="teachers.tapir_stream:CausalBootsTapirTeacher", architecture="TAPIR, causal",
        licence="Apache-2.0", weights="dm-tapnet bootstap/causal_bootstapir_checkpoint.pt",
    ),
    TeacherEntry(
        name="cotracker2", factory="teachers.cotracker2:CoTracker2Teacher", architecture="CoTracker 2.1, windows of 16",
        licence="CC-BY-NC 4.0", weights="https://huggingface.co/facebook/cotracker cotracker2v1.pth",
    ),
    TeacherEntry(
        name="pips", factory="teachers.pips:PipsTeacher", architecture="PIPs, chained windows of 8", licence="MIT",
        weights="https://github.com/aharley/pips reference model",
    ),
    TeacherEntry(
        name="pips2", factory="teachers.pips2:Pips2Teacher", architecture="PIPs++", licence="MIT",
        weights="https://github.com/aharley/pips2 reference model",
    ),
)  # fmt: skip


def entries() -> list[TeacherEntry]:
    """Every teacher that can be named here: the table, then what installed packages register."""
    own = {entry.name: entry for entry in TABLE}
    for point in entry_points(group=ENTRY_POINTS):
        own.setdefault(
            checked_name(point.name),
            TeacherEntry(
                name=point.name, factory=point.value, architecture=f"from {point.dist.name if point.dist else 'a package'}",
                licence="see its package", weights="see its package",
            ),
        )  # fmt: skip
    return list(own.values())


def names() -> list[str]:
    """Names of every teacher that can be named here."""
    return [entry.name for entry in entries()]


def own_name(name: str) -> str:
    """The name that a teacher's tracks are stored under: `name`, or for "module:Class" the class in lower case."""
    return checked_name(name.rpartition(":")[2].lower().replace("_", "-") if ":" in name else name)


def load(name: str, *, checkpoint: str | None = None, device: str = "auto", mode: Mode = "predictor", **settings: Any) -> Teacher:
    """Make a teacher.

    Args:
        name: one of `names()`, or "module:Class" for one that is registered nowhere.
        checkpoint: file with weights of that architecture; None takes the teacher's own; "random" must be asked for by name.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        mode: see `teachers.interface.Mode`.
        **settings: of the architecture, such as `window_px` of "lk".

    Raises:
        ConfigError: no such teacher, mode, or setting; the message lists those there are.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode {mode!r}: there are {', '.join(MODES)}.")
    known = {entry.name: entry.factory for entry in entries()}
    target = known.get(name, name if ":" in name else None)
    if target is None:
        raise ConfigError(
            f"no teacher {name!r}: there are {', '.join(known)}; or give 'module:Class' for one of your own (docs/add-a-teacher.md)."
        )
    module, _, attribute = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"teacher {name!r}: cannot import {target!r}: {error}.") from error
    try:
        teacher = factory(name=own_name(name), checkpoint=checkpoint, device=device, mode=mode, **settings)
    except TypeError as error:
        raise ConfigError(f"teacher {name!r}: {error}.") from error
    assert isinstance(teacher, Teacher), f"{target} did not make a Teacher"
    return teacher
