"""Settings of the classical trackers: numbers above 0, some of them whole, some correlations."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

from teachers.errors import ConfigError
from teachers.settings import require_whole


@dataclass(frozen=True, kw_only=True)
class ClassicalSettings:
    """Base of such settings. One that is not above 0 is a ConfigError; so are a fraction where
    whole numbers count, and a correlation that is not below 1."""

    correlations: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that are correlations."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if kinds[name] is int:
                require_whole(1, **{name: value})
            elif not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(f"{name} = {value}: must be above 0.")
            if name in self.correlations and not value < 1:
                raise ConfigError(f"{name} = {value}: must be in (0, 1), as correlations are.")
