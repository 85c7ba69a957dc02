"""Upload: what a command makes for a URL is made in a local folder first, and then copied there.

with uploaded("s3://bucket/report", folder=True, replaced=("*.html",)) as path:
    ...                                   # makes the folder `path`

A file appears there whole or not at all. If copying fails, or is interrupted, what was made stays
on this machine, and its place is printed.
"""

from __future__ import annotations

import fnmatch
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from labeler.io import Storage
from labeler.io.scratch import scratch_folder
from pipelines.terminal.console import say
from pipelines.terminal.progress import LineThrottle, terminal_bar
from pipelines.wording import counted, data_size
from teachers import ConfigError, TapdistillError


def parent_and_name(url: str) -> tuple[str, str]:
    """The folder in which the file or folder `url` lies, and its name.

    Raises:
        ConfigError: it has no name, as "s3://bucket" has none.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if not name or parent.endswith(("/", ":")):
        raise ConfigError(f"--out {url}: name a file or a folder in it, such as {url}/labels.")
    return parent, name


def there(storage: Storage, patterns: Sequence[str]) -> Iterator[str]:
    """Names of the files in a storage that match one of the patterns, such as "*.npz" or
    "data/*"."""
    for pattern in patterns:
        folder, slash, last = pattern.rpartition("/")
        yield from (f"{folder}{slash}{one}" for one in fnmatch.filter(storage.names(folder), last))


@contextmanager
def uploaded(url: str, *, folder: bool, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """A local path at which a file or a folder is to be made; at the end it is copied to `url`.

    Args:
        folder: whether a folder is made.
        replaced: patterns as in `there`: files in the folder at `url` that are removed unless they
            were made anew.

    Raises:
        TransientError: at once, if nothing can be written there; at the end, if that failed.
    """
    parent, name = (url, "folder") if folder else parent_and_name(url)
    storage = Storage(parent)
    probe = f".{secrets.token_hex(8)}.part"  # an export of hours should not end with a refusal
    storage.replace(probe, b"")
    storage.remove(probe)
    with scratch_folder() as scratch:
        path = scratch / name
        yield path
        try:
            made = _send(path, storage)
            for old in sorted(set(there(storage, replaced)) - made):
                storage.remove(old)
        except (TapdistillError, KeyboardInterrupt):
            kept = Path(tempfile.mkdtemp(prefix="tapdistill-not-sent-")) / name
            shutil.move(path, kept)
            say(f"what was to be written is complete in {kept}")
            raise


def _send(path: Path, storage: Storage) -> set[str]:
    """Copy a file, or the files of a folder, those in folders within it first, and say how far it
    is. Returns their names there."""
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    base = path if path.is_dir() else path.parent
    files.sort(key=lambda one: (-len(one.parts), one))
    total, lines, sent, begun = sum(one.stat().st_size for one in files), LineThrottle(), 0, 0
    bar = terminal_bar(
        TextColumn("copying to {task.fields[url]}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with bar:
        task = bar.add_task("", total=total, url=storage.url)

        def told(size: int) -> None:
            nonlocal sent
            sent += size
            bar.update(task, completed=sent)
            if lines.due():
                say(f"copying to {storage.url}: {data_size(sent)} of {data_size(total)}")

        for file in files:
            storage.publish(file, file.relative_to(base).as_posix(), told)
            begun += file.stat().st_size
            told(begun - sent)
    say(
        f"copied {counted(len(files), 'file')}, {data_size(total)}, to {storage.url} in "
        f"{time.monotonic() - started:.0f} s"
    )
    return {file.relative_to(base).as_posix() for file in files}
