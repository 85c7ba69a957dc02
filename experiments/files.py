"""Files of experiments: written whole or not at all, also by several processes at once."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labeler.io import Storage
from teachers import ConfigError


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing, whenever the process is killed; the folder is made."""
    Storage(str(path.parent)).replace(path.name, content)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """`write_whole` of arrays, as `numpy.load` reads them."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())


def freeze(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of what its folder holds.

    Raises:
        ConfigError: the folder holds something of other settings.
    """
    now = json.loads(json.dumps(settings))
    if not file.exists():
        write_whole(file, json.dumps(now, indent=1).encode())
        return
    then = json.loads(file.read_text())
    for name in now:
        if now[name] != then.get(name):
            raise ConfigError(
                f"{file.parent} holds what was made with {name} = {then.get(name)}, not "
                f"{now[name]}: give another --out."
            )
