"""Scratch folders: temporary folders that are cleaned up even after a kill -9.

A process that makes scratch folders holds a lock on a file beside them, `tapdistill-<random>.lock`,
which the kernel releases when the process ends, however it ends. So whoever can take the lock may
remove the folders of that name. Host names and process ids would not do: containers may share both.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from teachers.errors import ConfigError, FullStorageError

LOCK = ".lock"
_prefixes: dict[tuple[str, int], tuple[str, int]] = {}
"""(folder for temporary files, process id) -> prefix of this process there, and its locked file. A
forked process holds its own lock."""


class FullScratchError(FullStorageError):
    """The disk of this machine's temporary files is full, or read-only; that of another machine
    may have room."""


def prefix() -> str:
    """The prefix of the names of this process's folders.

    Raises:
        ConfigError: nothing can be written where temporary files go.
    """
    where = _folder_for_temporary_files()
    key = where, os.getpid()
    if key not in _prefixes or not Path(where, f"{_prefixes[key][0][:-1]}{LOCK}").exists():
        while True:
            name = f"tapdistill-{secrets.token_hex(6)}"
            descriptor = _locked(Path(where, f"{name}{LOCK}"))
            if descriptor is not None:
                break
        _prefixes[key] = f"{name}-", descriptor
        atexit.register(_remove_lock, Path(where, f"{name}{LOCK}"), os.getpid())
    return _prefixes[key][0]


def _remove_lock(path: Path, pid: int) -> None:
    """Remove the lock file at the end of the process that made it, not of one forked from it. It
    stays if a folder of the process does: by it, another process knows that it may remove both."""
    if os.getpid() == pid and not _folders_of(path):
        path.unlink(missing_ok=True)


def _folders_of(lock: Path) -> list[Path]:
    """The scratch folders of the process that holds, or held, a lock file."""
    return list(lock.parent.glob(f"{lock.name.removesuffix(LOCK)}-*"))


def _folder_for_temporary_files() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no folder for temporary files that can be written ({error.strerror}): set "
            "TMPDIR to one."
        ) from error


def _locked(path: Path) -> int | None:
    """A new, locked file at `path`; None if another process took it at the same moment."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        if is_full(error) and error.errno != errno.EROFS:
            raise
        raise ConfigError(
            f"no temporary file can be written in {path.parent} ({error.strerror}): set TMPDIR to "
            "a folder that this user may write in."
        ) from error
    if try_lock(descriptor) is not False and _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file. Returns whether this process has locked it; None if the disk does not
    support locks. The lock is released when the file is closed, at the latest by the kernel."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def is_abandoned(path: Path) -> bool:
    """Whether the owner of a locked file is gone. False if the disk does not support locks, or the
    file may not be opened."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is True and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new, empty folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix()) as folder:
        yield Path(folder)


def remove_abandoned() -> None:
    """Remove the scratch folders whose processes are gone. What cannot be removed keeps its lock
    file, and is tried again by the next call."""
    where = Path(_folder_for_temporary_files())
    for lock in where.glob(f"tapdistill-*{LOCK}"):
        if not is_abandoned(lock):
            continue
        for folder in _folders_of(lock):
            shutil.rmtree(folder, ignore_errors=True)
        if not _folders_of(lock):
            with contextlib.suppress(OSError):
                lock.unlink()


def is_full(error: OSError) -> bool:
    """Whether the error says that a disk is full, or this user's quota on it, or that the disk is
    read-only: another try would fare no better."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
