"""tapdistill doctor: what is installed, what works here, and what is wrong with it.

Every check does the real thing on something small: each decoder decodes a clip, a file is written
where files will be written, a Ray task runs, and an object is written to the storage and read back.
The output is what a bug report needs, and contains no credentials.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Literal

import tyro
from packaging.requirements import Requirement

from pipelines.engines.cpus import usable_cpus
from pipelines.terminal.console import console, say
from teachers import TapdistillError, entries
from teachers.checkpoints.cache import cached_checkpoint, weights_folder

State = Literal["ok", "note", "PROBLEM"]
LEAST_FREE_GIB = 2.0
"""If there is less room than this for temporary files, a note says so: decoded clips and copies of
videos go there."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check this installation, and say what is wrong with it; exit code 1 if something is."""

    ray_address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Address of a Ray cluster to try; without it, Ray is started on this machine."""
    ray: Annotated[
        bool,
        tyro.conf.arg(
            help="Do not try Ray; you may not want to start it on a login node.",
            help_behavior_hint="",
        ),
    ] = True
    """Try Ray."""
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """A folder or fsspec URL, such as s3://bucket/folder: a small file is written there, listed,
    read, and removed."""


@dataclass(frozen=True)
class Checkup:
    """What one check found."""

    about: str
    text: str
    state: State = "ok"


def run(config: DoctorConfig) -> int:
    """Print what every check found; 1 if one found a problem."""
    problems = 0
    with console.status("checking"):
        for found in checks(config):
            problems += found.state == "PROBLEM"
            say(f"{found.state:<8} {found.about:<12} {found.text}")
    say("nothing is wrong." if not problems else f"problems: {problems}, see above.")
    return 1 if problems else 0


def checks(config: DoctorConfig) -> Iterator[Checkup]:
    """What every check found, in the order in which it is printed."""
    yield from _machine()
    yield from _packages()
    yield from _devices()
    yield from _decoders()
    yield from _folders()
    yield from _weights()
    if config.ray:
        yield _tried("Ray", lambda: _ray(config.ray_address))
    if config.storage is not None:
        url = config.storage
        yield _tried("storage", lambda: _storage(url))


def _tried(about: str, check: Callable[[], str]) -> Checkup:
    """What a check says, or the problem that it raised. Any exception counts, because whatever goes
    wrong is what the command was called for."""
    try:
        return Checkup(about, check())
    except TapdistillError as error:
        return Checkup(about, str(error), "PROBLEM")
    except Exception as error:
        return Checkup(about, f"{type(error).__name__}: {error}", "PROBLEM")


def _machine() -> Iterator[Checkup]:
    yield Checkup(
        "tapdistill",
        f"{version('tapdistill')}, Python {platform.python_version()} at {sys.executable}",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Checkup(
        "machine",
        f"{platform.system()} {platform.release()} {platform.machine()}, {usable_cpus()} CPUs for "
        f"this process, {memory:.0f} GiB of memory",
    )


def _packages() -> Iterator[Checkup]:
    """The versions of the packages that this one needs, and those that its requirements rule
    out."""
    found, wrong = [], []
    for line in requires("tapdistill") or ():
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            here = version(need.name)
        except PackageNotFoundError:
            wrong.append(f"{need} is not installed")
            continue
        found.append(f"{need.name} {here}")
        if not need.specifier.contains(here, prereleases=True):
            wrong.append(f"{need.name} {here} is here, and {need} is needed")
    yield Checkup("packages", ", ".join(found))
    for text in wrong:
        yield Checkup("packages", f"{text}: pip install {text.split()[0]!r}", "PROBLEM")


def _devices() -> Iterator[Checkup]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "torch is a CPU build" if built is None else f"torch is built for CUDA {built}"
        yield Checkup("GPU", f"none; {why}", "note")
        return
    for index in range(torch.cuda.device_count()):
        yield _tried("GPU", partial(_gpu, index))


def _gpu(index: int) -> str:
    """Multiply on the GPU, and say what it is."""
    import torch

    ones = torch.ones(64, 64, device=f"cuda:{index}")
    if float((ones @ ones).sum()) != 64**3:
        raise TapdistillError(f"GPU {index} multiplies wrongly.")
    properties = torch.cuda.get_device_properties(index)
    return (
        f"{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA "
        f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    )


def _decoders() -> Iterator[Checkup]:
    """For each decoder, the check with which a labelling job begins."""
    from labeler.video.check import check_decoding
    from labeler.video.decode import Decoder

    def decoded(decoder: Decoder) -> str:
        check_decoding(decoder)
        return "reads the clip that comes with it, and what the H.264 encoder writes"

    yield _tried("PyAV", partial(decoded, "pyav"))
    yield _tried("decord", partial(decoded, "decord"))


def _folders() -> Iterator[Checkup]:
    yield _tried("temporary", lambda: _writable(Path(tempfile.gettempdir())))
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    if free < LEAST_FREE_GIB:
        yield Checkup(
            "temporary",
            f"only {free:.1f} GiB are free: set TMPDIR to a folder with more room",
            "note",
        )
    yield _tried("weights", lambda: _writable(weights_folder()))


def _writable(folder: Path) -> str:
    """Write a file there, making the folder if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"tapdistill")
            file.flush()
    except OSError as error:
        raise TapdistillError(
            f"{folder} cannot be written: {error.strerror}. Set TMPDIR for temporary files, and "
            "TAPDISTILL_HOME for weights."
        ) from error
    return f"{folder}, {shutil.disk_usage(folder).free / 2**30:,.1f} GiB free"


def _weights() -> Iterator[Checkup]:
    here = [
        entry.name
        for entry in entries()
        if entry.shipped or entry.weights == "none needed" or cached_checkpoint(entry.name)
    ]
    yield Checkup("teachers", f"ready to use: {', '.join(here)}")


def _ray(address: str | None) -> str:
    """Run a task on the cluster, or with Ray on this machine."""
    import ray

    from pipelines.engines.ray import connected

    with connected(address, workers=1):
        node: str = ray.get(ray.remote(num_cpus=0)(platform.node).remote())
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return (
        f"{ray.__version__}: a task ran on {node}; {total.get('CPU', 0):.0f} CPUs and "
        f"{total.get('GPU', 0):.0f} GPUs in all"
    )


def _storage(url: str) -> str:
    """Write a file there once; list, read, and remove it."""
    from labeler.io import Storage

    storage, name = Storage(url), f"tapdistill-doctor-{uuid.uuid4().hex}"
    data = os.urandom(1000)
    written = storage.create(name, data)
    try:
        if not written or storage.create(name, b"another"):
            raise TapdistillError(
                f"{url}: two writers of one name would both believe that it is theirs; labelling "
                "jobs need a storage on which only the first succeeds."
            )
        if name not in storage.names() or storage.read(name) != data:
            raise TapdistillError(f"{url}: what was written does not come back.")
    finally:
        storage.remove(name)
    return f"{url}: written, listed, read, and removed; a second writer of a name is refused"
