"""What a training run tells while it runs, and at its end. All of it can be pickled: with several
processes it comes from rank 0."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from student.data.reader import UnusableClips
from student.evaluation.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class Started:
    """The data sets are open, and the first step begins."""

    step: int
    """Steps done before, where a run is resumed."""
    parts: int
    """Batches of each process in a step."""
    left_out: tuple[UnusableClips, ...]
    """Stored clips that cannot be read, or are too small for the crop."""
    views: tuple[int, ...] = ()
    """For each stored clip, how many different runs of frames of it can be learnt from."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """The weights moved."""

    step: int
    """Steps so far, this one included."""
    losses: dict[str, float]
    """Parts and total, factors applied."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    seconds: float
    waited_s: float
    """Of these seconds, how many went by until the batch was there."""


@dataclass(frozen=True, kw_only=True)
class StepSkipped:
    """Loss or gradient was not finite, so the weights did not move; the step is taken with the next
    batch."""

    step: int
    keys: tuple[str, ...]
    """The samples without a finite answer; all of the step where only the gradient is not
    finite."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The student was scored on procedural test clips."""

    step: int
    figures: dict[str, float]
    """AJ, delta_avg, OA in [0, 1], means over clips."""
    best: bool
    """No evaluation before had a higher delta_avg."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The visible rule of the finished student was chosen."""

    calibration: Calibration


TrainEvent = Started | StepDone | StepSkipped | Evaluated | Saved | Calibrated


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    steps: int
    weights: Path | str
    """The student: a safetensors file that every command takes as a checkpoint; its URL, if that is
    where it was asked for."""
    figures: dict[str, float]
    """Of the last evaluation; empty if there was none."""
    samples_skipped: Counter[str]
    """Samples of this run whose place another one took, by reason; of all processes."""
    left_out: int
    """Stored clips that were not read at all: see `Started`."""
    steps_skipped: int
    seconds: float
    waited_s: float
