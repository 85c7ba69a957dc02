"""Lazy: names of a package that are imported only when they are first used, so that `import
teachers` loads neither torch nor OpenCV. All packages with such names use this module."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `package`.

    Args:
        modules: name -> the module that defines it.

    The function raises an AttributeError for a name that is not in `modules`.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get
