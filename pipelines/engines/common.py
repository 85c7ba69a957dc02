"""Common: what both engines share, which is how teachers are made, what decoding may cost, and what
happens to a unit that stays open."""

from __future__ import annotations

import math
import re
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import teachers
from labeler.labels.teacher_choice import refuse_untrained
from teachers import (
    ConfigError,
    InstallationError,
    TapdistillError,
    Teacher,
    Tracks,
    TransientError,
)
from teachers.errors import OWN_FAULTS, DeviceError
from teachers.info import Precision
from teachers.loading import compiled_setting, settings_of
from teachers.registry import declared

ATTEMPTS = 3
"""How many times a unit is tried after transient errors before it is left open."""

OUT_OF_MEMORY, DEVICE_FAILED = "OutOfMemoryError", "AcceleratorError"
"""Errors of torch that are not about the clip; by name, because teachers without weights do not
load torch."""
OF_DEVICE = re.compile(
    r"\b(CUDA|HIP)( driver)? error|cuDNN error|\b(CUDNN|CUBLAS|CUSOLVER)_STATUS_"
)
"""What other errors say that are a GPU's: its libraries raise a plain RuntimeError, as does torch
before 2.8."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """How a job makes one of its teachers."""

    name: str
    checkpoint: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    compiled: bool = False
    """Compile its network's parts, if it is a network that has such parts."""

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU where there is one: it is a network, or may be one."""
        if self.device == "cpu":
            return False
        if ":" in self.name or self.name not in teachers.names():
            return True  # of another package, or a student under a name of its own
        return "precision" in settings_of(declared(self.name))

    def load(self) -> Teacher:
        """Make the teacher, in the mode that covers every frame. A ConfigError if it has random
        weights: noise is never a label."""
        teacher = teachers.load(
            self.name,
            checkpoint=self.checkpoint,
            device=self.device,
            mode="label",
            precision=self.precision,
            **compiled_setting(self.compiled, self.name, self.checkpoint),
        )
        refuse_untrained({self.name: teacher.info})
        return teacher


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What decoding may cost before it is ended."""

    deadline_s: float = 300.0
    """The longest time to open and scan a video, or to decode one clip of it; after that, the
    decoder is killed."""
    memory_gib: float = 8.0
    """The most address space that the decoding process may use."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"--decoding.{name.replace('_', '-')} {value}: must be above 0, and finite."
                )


@dataclass(frozen=True)
class Note:
    """A sentence that whoever started the job should read."""

    text: str


@dataclass(frozen=True)
class UnitOpen:
    """A unit could not be done now; the same command does it later."""

    unit: int
    why: str
    own_fault: bool = False
    """Whether it is a fault of the installation or the code, so that other units may fare no
    better."""


def track_or_say_why(
    teacher: Teacher, frames: np.ndarray, queries: np.ndarray, seed: int
) -> Tracks | str:
    """The teacher's tracks, or why it cannot track this clip. One bad clip must not stop a job, so
    an unexpected error becomes a row, which names the line that raised it."""
    try:
        return teacher.track(frames, queries, seed)
    except MemoryError as error:
        raise TransientError(
            f"teacher {teacher.info.name!r}: the machine is out of memory."
        ) from error
    except OWN_FAULTS as error:
        raise InstallationError(
            f"teacher {teacher.info.name!r}: {type(error).__name__}: {error} "
            f"({_raised_at(error)}). This is a fault of its code or of a package, not of the clip, "
            "which stays open. Fix it, or leave the teacher out."
        ) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if type(error).__name__ == OUT_OF_MEMORY:
            raise TransientError(f"teacher {teacher.info.name!r}: {why}") from error
        if type(error).__name__ == DEVICE_FAILED or (
            isinstance(error, RuntimeError) and OF_DEVICE.search(str(error))
        ):
            raise DeviceError(f"teacher {teacher.info.name!r}: {why}") from error
        return why if isinstance(error, TapdistillError) else f"{why} ({_raised_at(error)})"


def _raised_at(error: Exception) -> str:
    """ "file.py:12", where an error comes from, without the folder, which differs between
    machines."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
