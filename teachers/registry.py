"""Registry: the table of teachers, which says which names there are, and how each teacher is made.

`teachers.loading.load` makes one. A name comes from the table below, from an entry point of the
group `tapdistill.teachers`, or is a "module:Class" string. A factory is called as
`factory(name=..., checkpoint=..., device=..., mode=..., **settings)` and returns a `Teacher`; its
module is imported only then.

`published.py` says where the weights of a learnt teacher come from. Those of the minis are in this
package.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from teachers.errors import ConfigError
from teachers.interface import Teacher, checked_name
from teachers.published import OWN_LICENCE, PUBLISHED, WeightsFile
from teachers.spdx import allows_commercial_use

ENTRY_POINTS = "tapdistill.teachers"


@dataclass(frozen=True, kw_only=True)
class TeacherEntry:
    """One row of the table that `tapdistill teachers` prints.

    Attributes:
        factory: the class, as "module:Class".
        weights: where they come from; "none needed" for the classical teachers.
        file: what `tapdistill teachers pull` gets; None where there is nothing to get.
        shipped: its weights are in this package, and its network is the "mini" one of its
            architecture.
        own: it belongs to this package, not to another one that is installed.
    """

    name: str
    factory: str
    architecture: str
    licence: str
    weights: str
    file: WeightsFile | None = None
    shipped: bool = False
    own: bool = True

    @property
    def shipped_checkpoint(self) -> Path | None:
        """The file in this package; None if there is none."""
        return (
            Path(__file__).parent / "weights" / f"{self.name}.safetensors" if self.shipped else None
        )


def _published(name: str, factory: str, architecture: str) -> TeacherEntry:
    """A teacher whose weights are published."""
    file = PUBLISHED[name]
    return TeacherEntry(
        name=name,
        factory=factory,
        architecture=architecture,
        licence=file.licence,
        weights=f"{file.page} {file.file}",
        file=file,
    )


def _own(name: str, factory: str, architecture: str, *, shipped: bool = False) -> TeacherEntry:
    """A teacher without weights, or with those in this package."""
    return TeacherEntry(
        name=name,
        factory=factory,
        architecture=architecture,
        licence=OWN_LICENCE,
        weights="in this package" if shipped else "none needed",
        shipped=shipped,
    )


TABLE: tuple[TeacherEntry, ...] = (
    _own(
        "lk",
        "teachers.classical.lk:LucasKanadeTeacher",
        "pyramidal Lucas-Kanade, forward-backward check",
    ),
    _own(
        "flow",
        "teachers.classical.flow:FlowTeacher",
        "chained dense flow (DIS), forward-backward occlusion",
    ),
    _own(
        "match",
        "teachers.classical.match:MatchTeacher",
        "descriptor matching in every frame, sub-pixel",
    ),
    _published(
        "xfeat", "teachers.xfeat.teacher:XFeatTeacher", "XFeat matched in every frame, sub-pixel"
    ),
    _published(
        "cotracker3-offline",
        "teachers.cotracker.offline:CoTracker3OfflineTeacher",
        "CoTracker3, one window",
    ),
    _published(
        "cotracker3-offline-baseline",
        "teachers.cotracker.offline:CoTracker3OfflineTeacher",
        "CoTracker3, one window",
    ),
    _published(
        "cotracker3-online",
        "teachers.cotracker.online:CoTracker3OnlineTeacher",
        "CoTracker3, windows of 16",
    ),
    _published(
        "cotracker3-online-baseline",
        "teachers.cotracker.online:CoTracker3OnlineTeacher",
        "CoTracker3, windows of 16",
    ),
    _published("tapir", "teachers.tapir.teacher:TapirTeacher", "TAPIR"),
    _published("bootstapir", "teachers.tapir.teacher:BootsTapirTeacher", "TAPIR, larger"),
    _published(
        "bootstapir-causal", "teachers.tapir.stream:CausalBootsTapirTeacher", "TAPIR, causal"
    ),
    _published(
        "tapnext", "teachers.tapnext.teacher:TapNextTeacher", "TAPNext, frame by frame with a state"
    ),
    _published(
        "bootstapnext",
        "teachers.tapnext.teacher:TapNextTeacher",
        "TAPNext, frame by frame with a state",
    ),
    _published(
        "tapnextpp", "teachers.tapnext.teacher:TapNextTeacher", "TAPNext, trained on 1024 frames"
    ),
    _published(
        "tapnextpp-512",
        "teachers.tapnext.teacher:TapNext512Teacher",
        "TAPNext, trained on 1024 frames, 512 px",
    ),
    _published(
        "cotracker2", "teachers.cotracker.online:CoTracker2Teacher", "CoTracker 2.1, windows of 16"
    ),
    _published("pips", "teachers.pips.teacher:PipsTeacher", "PIPs, chained windows of 8"),
    _published("pips2", "teachers.pips.teacher:Pips2Teacher", "PIPs++"),
    _published("locotrack-base", "teachers.locotrack.teacher:LocoTrackTeacher", "LocoTrack-B"),
    _published(
        "locotrack-small", "teachers.locotrack.teacher:LocoTrackSmallTeacher", "LocoTrack-S"
    ),
    _published(
        "alltracker",
        "teachers.alltracker.teacher:AllTrackerTeacher",
        "AllTracker, dense, windows of 16",
    ),
    _published(
        "alltracker-tiny",
        "teachers.alltracker.teacher:AllTrackerTinyTeacher",
        "AllTracker, dense, windows of 16, small",
    ),
    _own("tapir-mini", "teachers.tapir.teacher:TapirTeacher", "TAPIR, small", shipped=True),
    _own(
        "cotracker3-offline-mini",
        "teachers.cotracker.offline:CoTracker3OfflineTeacher",
        "CoTracker3, one window, small",
        shipped=True,
    ),
    _own(
        "cotracker3-online-mini",
        "teachers.cotracker.online:CoTracker3OnlineTeacher",
        "CoTracker3, windows of 16, small",
        shipped=True,
    ),
)

VERIFIERS: tuple[TeacherEntry, ...] = (
    _published(
        "track-on-r-verifier", "teachers.verifier.verifier:TrackOnVerifier", "Track-On-R's verifier"
    ),
)
"""Networks that judge the tracks of teachers and are not teachers themselves:
`teachers.load_verifier` makes them.

`pull` and `check` know their files. No licence is stated where this file is published, but it
contains the encoder of CoTracker3, so the licence of that applies.
"""


def entries() -> list[TeacherEntry]:
    """Every teacher that can be named: those in the table, then those that installed packages
    register."""
    own = {entry.name: entry for entry in TABLE}
    for point in entry_points(group=ENTRY_POINTS):
        own.setdefault(
            checked_name(point.name),
            TeacherEntry(
                name=point.name,
                factory=point.value,
                architecture=f"from {point.dist.name if point.dist else 'a package'}",
                licence=Teacher.licence,
                weights="see its package",
                own=False,
            ),
        )
    return list(own.values())


def names() -> list[str]:
    """The names of all teachers."""
    return [entry.name for entry in entries()]


def own_name(name: str) -> str:
    """The name that a teacher's tracks are stored under: `name`, or for "module:Class" the class in
    lower case."""
    return checked_name(name.rpartition(":")[2].lower().replace("_", "-") if ":" in name else name)


def entry_of(name: str) -> TeacherEntry:
    """The row of a teacher or verifier; a ConfigError that lists the teachers if there is none."""
    found = {entry.name: entry for entry in entries()}
    for verifier in VERIFIERS:
        if verifier.name == name and name not in found:
            return verifier
    if name not in found:
        raise ConfigError(
            f"no teacher {name!r}: there are {', '.join(found)}; or give 'module:Class' for one of "
            "your own (docs/add-a-teacher.md)."
        )
    return found[name]


def factory_of(name: str) -> Any:
    """The class or function that makes teacher `name`.

    Raises:
        ConfigError: there is no such teacher; no such module, or it needs a package that is not
            installed; or no such name in it. Any other exception inside the module is its author's,
            and passes through.
    """
    return imported(f"teacher {name!r}", name if ":" in name else entry_of(name).factory)


def imported(what: str, place: str) -> Any:
    """The object that "module:Class" in `place` names. An author's own exception passes through.

    Args:
        what: what messages call it.

    Raises:
        ConfigError: `place` is not of that form, or there is nothing of that name.
    """
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise ConfigError(f"{what}: {place!r} is not of the form 'module:Class'.")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what}: cannot import {place!r}: {error}.") from error
    except AttributeError as error:
        if error.name not in attribute.split("."):
            raise
        raise ConfigError(f"{what}: cannot import {place!r}: {error}.") from error


def declared(name: str) -> type[Teacher]:
    """The class of teacher `name`, whose attributes say what it can do; if a function makes it,
    `Teacher` itself, which can only track. Raises the same as `factory_of`."""
    factory = factory_of(name)
    is_teacher = isinstance(factory, type) and issubclass(factory, Teacher)
    return factory if is_teacher else Teacher


@dataclass(frozen=True)
class Licence:
    """The licence of a teacher, as the list of teachers shows it."""

    licence: str
    """The SPDX id, or where to read the licence."""
    commercial_use: bool | None
    """None if that is not known."""


def licence_of(entry: TeacherEntry) -> Licence:
    """The licence of a teacher. A teacher of another package is imported, because its class states
    it; if that fails, there is a warning, and nothing is known."""
    if entry.own:
        return Licence(entry.licence, allows_commercial_use(entry.licence))
    with left_out(entry.name):
        teacher = declared(entry.name)
        if teacher.commercial_use is None:
            return Licence(teacher.licence, allows_commercial_use(teacher.licence))
        return Licence(teacher.licence, teacher.commercial_use)
    return Licence(entry.licence, None)


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    """A context for going through all teachers: one of another package that cannot be imported, or
    whose code fails, is left out with a warning, so that it does not get in the way of the
    others."""
    try:
        yield
    except Exception as error:
        warnings.warn(
            f"teacher {name!r} is left out: {type(error).__name__}: {error}", stacklevel=3
        )
