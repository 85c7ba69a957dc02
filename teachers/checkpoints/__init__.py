"""Files with weights: reading, cache, download, and which teacher they are for.

Names below are imported when they are first used, because most of them import torch.
"""

from typing import TYPE_CHECKING

from teachers.lazy import lazy_names

if TYPE_CHECKING:
    from teachers.checkpoints.cache import cached_checkpoint
    from teachers.checkpoints.files import (
        CONFIG,
        LICENCE,
        TEACHER,
        load_weights,
        read_metadata,
        read_weights,
        stored_config,
    )

_MODULES = {
    "CONFIG": "teachers.checkpoints.files",
    "LICENCE": "teachers.checkpoints.files",
    "TEACHER": "teachers.checkpoints.files",
    "cached_checkpoint": "teachers.checkpoints.cache",
    "load_weights": "teachers.checkpoints.files",
    "read_metadata": "teachers.checkpoints.files",
    "read_weights": "teachers.checkpoints.files",
    "stored_config": "teachers.checkpoints.files",
}

__all__ = [
    "CONFIG",
    "LICENCE",
    "TEACHER",
    "cached_checkpoint",
    "load_weights",
    "read_metadata",
    "read_weights",
    "stored_config",
]

__getattr__ = lazy_names(__name__, _MODULES)
