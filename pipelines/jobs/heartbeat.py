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
from pathlib import Path

from labeler.io import Storage
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
            except OSError as error:
                raise ConfigError(
                    f"--metrics {metrics}: cannot be written: {error.strerror}."
                ) from error

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


def jobs(storage: Storage) -> list[Snapshot]:
    """The last report of every job that has worked on the data set, the latest first; damaged ones
    are left out."""
    found = []
    for name in storage.names(FOLDER):
        try:
            found.append(Snapshot.from_json(storage.read(f"{FOLDER}/{name}")))
        except (ValueError, TypeError, TapdistillError):
            continue
    return sorted(found, key=lambda snapshot: snapshot.now, reverse=True)


def is_silent(snapshot: Snapshot, now: float) -> bool:
    """True for a job that has neither ended nor reported anything for `SILENT_S`."""
    return not snapshot.ended and now - snapshot.now > SILENT_S
