"""`tapdistill track`, and what its track files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.cli import run


def track(*arguments: object) -> int:
    return run(["track", *map(str, arguments)])


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
