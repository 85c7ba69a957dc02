"""When the next line of progress is due, and time spans in words."""

from __future__ import annotations

import time

from pipelines.terminal.console import console

LINE_EVERY_S = 10.0


class Lines:
    """When the next line is due, where no terminal shows a bar."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def due(self) -> bool:
        """True every ten seconds; never in a terminal."""
        if console.is_terminal or time.monotonic() - self._said <= LINE_EVERY_S:
            return False
        self._said = time.monotonic()
        return True

    def soon(self) -> None:
        """Bring the next line forward: something happened."""
        self._said = min(self._said, time.monotonic() - LINE_EVERY_S / 2)


def duration(seconds: float) -> str:
    """A time span in words: "45 s", "12 min", "7.5 h", "3.2 days"."""
    if seconds <= 90:
        return f"{seconds:.0f} s"
    if seconds <= 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds <= 48 * 3600 else f"{seconds / 86400:.1f} days"
