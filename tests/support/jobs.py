"""Small labelling jobs: videos that move, a config that is quick, and what a job left behind."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

from benchmarks.harness.jobs import tars

ROOT = Path(__file__).parents[2]
FAR, SLOW = (f"tests.support.stub_teachers:{name}" for name in ("Far", "Slow"))


def findings(out: Path | str) -> list[str]:
    """What `verify` finds in a data set, in words; empty where all is well."""
    from labeler.io.storage import Storage
    from labeler.shards.verify import verify

    return [f"{finding.file}: {finding.problem}" for finding in verify(Storage(str(out)))]


def differences(there: Path | str, here: Path | str) -> list[str]:
    """Members that are not the same in two data sets, by unit: empty for equal samples, whatever
    the revision."""
    found: list[str] = []
    for unit, (a, b) in enumerate(zip_longest(contents(there), contents(here), fillvalue=b"")):
        if a != b:
            old, new = (dict(flat(tar)) for tar in (a, b))
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            found.append(f"unit {unit}: {names or 'the tar itself'}")
    return found


def flat(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every member."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]


def contents(out: Path | str) -> list[bytes]:
    """The bytes of the tars alone, by unit: equal for equal samples, whatever the revision."""
    return [data for _, data in sorted(tars(out).items())]


def wait_for(happened: Callable[[], bool], driver: subprocess.Popen) -> None:
    """Wait until it happened, or the driver ended."""
    while driver.poll() is None and not happened():
        time.sleep(0.02)
