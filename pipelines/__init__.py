"""The outer layer: the command line (`cli`, `commands`), jobs and their engines, reports, exports.
It wires up the rest, and decides nothing about pixels.

    result = pipelines.label(pipelines.LabelConfig(videos=("clips/",), out="labels"))

Names below are imported when they are first used.
"""

from typing import TYPE_CHECKING

from tapdistill import find_own_packages

find_own_packages()

from teachers.lazy import lazy_names  # noqa: E402, now it is ours

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

__getattr__ = lazy_names(__name__, _MODULES)
