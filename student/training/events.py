"""Events: what a training run reports while it runs, and at its end. All of them can be pickled:
with several processes, they come from rank 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from student.data.reader import UnusableClips
from student.evaluation.calibration import Fitted


@dataclass(frozen=True, kw_only=True)
class Started:
    """The data sets are open, and the first step begins."""

    step: int
    """Steps that were done before, if the run is resumed."""
    parts: int
    """Batches that each process computes in a step."""
    left_out: tuple[UnusableClips, ...]
    """Stored clips that cannot be read, or are too small for the crop."""
    views: Mapping[int, int] = field(default_factory=dict)
    """How many stored clips offer so many different runs of their frames to learn from."""
    note: str = ""
    """What a user should know about the clips; empty if there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step has changed the weights."""

    step: int
    """Steps so far, this one included."""
    losses: dict[str, float]
    """The parts of the loss and their total, with factors applied."""
    learning_rate: float
    gradient_norm: float
    """Length of the gradient before clipping."""
    seconds: float
    waited_s: float
    """How many of these seconds passed until the batch was there."""


@dataclass(frozen=True, kw_only=True)
class StepSkipped:
    """The loss or the gradient was not finite, so the weights did not change; the step is taken
    with the next batch."""

    step: int
    keys: tuple[str, ...]
    """The samples without a finite answer; if only the gradient is not finite, all samples of the
    step."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The student was scored on procedural test clips, or on published test sets."""

    step: int
    figures: dict[str, float]
    """AJ, delta_avg, OA in [0, 1], means over clips; with `eval_data` the means over its sets, and
    those of each set, as "tapvid-davis/AJ"."""
    best: bool
    """Whether every earlier evaluation had a lower delta_avg."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What fits the finished student was chosen."""

    fitted: Fitted


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """The student is being calibrated or scored, and no step is taken meanwhile."""

    step: int
    what: str
    """What is done, on which clips."""
    done: int
    """Clips so far: 0 when it begins."""
    total: int | None
    """None if that is not known before they are read."""


TrainEvent = Started | StepDone | StepSkipped | Evaluated | Saved | Calibrated | Measuring


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    steps: int
    weights: Path | str
    """The student: a safetensors file that every command accepts as a checkpoint; its URL, if `out`
    is one."""
    figures: dict[str, float]
    """Figures of the last evaluation; empty if there was none."""
    samples_skipped: Counter[str]
    """Samples of this run that were replaced by others, by reason, over all processes."""
    left_out: int
    """Stored clips that were not read at all: see `Started`."""
    steps_skipped: int
    seconds: float
    waited_s: float
