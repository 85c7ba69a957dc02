"""Licences: what those of the teachers say about the labels that they made, in a line.

Labels are made with the weights, so the narrowest licence among the teachers is the one to think
about (docs/teachers.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

NON_COMMERCIAL = re.compile(r"\bNC\b", re.IGNORECASE)
PERMISSIVE = re.compile(r"(Apache|MIT|BSD|CC0|CC-BY [0-9])", re.IGNORECASE)


def commercial_use(licences: Mapping[str, str]) -> str:
    """Which combinations of teachers are free for commercial use, in a sentence; from licences by
    name."""
    forbid = [name for name, licence in licences.items() if NON_COMMERCIAL.search(licence)]
    free = [
        name
        for name, licence in licences.items()
        if PERMISSIVE.match(licence) and name not in forbid
    ]
    unknown = [name for name in licences if name not in forbid and name not in free]
    parts = [
        f"labels of {_and(free)}, in any combination, are not restricted by their licences"
        if free
        else "",
        f"any of {_and(forbid)} among the teachers forbids it" if forbid else "",
        f"of {_and(unknown)} read the licence" if unknown else "",
    ]
    return f"Commercial use: {'; '.join(part for part in parts if part)}."


def licence_note(teachers: Mapping[str, Mapping[str, Any]]) -> str:
    """Each teacher's licence, and whether commercial use is free; the videos are another question.

    Args:
        teachers: `TeacherInfo` as JSON, by name.
    """
    licences = {name: str(info["licence"]) for name, info in sorted(teachers.items())}
    forbid = [name for name, licence in licences.items() if NON_COMMERCIAL.search(licence)]
    unknown = [name for name, licence in licences.items() if not PERMISSIVE.match(licence)]
    if not licences:
        return "no teacher yet"
    if forbid:
        verdict = f"no commercial use of these labels, because of {_and(forbid)}"
    elif unknown:
        verdict = f"whether commercial use is free depends on {_and(unknown)}"
    else:
        verdict = "commercial use is not restricted by them"
    of = {
        licence: [name for name in licences if licences[name] == licence]
        for licence in licences.values()
    }
    each = "; ".join(f"{licence} ({_and(names)})" for licence, names in of.items())
    return f"{each}: {verdict}"


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
