"""Settings of the classical trackers: numbers above 0, some of which are correlations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from teachers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClassicalSettings:
    """Base of such settings. One that is not above 0 is a ConfigError; so is a correlation that is
    not below 1."""

    correlations: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that are correlations."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ConfigError(f"{name} = {value}: must be above 0.")
            if name in self.correlations and not value < 1:
                raise ConfigError(f"{name} = {value}: must be in (0, 1), as correlations are.")
