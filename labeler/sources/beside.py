"""Beside: the metadata files that lie beside local videos which are named one by one, in a list, by
a glob, or alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from os.path import isdir
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from labeler.sources import rules
from labeler.sources.metadata import from_members, to_metadata
from labeler.sources.rules import TagsOnly, Unused
from labeler.sources.table import Source


class Beside:
    """The metadata files beside local videos that are named one by one; each folder is listed
    once."""

    def __init__(self, unused: Unused) -> None:
        self._unused = unused
        self._folders: dict[str, dict[str, list[str]]] = {}
        """Folder -> name of a video in it -> names of its metadata files, the most exact last."""

    def of(self, source: Source) -> Source:
        """The source with what the files beside it say; as it is if it is a member of a tar, or a
        folder."""
        if source.offset is not None or source.uri.endswith("/"):
            return source
        return replace(source, metadata=self.also(source.uri, source.metadata))

    def also(self, path: str, metadata: str) -> str:
        """What the files beside the video say, and over it what the list says: `metadata`."""
        if isinstance(self._unused, TagsOnly):
            return metadata
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._of(folder)
        said = []
        for beside in self._folders[folder].get(name, ()):
            try:
                said.append((beside, read_small(LocalFileSystem(), f"{folder}/{beside}")))
            except (OSError, ValueError):
                self._unused.add(*rules.CLOSED_FILE, f"{folder}/{beside}")
        if not said:
            return metadata
        listed = json.loads(metadata) if metadata else {}

        def broken(beside: str) -> None:
            self._unused.add(*rules.NO_JSON, f"{folder}/{beside}")

        return to_metadata({**json.loads(from_members(said, broken) or "{}"), **listed})

    @staticmethod
    def _of(folder: str) -> dict[str, list[str]]:
        try:
            with os.scandir(folder) as entries:
                sizes = {one.name: _size(one.path) for one in entries if not isdir(one.path)}
        except (OSError, ValueError):  # the row of the video says so
            return {}
        return {
            video.name: [name for name, _ in video.metadata]
            for video in rules.sorted_out(sizes, Unused(), lambda size: size)
            if video.metadata
        }


def read_small(fs: Any, path: str) -> bytes:
    """A metadata file; a FileNotFoundError for what is no file, such as a link to a pipe."""
    if isinstance(fs, LocalFileSystem) and not os.path.isfile(path):
        raise FileNotFoundError(path)
    with fs.open(path, "rb") as opened:
        return opened.read(rules.MAX_METADATA_BYTES)


def _size(path: str) -> int:
    """Bytes of a file; 0 for a link to nowhere."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
