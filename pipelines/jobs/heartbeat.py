"""Heartbeat: a running job reports in its data set that it is alive, for `tapdistill status` on
another machine.

    jobs/<host>-<random>.json    the last `Snapshot`, written again every half minute, and once when
                                 the job ends

Nothing depends on it: what is done is in the commit records, and a job that cannot write its
heartbeat keeps working.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from labeler.io import Storage
from labeler.io.storage import PART
from labeler.shards.clock import storage_time
from pipelines.jobs.progress import Snapshot
from teachers import ConfigError, TapdistillError

FOLDER = "jobs"
EVERY_S = 30.0
SILENT_S = 300.0
"""A job that has reported nothing for this long, and has not reported its end, is dead, or its
machine is."""


class Heartbeat:
    """Receives the snapshots of a job: writes each to the metrics file, and one every half minute
    to the data set."""

    def __init__(self, storage: Storage, metrics: Path | None = None) -> None:
        self._storage, self._metrics = storage, metrics
        self._beat = 0.0
        self._id = secrets.token_hex(6)  # containers on a host may share process ids
        if metrics is not None:
            try:
                metrics.parent.mkdir(parents=True, exist_ok=True)
                metrics.open("a").close()
                begun = b""
                if metrics.is_file():  # nothing comes out of a pipe
                    with metrics.open("rb") as file:
                        begun = file.read(1)
            except OSError as error:
                raise ConfigError(
                    f"--metrics {metrics}: cannot be written: {error.strerror}."
                ) from error
            if begun not in (b"", b"{"):
                raise ConfigError(
                    f"--metrics {metrics}: is another file, no lines of JSON. Name a new one."
                )

    def __call__(self, snapshot: Snapshot) -> None:
        if self._metrics is not None:
            # a job does not stop because its metrics cannot be written
            with contextlib.suppress(OSError), self._metrics.open("a") as file:
                file.write(snapshot.to_json() + "\n")
        if snapshot.ended or time.monotonic() - self._beat >= EVERY_S:
            self._beat = time.monotonic()
            try:
                self._storage.replace(
                    f"{FOLDER}/{snapshot.host}-{self._id}.json", snapshot.to_json().encode()
                )
            except TapdistillError:
                return  # the job's own reads and writes will say what is wrong with the storage


@dataclass(frozen=True)
class Heard:
    """The last report of a job."""

    snapshot: Snapshot
    ago_s: float
    """How long ago it was written, by the clock of the storage: the job's machine and this one may
    be hours apart."""

    @property
    def is_silent(self) -> bool:
        """True for a job that has neither ended nor reported anything for `SILENT_S`."""
        return not self.snapshot.ended and self.ago_s > SILENT_S

    @property
    def is_at_work(self) -> bool:
        return not self.snapshot.ended and not self.is_silent


def jobs(storage: Storage) -> list[Heard]:
    """The last report of every job that has worked on the data set, the latest first; damaged ones
    are left out."""
    written = storage.names(FOLDER)
    names = [f"{FOLDER}/{name}" for name in written if not name.endswith(PART)]
    now = _time_of(storage) if names else 0.0
    found = []
    for name in names:
        try:
            snapshot = Snapshot.from_json(storage.read(name))
            found.append(Heard(snapshot, max(now - _written(storage, name, snapshot), 0.0)))
        except (ValueError, TypeError, TapdistillError):
            continue
    return sorted(found, key=lambda heard: heard.ago_s)


def _time_of(storage: Storage) -> float:
    """The storage's time; this machine's, where nothing can be written."""
    try:
        return storage_time(storage)
    except (TapdistillError, NotImplementedError, ValueError):
        return time.time()


def _written(storage: Storage, name: str, snapshot: Snapshot) -> float:
    """When a report was written; as its machine says, where the storage does not know."""
    try:
        return storage.modified(name)
    except NotImplementedError:
        return snapshot.now
