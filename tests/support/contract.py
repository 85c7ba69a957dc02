"""The contract suite over a teacher of one's own choice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.jobs import ROOT


def run_contract(
    teacher: str, *options: str, checkpoint: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it as a process of its own, as documented for other packages."""
    environment = {**os.environ, "TAPDISTILL_CONTRACT": teacher}
    if checkpoint is not None:
        environment["TAPDISTILL_CONTRACT_CHECKPOINT"] = str(checkpoint)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, "tests/teachers/test_contract.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
