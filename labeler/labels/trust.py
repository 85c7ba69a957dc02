"""Trust: from which probability on the verifier is believed."""

from __future__ import annotations

from dataclasses import dataclass

from teachers import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrustConfig:
    """When the verifier is believed. Applied to the stored probabilities, so nothing is judged
    again."""

    min_right: float = 0.8
    """A position is a label from this probability on; higher gives fewer and better labels."""
    min_hidden: float = 0.9
    """A point counts as hidden from this probability on."""

    def __post_init__(self) -> None:
        for name in ("min_right", "min_hidden"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: a probability in (0, 1]; the defaults are "
                    f"{TrustConfig.min_right:g} for a position, {TrustConfig.min_hidden:g} for "
                    "hidden."
                )
