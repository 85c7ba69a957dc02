"""Licences: what the licences of teachers mean for the labels made with them, in one line.

Labels are made with the weights, so the narrowest licence among the teachers is the one that
matters (docs/teachers.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from teachers.info import TeacherInfo
from teachers.published import NOT_STATED

NOT_CONFIRMED = "not confirmed"
"""What people read where files have `NOT_STATED`."""
EXPLAINED = (
    f"{NOT_CONFIRMED}: we know of no statement by the authors of the weights; read their page "
    "before you use them."
)


def in_words(licence: str) -> str:
    """An SPDX id as tables and messages show it: `NOT_STATED` says nothing to most people."""
    return NOT_CONFIRMED if licence == NOT_STATED else licence


def commercial_use(allowed: Mapping[str, bool | None]) -> str:
    """Which combinations of teachers are free for commercial use, in a sentence.

    Args:
        allowed: by the name of a teacher, whether its licence allows it; None if that is not known.
    """
    free, forbid, unknown = (_named(allowed, value) for value in (True, False, None))
    parts = [
        f"labels of {_and(free)}, in any combination, are not restricted by their licences"
        if free
        else "",
        f"any of {_and(forbid)} among the teachers forbids it" if forbid else "",
        f"of {_and(unknown)} it is not known: read the licence" if unknown else "",
    ]
    return f"Commercial use: {'; '.join(part for part in parts if part)}."


def licence_note(teachers: Mapping[str, Mapping[str, Any]]) -> str:
    """Each teacher's licence, and whether commercial use is free; the licences of the videos are
    another question.

    Args:
        teachers: `TeacherInfo` as JSON, by name.
    """
    infos = {name: TeacherInfo.from_json(stored) for name, stored in sorted(teachers.items())}
    if not infos:
        return "no teacher yet"
    allowed = {name: info.commercial_use for name, info in infos.items()}
    forbid, unknown = _named(allowed, False), _named(allowed, None)
    if forbid:
        verdict = f"no commercial use of these labels, because of {_and(forbid)}"
    elif unknown:
        verdict = f"whether commercial use is free depends on {_and(unknown)}"
    else:
        verdict = "commercial use is not restricted by them"
    of = {
        info.licence: [name for name in infos if infos[name].licence == info.licence]
        for info in infos.values()
    }
    each = "; ".join(f"{in_words(licence)} ({_and(names)})" for licence, names in of.items())
    return f"{each}: {verdict}"


def _named(allowed: Mapping[str, bool | None], value: bool | None) -> list[str]:
    return [name for name, answer in allowed.items() if answer is value]


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
