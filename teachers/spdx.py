"""SPDX: licences by their SPDX ids, and which of them allow commercial use."""

from __future__ import annotations

COMMERCIAL_USE = {
    "0BSD": True,
    "Apache-2.0": True,
    "BSD-2-Clause": True,
    "BSD-3-Clause": True,
    "BSL-1.0": True,
    "CC-BY-4.0": True,
    "CC-BY-SA-4.0": True,
    "CC0-1.0": True,
    "ISC": True,
    "MIT": True,
    "MIT-0": True,
    "Unlicense": True,
    "Zlib": True,
    "CC-BY-NC-2.0": False,
    "CC-BY-NC-3.0": False,
    "CC-BY-NC-4.0": False,
    "CC-BY-NC-ND-4.0": False,
    "CC-BY-NC-SA-3.0": False,
    "CC-BY-NC-SA-4.0": False,
}
"""Licences that weights are published under. About an id that is not listed, nothing is known."""

FORMER = {
    "Apache-2.0 (OpenCV inside)": "Apache-2.0",
    "CC-BY-NC 4.0": "CC-BY-NC-4.0",
    "CC-BY-NC 4.0 (official weights)": "CC-BY-NC-4.0",
}
"""The texts that version 0.1.0 wrote into shards and checkpoints, and the SPDX id of each."""


def allows_commercial_use(licence: str) -> bool | None:
    """Whether that licence allows commercial use; None if that is not known."""
    return COMMERCIAL_USE.get(licence)
