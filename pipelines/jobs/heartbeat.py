"""Heartbeat: a running job says in its data set that it lives, for `tapdistill status` on another
machine.

    jobs/<host>-<random>.json    the last `Snapshot`, written again every half minute, and once when
                              the job ends

It is news, not truth: what is done stands in the commit records, and a job that cannot write its
heartbeat works on.
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
"""A job that said nothing for so long, and did not say that it ended, is dead, or its machine
is."""


class Heartbeat:
    """Takes the snapshots of a job: each to the metrics file, one in half a minute to the data
    set."""

    def __init__(self, storage: Storage, metrics: Path | None = None) -> None:
        self._storage, self._metrics = storage, metrics
        self._beat = 0.0
        self._id = secrets.token_hex(6)  # containers of a host may share process ids
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
            # a full disk stops no job for its news
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
    """The last word of every job that worked on the data set, the latest first; damaged ones are
    left out."""
    found = []
    for name in storage.names(FOLDER):
        try:
            found.append(Snapshot.from_json(storage.read(f"{FOLDER}/{name}")))
        except (ValueError, TypeError, TapdistillError):
            continue
    return sorted(found, key=lambda snapshot: snapshot.now, reverse=True)


def is_silent(snapshot: Snapshot, now: float) -> bool:
    """True for a job that neither ended nor said a word for `SILENT_S`."""
    return not snapshot.ended and now - snapshot.now > SILENT_S
