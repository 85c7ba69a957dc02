"""The outside: the command line (`cli`, `commands`), jobs and their engines, reports, exports. It
wires the rest and decides nothing about pixels.

    result = pipelines.label(pipelines.LabelConfig(videos=("clips/",), out="labels"))

Names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.jobs.config import LabelConfig
    from pipelines.jobs.labelling import LabelResult, label

_MODULES = {
    "LabelConfig": "pipelines.jobs.config",
    "LabelResult": "pipelines.jobs.labelling",
    "label": "pipelines.jobs.labelling",
}

__all__ = [
    "LabelConfig",
    "LabelResult",
    "label",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
