"""Filters: which videos are wanted, by the words of their metadata.

CoTracker3 chose its training videos by the words of their captions: those about people, animals,
and things that move. A video that a filter leaves out is in the plan with the reason, is never
opened, and is counted as left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from labeler.sources.listing import Source
from teachers import ConfigError


@dataclass(frozen=True, kw_only=True)
class WordFilter:
    """Which videos are wanted, by whole words of their metadata, ignoring case."""

    need: tuple[str, ...] = ()
    """A video is left out unless it has one of these words; without any, no word is needed."""

    refuse: tuple[str, ...] = ()
    """A video with one of these words is left out."""

    columns: tuple[str, ...] = ()
    """Columns of the metadata that are searched; none: all."""

    def __post_init__(self) -> None:
        if self.columns and not (self.need or self.refuse):
            raise ConfigError("words.columns without words: give words.need or words.refuse.")
        if not all(word.strip() for word in (*self.need, *self.refuse)):
            raise ConfigError(
                "words.need and words.refuse: an empty word is in every text; leave it out."
            )

    def why_not(self, source: Source) -> str:
        """Why `source` is left out; "" if it is wanted."""
        if not (self.need or self.refuse):
            return ""
        metadata = json.loads(source.metadata) if source.metadata else {}
        text = " ".join(
            str(value)
            for name, value in metadata.items()
            if name in self.columns or not self.columns
        )
        refused = next((word for word in self.refuse if _has(text, word)), None)
        if refused:
            return f"its metadata has the word {refused!r}"
        if self.need and not any(_has(text, word) for word in self.need):
            return f"its metadata has none of the words {', '.join(self.need)}"
        return ""


def _has(text: str, word: str) -> bool:
    return (
        re.search(rf"(?<!\w){re.escape(word.strip().casefold())}(?!\w)", text.casefold())
        is not None
    )
