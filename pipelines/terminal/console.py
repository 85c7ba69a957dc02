"""The terminal: where the commands say what they do. Nothing else in the project prints."""

from __future__ import annotations

from rich.console import Console, RenderableType

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


def counted(number: int, thing: str) -> str:
    """ "1 unit", "3,000 units"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def harmless(text: str) -> str:
    """`text` with '?' for what a file's name could tell a terminal to do."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
