"""Parameters of a test that belong to the slow suite, beside those that every run takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def fast_where(is_fast: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """All of them, in their order; those for which `is_fast` says no are marked slow."""
    return [value if is_fast(value) else slow(value)[0] for value in values]
