"""Settings: a value of the wrong kind is refused when a teacher is made, not met in the middle of a
clip.

They come from people: `--setting backward=no` is the text "no", which Python would take for true.
"""

from __future__ import annotations

from numbers import Integral

from teachers.errors import ConfigError


def require_whole(least: int, **settings: object) -> None:
    """A ConfigError, unless each of `settings` is a whole number of at least `least`."""
    for name, value in settings.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} = {value}: must be a whole number, at least {least}.")


def require_switch(**settings: object) -> None:
    """A ConfigError, unless each of `settings` is True or False."""
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} = {value}: must be true or false.")
