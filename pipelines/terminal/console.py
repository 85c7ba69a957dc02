"""Console: where the commands say what they do. Nothing else in the project prints."""

from __future__ import annotations

from rich.console import Console, RenderableType

from pipelines.wording import harmless


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would exit with 1; `pipelines.cli` tells what a reader that has seen enough does."""
        raise  # it is called where the error is handled


console = _Console(stderr=False, highlight=False)


def say(what: RenderableType) -> None:
    """Print to standard output. A table in a file or pipe is as wide as it needs to be."""
    if isinstance(what, str):
        console.print(harmless(what), markup=False, soft_wrap=True)
        return
    width = console.width
    if not console.is_terminal:
        width = console.measure(what, options=console.options.update(max_width=10_000)).maximum
    _Console(file=console.file, width=width, highlight=False).print(what, markup=False)


def complain(message: str) -> None:
    """Print to standard error, as one plain sentence."""
    _Console(stderr=True, highlight=False).print(
        harmless(f"tapdistill: {message}"), markup=False, soft_wrap=True
    )
