"""A package that another one has installed, as far as entry points go."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, entry_points: str) -> None:
    """As if a package with these entry points of that group were installed in the folder."""
    installed = folder / "another-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    monkeypatch.syspath_prepend(folder)
