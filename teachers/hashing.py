"""Hashing: the sha256 of a file, wherever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO


def file_sha256(file: str | Path | BinaryIO) -> str:
    """sha256 of a file's bytes, as 64 hex digits; for an opened file, from its current position
    on."""
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            return file_sha256(opened)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
