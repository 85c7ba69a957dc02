"""`tapdistill inspect` on the labels in a folder, and a name that tries everything."""

from __future__ import annotations

from pathlib import Path

from pipelines import cli

HOSTILE = "<img src=x onerror=alert(1)> \"' \u202e"
"""With a mark that turns round the text behind it, where it is not replaced."""


def inspect(folder: Path, *flags: object) -> int:
    """The exit code, for the data set `labels` in the folder."""
    return cli.run(["inspect", str(folder / "labels"), *map(str, flags)])
