"""Clock: the time by the storage's clock, for comparing ages of files that any machine may have
written; another machine's clock may be hours away."""

from __future__ import annotations

import secrets

from labeler.io import Storage
from labeler.io.storage import PART


def storage_time(storage: Storage) -> float:
    """Seconds since 1970, as `storage.modified` tells of a file that is written now.

    The file is removed again. Should a killed process leave it, it counts as half-written, and
    `gc` removes it. A TransientError where nothing can be written.
    """
    probe = f"shards/.clock@{secrets.token_hex(8)}{PART}"
    try:
        storage.replace(probe, b"now")
        return storage.modified(probe)
    finally:
        storage.remove(probe)
