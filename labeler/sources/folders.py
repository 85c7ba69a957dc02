"""Folders: listing those of the local disk, and counting those that may not be listed."""

from __future__ import annotations

from typing import Any

from fsspec.implementations.local import LocalFileSystem

from labeler.sources import rules
from labeler.sources.rules import Unused


def entries_of(fs: Any, folder: str) -> list[Any]:
    """The entries of a folder, by name; none of one that may not be listed."""
    try:
        return sorted(fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
    except PermissionError:
        return []


class Folders(LocalFileSystem):  # type: ignore[misc]
    """The local disk; counts the folders that may not be listed, which a glob passes over."""

    cachable = False

    def __init__(self, unused: Unused) -> None:
        super().__init__()
        self._unused, self._closed = unused, set[str]()

    def ls(self, path: str, detail: bool = False, **settings: Any) -> Any:
        """The entries of a folder; a PermissionError if it may not be listed."""
        try:
            return super().ls(path, detail, **settings)
        except PermissionError:
            if path not in self._closed:
                self._unused.add(*rules.CLOSED, path)
            self._closed.add(path)
            raise
