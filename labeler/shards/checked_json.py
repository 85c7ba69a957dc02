"""Checked JSON: values from somebody's JSON must have the types that their dataclass declares, so
that the code that uses them can rely on it."""

from __future__ import annotations

import functools
import math
import types
import typing
from dataclasses import fields
from typing import Any


def check_types(value: object) -> None:
    """Raise a ValueError if a field of the dataclass instance `value` has another type than
    declared, or is not finite.

    Of a list or a mapping, only the type is checked here; what it contains is checked where that is
    made.
    """
    for name, allowed in _allowed(type(value)).items():  # type: ignore[arg-type]  # mypy takes no class for hashable
        found = getattr(value, name)
        if type(found) not in allowed or (type(found) is float and not math.isfinite(found)):
            raise ValueError(f"{name} is {found!r}")


@functools.cache
def _allowed(kind: Any) -> dict[str, frozenset[type]]:
    """Field -> the types that it may have."""
    hints = typing.get_type_hints(kind)
    return {field.name: frozenset(_types(hints[field.name])) for field in fields(kind)}


def _types(hint: Any) -> set[type]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_types, inner))
    if origin is typing.Literal:
        return {type(one) for one in inner}
    return {float, int} if hint is float else {origin or hint}
