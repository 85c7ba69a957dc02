"""Progress: a bar in a terminal, and elsewhere a line whenever one is due."""

from __future__ import annotations

import time

from rich.progress import Progress, ProgressColumn

from pipelines.terminal.console import console

LINE_EVERY_S = 10.0


def terminal_bar(*columns: str | ProgressColumn) -> Progress:
    """A bar that disappears when it ends; where there is no terminal, it shows nothing."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class LineThrottle:
    """Tells when the next line is due: every ten seconds, and never in a terminal, which has a
    bar."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def due(self) -> bool:
        """True if a line is due now; the next one is due ten seconds later."""
        if console.is_terminal or time.monotonic() - self._said <= LINE_EVERY_S:
            return False
        self._said = time.monotonic()
        return True

    def at_once(self) -> bool:
        """True, except in a terminal; the next line is due ten seconds later."""
        self._said = time.monotonic() - LINE_EVERY_S - 1
        return self.due()

    def soon(self) -> None:
        """Make a line due at once, because something has happened."""
        self._said = min(self._said, time.monotonic() - LINE_EVERY_S / 2)
