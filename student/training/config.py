"""Settings of a training, and which of them a resumed run must share with its checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from student.data.config import DataConfig
from student.training.checkpoint import Checkpoint
from student.training.losses import LossConfig
from student.training.schedule import ScheduleConfig
from student.training.students import STUDENTS, Kind
from teachers.cotracker.cotracker3 import PRESETS
from teachers.cotracker.teacher import Preset
from teachers.errors import CheckpointError, ConfigError

SCRATCH = "scratch"
FREE = (
    *(
        "device",
        "log_every",
        "picture_every",
        "checkpoint_every",
        "keep",
        "eval_every",
        "eval_clips",
        "recompute",
        "most_skipped",
    ),
    *("data.readers", "data.at_once"),
)
"""Settings that a resumed run may have otherwise. They change no weight; `at_once`, like the number
of processes, but for rounding."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a student is trained. The defaults are CoTracker3's pseudo-label training."""

    data: DataConfig
    init: str
    """File with the weights to begin with (official, or a student's); "scratch" begins with random
    ones."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig.pseudo_label)
    loss: LossConfig = field(default_factory=LossConfig.pseudo_label)
    student: Kind = "offline"
    """offline: one window over the whole clip. online: windows of 16 frames, for streams. Weights
    of either kind can begin it."""
    preset: Preset = "official"
    """Sizes of the network, where the file does not say them itself. From scratch, "mini" is made
    for the clips' own size and length."""
    iterations: int = 4
    """Refinements of a track, all of which enter the loss."""
    bf16: bool | None = None
    """Compute in bfloat16; weights and losses stay float32. None: on a GPU, where it is faster."""
    recompute: bool = True
    """Compute activations again on the way back: less memory, more time."""
    most_skipped: int = 5
    """After so many steps in a row without a finite loss, training stops."""
    seed: int = 0
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1."""
    log_every: int = 10
    """Steps between points of the TensorBoard curves."""
    picture_every: int = 500
    """Steps between TensorBoard's pictures of predictions beside labels."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints that are kept: the last ones. The best weights are kept beside them."""
    eval_every: int = 0
    """Steps between evaluations on procedural test clips; 0 is never."""
    eval_clips: int = 6
    """Clips of an evaluation."""

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "log_every",
            "picture_every",
            "checkpoint_every",
            "keep",
            "eval_clips",
            "most_skipped",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1.")
        if self.student not in STUDENTS:
            raise ConfigError(f"student = {self.student!r}: there are {', '.join(STUDENTS)}.")
        if self.preset not in PRESETS:
            raise ConfigError(f"preset = {self.preset!r}: there are {', '.join(PRESETS)}.")
        if self.init == SCRATCH and (
            self.schedule.frozen or not self.loss.visibility or not self.loss.confidence
        ):
            raise ConfigError(
                "init = 'scratch' with a head that does not learn: visibility would stay random. "
                "Set frozen to None, visibility and confidence of the loss above 0 (1 is usual), "
                "and procedural or kubric_share above 0, or begin with the weights of a file."
            )
        if self.schedule.frozen and (self.loss.visibility or self.loss.confidence):
            raise ConfigError(
                f"frozen = {self.schedule.frozen!r}, but the loss has visibility = "
                f"{self.loss.visibility:g} and confidence = {self.loss.confidence:g}: set both to "
                "0, or frozen to None."
            )
        if (self.loss.visibility or self.loss.confidence) and not self.data.synthetic:
            raise ConfigError(
                "the visibility and confidence head learns from exact tracks only, and procedural "
                "= kubric_share = 0: give one of them a share above 0."
            )

    @classmethod
    def from_scratch(
        cls, data: DataConfig, steps: int, learning_rate: float = 1e-3, **settings: Any
    ) -> TrainConfig:
        """A mini student with random weights and every part learning, for a short run."""
        schedule = ScheduleConfig(
            steps=steps, learning_rate=learning_rate, clip_norm=1.0, warm_up=0.05, frozen=None
        )
        return cls(
            data=data,
            init=SCRATCH,
            preset="mini",
            schedule=schedule,
            loss=LossConfig.supervised(),
            **settings,
        )


def plain(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON has it."""
    return json.loads(json.dumps(asdict(config)))


def check_same_settings(config: TrainConfig, found: Checkpoint, out: Path) -> None:
    now, then = _flat(plain(config)), _flat(found.config)
    changed = [
        name
        for name in sorted(now.keys() | then.keys())
        if name not in FREE and now.get(name) != then.get(name)
    ]
    if changed:
        name = changed[0]
        raise CheckpointError(
            f"{out}: its checkpoint of step {found.step} was trained with {name} = "
            f"{then.get(name)!r}, not {now.get(name)!r} ({len(changed)} in all). Give those "
            "settings to go on with it, or another --out to start anew."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
