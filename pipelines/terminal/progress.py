"""When the next line of progress is due, where no terminal shows a bar."""

from __future__ import annotations

import time

from pipelines.terminal.console import console

LINE_EVERY_S = 10.0


class LineThrottle:
    """Says when the next line is due: every ten seconds, and never in a terminal, which has a
    bar."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def due(self) -> bool:
        """True if a line is due now; the next one is due ten seconds later."""
        if console.is_terminal or time.monotonic() - self._said <= LINE_EVERY_S:
            return False
        self._said = time.monotonic()
        return True

    def soon(self) -> None:
        """Bring the next line forward, because something happened."""
        self._said = min(self._said, time.monotonic() - LINE_EVERY_S / 2)
