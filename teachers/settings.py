"""Settings of teachers: overriding those of a mode, and checking their values.

Settings come from people, so one of the wrong kind is refused when a teacher is made, not in the
middle of a clip.
"""

from __future__ import annotations

from dataclasses import fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

from teachers.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    ModeSettings = TypeVar("ModeSettings", bound=DataclassInstance)


def overridden(mode_settings: ModeSettings, given: object) -> ModeSettings:
    """`mode_settings`, with each field replaced that is also an attribute of `given` and not None
    there."""
    values = {field.name: getattr(given, field.name, None) for field in fields(mode_settings)}
    return replace(
        mode_settings, **{name: value for name, value in values.items() if value is not None}
    )


def require_whole(least: int, **settings: object) -> None:
    """A ConfigError, unless each of `settings` is a whole number of at least `least`."""
    for name, value in settings.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} = {value}: must be a whole number, at least {least}.")


def checked_size(name: str, value: Any) -> tuple[int, int]:
    """`value` as height and width in px; a ConfigError if it is not two whole numbers above 0."""
    try:
        height, width = (int(side) for side in value)
    except (TypeError, ValueError):
        height, width = 0, 0
    if height < 1 or width < 1:
        raise ConfigError(f"{name} = {value!r}: write height and width in px, such as [384, 512].")
    return height, width


def require_switch(**settings: object) -> None:
    """A ConfigError, unless each of `settings` is True or False: `--setting backward=no` is the
    text "no", which Python would take for true."""
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} = {value}: must be true or false.")
