"""The outside: the command line (`cli`, `commands`), jobs and their engines, reports, exports. It
wires the rest and decides nothing about pixels."""

__all__: list[str] = []
