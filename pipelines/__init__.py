"""The outside: command line (`cli`), engines (`engine_local`, `engine_ray`), reports, demo. It wires the rest and decides nothing
about pixels."""

__all__: list[str] = []
