"""Scratch folders: temporary, and cleaned up even after a kill -9.

A folder's name holds its machine, because machines may share a disk for temporary files, and the id
of its process; `remove_abandoned` removes those of this machine whose process is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path


def prefix() -> str:
    """What the names of this process's folders begin with."""
    return f"tapdistill-{socket.gethostname()}-{os.getpid()}-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new, empty folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix()) as folder:
        yield Path(folder)


def remove_abandoned() -> None:
    """Remove the scratch folders of processes of this machine that are gone."""
    name = re.compile(rf"tapdistill-{re.escape(socket.gethostname())}-(\d+)-[^-]*")
    for folder in Path(tempfile.gettempdir()).glob("tapdistill-*"):
        owner = name.fullmatch(folder.name)
        if owner and not is_alive(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


def is_full(error: OSError) -> bool:
    """Whether a disk has no room left, or this user none on it: no other try would fare better."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
