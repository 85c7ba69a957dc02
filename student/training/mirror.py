"""Mirror: a training whose `--out` is a URL works in a local folder, which this module copies
there.

    fetch   before the first step: the newest checkpoint, and the exported weights
    send    after each checkpoint: every file that is new or has changed; then what was removed here
            is removed there

A killed run loses nothing that a checkpoint had saved. Rank 0 alone does either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from labeler.io.scratch import scratch_folder
from labeler.io.storage import Storage
from student.training.checkpoint import FOLDER, checkpoints_in


class Mirror:
    """A local folder that stands in for a URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._storage = Storage(url)
        self.url = self._storage.url.rstrip("/")
        self._sent: dict[str, tuple[int, int]] = {}
        """By name, time and size of each file as it is at the URL."""
        self._older: list[str] = []
        """Checkpoints that exist only at the URL, until newer ones are removed."""

    def fetch(self) -> None:
        """Copy what a run needs in order to continue.

        Raises:
            TransientError: the storage does not answer.
        """
        checkpoints = [f"{FOLDER}/{name}" for name in checkpoints_in(self._storage)]
        exported = [name for name in self._storage.names() if name.endswith(".safetensors")]
        for name in checkpoints[-1:] + exported:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._storage.read(name))
            self._sent[name] = _state(path)
        self._older = checkpoints[:-1]

    def send(self) -> None:
        """Copy what is new, then remove what is gone.

        Raises:
            TransientError: the storage does not answer; what it had stays.
        """
        here = {
            path.relative_to(self.folder).as_posix(): _state(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        for name, state in here.items():
            if self._sent.get(name) != state:
                self._storage.publish(self.folder / name, name)
                self._sent[name] = state
        gone = [name for name in self._sent if name not in here]
        for name in gone + (self._older if gone else []):
            self._storage.remove(name)
            self._sent.pop(name, None)
        if gone:
            self._older = []


@contextlib.contextmanager
def mirror(url: str, first: bool) -> Iterator[Mirror]:
    """A mirror in a scratch folder, which is removed at the end. Ranks other than the first get an
    empty folder of their own, which they do not use."""
    with scratch_folder() as folder:
        copy = Mirror(url, folder)
        if first:
            (folder / FOLDER).mkdir(exist_ok=True)
        yield copy


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size
