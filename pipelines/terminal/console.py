"""The terminal: where the commands say what they do. Nothing else in the project prints."""

from __future__ import annotations

from rich.console import Console, RenderableType

from pipelines.wording import harmless

console = Console(stderr=False, highlight=False)


def say(what: RenderableType) -> None:
    """Print to standard output."""
    console.print(
        harmless(what) if isinstance(what, str) else what,
        markup=False,
        soft_wrap=isinstance(what, str),
    )


def complain(message: str) -> None:
    """Print to standard error, as one plain sentence."""
    Console(stderr=True, highlight=False).print(
        harmless(f"tapdistill: {message}"), markup=False, soft_wrap=True
    )
