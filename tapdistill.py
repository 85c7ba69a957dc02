"""The way in of the command: `tapdistill`, or `python -m tapdistill`.

The four packages have plain names (`teachers`, `labeler`, `student`, `pipelines`), and a folder or
another installation may have a package of the same name. Where Python finds such a one first, the
command says so in a sentence.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("teachers", "labeler", "student", "pipelines")


def find_own_packages() -> None:
    """Import the four packages of this installation, whatever stands before it on the path: a
    script may be started in a folder with `teachers` of its own. Each of them that needs others
    calls it first; it costs no more than their four `__init__.py`."""
    root, path = str(Path(__file__).resolve().parent), sys.path[:]
    sys.path.insert(0, root)
    try:
        for name in PACKAGES:
            if name not in sys.modules:
                import_module(name)
    finally:
        sys.path[:] = path


def main() -> None:
    """Run the command line; exits as `pipelines.cli.main` does, or with 1 for a package that is
    not ours."""
    for name in PACKAGES:
        stranger = found_instead(name)
        if stranger is not None:
            sys.exit(
                f"tapdistill: Python finds another package named {name!r} first, in {stranger}: "
                "run the command in another folder, or take that folder off the path (PYTHONPATH), "
                "or install tapdistill in an environment of its own."
            )
    from pipelines.cli import main as command_line  # here, because it imports the four

    command_line()


def found_instead(name: str) -> str | None:
    """Where Python finds a package `name` that is not this installation's; None if it finds
    ours."""
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or [spec.origin or "?"]) if spec else []
    ours = Path(__file__).resolve().parent / name
    if any(Path(place).resolve() == ours for place in places):
        return None
    return str(places[0]) if places else "nowhere: the installation is not whole"


if __name__ == "__main__":
    main()
