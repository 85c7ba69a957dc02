"""Config: the settings of a training, and which of them a resumed run must share with its
checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from student.data.config import DataConfig
from student.training.checkpoint import Checkpoint
from student.training.evaluation import sets_of
from student.training.interface import Visibility
from student.training.losses import LossConfig
from student.training.schedule import ScheduleConfig
from student.training.students import KINDS, STUDENTS, Kind
from teachers.errors import CheckpointError, ConfigError
from teachers.info import Precision, Preset

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
        "eval_data",
        "eval_most",
        "calibration_clips",
        "refinement",
        "recompute",
        "most_skipped",
    ),
    *("data.readers", "data.at_once"),
)
"""Settings that may differ in a resumed run. They do not change the weights, except that `at_once`,
like the number of processes, changes the rounding."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a student is trained. Losses, steps, and optimiser are by default those of CoTracker3's
    pseudo-label training."""

    data: DataConfig
    init: str
    """Weights to start from: a file (official, or a student's), or the name of a teacher whose
    weights are here, such as tapir-mini; "scratch" starts from random ones."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig.pseudo_label)
    loss: LossConfig = field(default_factory=LossConfig)
    student: Kind = "offline"
    """offline, online: CoTracker3, with one window over the whole clip, or with windows of 16
    frames, for streams; either can start from the weights of the other. tapir, bootstapir,
    bootstapir-causal, locotrack-base, locotrack-small: the networks of these names."""
    preset: Preset = "official"
    """Sizes of the network, if the file does not state them. From scratch, a mini CoTracker3 is
    made for the size and length of the clips."""
    visibility: Visibility | None = None
    """What happens to visibility (and confidence, or TAPIR's expected distance). frozen: its head
    stays as it is (CoTracker3 only). held: soft targets from the network before training. exact:
    learnt from clips with exact tracks alone. consensus: learnt from all labels. None: CoTracker3
    frozen, others consensus; from scratch exact where there are exact tracks, else consensus."""
    iterations: int | None = None
    """Refinements of a track, all of which enter the loss; None: 4 for CoTracker3, and for the
    others as many as their file states."""
    bf16: bool | None = None
    """Compute in bfloat16; weights and losses stay float32. None: on a GPU, where it is faster, and
    only for CoTracker3, as the others need float32."""
    precision: Precision = "auto"
    """How the network multiplies. float32; tf32, on a GPU; bf16, the same as `bf16`. auto: as
    `bf16` says, with tf32 for what stays float32 on a GPU."""
    recompute: bool | None = None
    """Recompute activations in the backward pass: less memory, more time. None: on a GPU, only if
    its free memory is too small to keep them; on a CPU, always."""
    most_skipped: int = 5
    """Training stops after this many steps in a row without a finite loss."""
    seed: int = 0
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1."""
    log_every: int = 10
    """Steps between points of the TensorBoard curves."""
    picture_every: int = 500
    """Steps between pictures of predictions and labels in TensorBoard."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """How many of the last checkpoints are kept. The best weights are kept beside them."""
    eval_every: int = 0
    """Steps between evaluations, on procedural test clips or on `eval_data`; 0: no evaluation."""
    eval_clips: int = 6
    """Procedural clips in an evaluation."""
    eval_data: tuple[str, ...] = ()
    """Published test sets to evaluate on instead, as DATASET=FILE: tapvid-davis,
    tapvid-rgb-stacking, tapvid-kinetics, robotap, read from a file, a folder, or an fsspec URL, and
    scored as `tapdistill eval` scores them. The best weights are those with the highest mean
    delta_avg."""
    eval_most: int | None = None
    """Of each set of `eval_data`, only so many of its first clips."""
    calibration_clips: int = 8
    """Clips on which the student's visible rule is chosen before it is exported: parts of the
    stored clips with their labels or, without any, procedural ones; 0 keeps the rule of before."""
    refinement: Literal["own", "chosen"] = "own"
    """How the finished student refines positions. own: as the network did before. chosen: so, or on
    frames of twice the raster too (TAPIR), whichever fits the labels of whole clips better; larger
    frames are more precise in clean video, worse in noise, and take more than twice the time."""

    def __post_init__(self) -> None:
        for name in (
            "log_every",
            "picture_every",
            "checkpoint_every",
            "keep",
            "eval_clips",
            "most_skipped",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1.")
        if self.student not in KINDS:
            raise ConfigError(f"student = {self.student!r}: there are {', '.join(KINDS)}.")
        if self.calibration_clips < 0:
            raise ConfigError(
                f"calibration_clips = {self.calibration_clips}: must not be negative; 0 keeps the "
                "published visible rule."
            )
        if sets_of(self.eval_data) and not self.eval_every:
            raise ConfigError("eval_data needs eval_every, the steps between evaluations.")
        if self.eval_most is not None and self.eval_most < 1:
            raise ConfigError(f"eval_most = {self.eval_most}: must be at least 1.")
        if self.iterations is not None and self.iterations < 1:
            raise ConfigError(f"iterations = {self.iterations}: must be at least 1.")
        if self.preset not in get_args(Preset):
            raise ConfigError(f"preset = {self.preset!r}: there are {', '.join(get_args(Preset))}.")
        if self.precision != "auto":
            if self.bf16 not in (None, self.precision == "bf16"):
                raise ConfigError(
                    f"bf16 = {self.bf16} with precision = {self.precision!r}: leave one of them "
                    "out; --bf16 None takes back what a recipe says."
                )
            object.__setattr__(self, "bf16", self.precision == "bf16")
        if self.bf16 and not STUDENTS[self.student].bf16:
            raise ConfigError(
                f"bf16 = True: a {self.student} student needs float32, or its positions would be "
                "rounded. Leave bf16 out."
            )
        self._check_visibility()
        self._check_losses()
        if self.refinement == "chosen":
            self._check_refinement()

    def _check_refinement(self) -> None:
        data, why = self.data, None
        if not STUDENTS[self.student].several_refinements:
            why = f"a {self.student} student has one way to refine positions"
        elif not self.calibration_clips:
            why = "it is chosen on calibration_clips, and they are 0"
        elif data.labels == "inline" or data.synthetic == 1:
            why = "it is chosen on stored labels, and there are none"
        if why:
            raise ConfigError(f"refinement = 'chosen': {why}. Take refinement = 'own'.")

    def _check_visibility(self) -> None:
        choice, student = self.visibility_choice, STUDENTS[self.student]
        if choice not in get_args(Visibility):
            raise ConfigError(
                f"visibility = {choice!r}: there are {', '.join(get_args(Visibility))}."
            )
        if self.init == SCRATCH and choice in ("frozen", "held"):
            raise ConfigError(
                f"init = 'scratch' with visibility = {choice!r}: it would stay random. Take "
                "'exact', with procedural or kubric_share above 0, or 'consensus', or begin with "
                "the weights of a file."
            )
        if choice == "frozen" and student.head is None:
            raise ConfigError(
                f"visibility = 'frozen': a {self.student} student says visibility with the layers "
                "that say positions, so it cannot stay alone. Take 'held', which keeps what the "
                "network said before training, or 'consensus'."
            )
        if choice == "exact" and not self.data.synthetic:
            raise ConfigError(
                "visibility = 'exact' learns from exact tracks only, and procedural = kubric_share "
                "= 0: give one of them a share above 0, or take 'consensus'."
            )
        if choice != "frozen" and student.head in (self.schedule.frozen or "").split(","):
            raise ConfigError(
                f"frozen = {self.schedule.frozen!r}, but visibility = {choice!r}: set frozen to "
                "None, or visibility to 'frozen'."
            )

    def _check_losses(self) -> None:
        factors, default = STUDENTS[self.student].factors, LossConfig()
        for name in vars(default):
            if name in (*factors, "real", "synthetic"):
                continue
            if getattr(self.loss, name) != getattr(default, name):
                raise ConfigError(
                    f"loss.{name} = {getattr(self.loss, name)}: a {self.student} student has no "
                    f"such loss; it has {', '.join(factors)}."
                )

    @property
    def learns_from_labels(self) -> bool:
        """Whether there are stored labels."""
        return bool(self.data.data) and self.data.synthetic < 1 and self.data.labels == "stored"

    @property
    def draws_clips(self) -> bool:
        """Whether procedural clips are drawn to score or calibrate on."""
        scores = self.eval_every > 0 and not self.eval_data
        return scores or (self.calibration_clips > 0 and not self.learns_from_labels)

    def evaluates_at(self, step: int) -> bool:
        """Whether the student is scored after that step: every `eval_every` ones, and the last."""
        every = self.eval_every
        return bool(every) and step > 0 and (step % every == 0 or step == self.schedule.steps)

    @property
    def visibility_choice(self) -> Visibility:
        """What happens to visibility, with the default of the student filled in."""
        if self.visibility is not None:
            return self.visibility
        if self.init == SCRATCH:
            return "exact" if self.data.synthetic else "consensus"
        return STUDENTS[self.student].visibility

    @classmethod
    def from_scratch(
        cls, data: DataConfig, steps: int, learning_rate: float = 1e-3, **settings: Any
    ) -> TrainConfig:
        """A mini student with random weights and every part learning, for a short run."""
        schedule = ScheduleConfig(
            steps=steps, learning_rate=learning_rate, clip_norm=1.0, warm_up=0.05
        )
        return cls(
            data=data,
            init=SCRATCH,
            preset="mini",
            schedule=schedule,
            **settings,
        )


def plain(config: TrainConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return json.loads(json.dumps(asdict(config)))


def check_same_settings(
    config: TrainConfig, found: Checkpoint, out: str, sizes: Mapping[str, Any]
) -> None:
    """Raise a CheckpointError if a checkpoint does not belong to this training, or has sizes of the
    network that this version does not know; `sizes` are those that it knows."""
    if new := sorted(found.network.keys() - sizes.keys()):
        raise CheckpointError(
            f"{out}: its checkpoint of step {found.step} is of a later version of tapdistill: "
            f"{', '.join(new)} of its network is not known here. Update tapdistill, or give "
            "another --out to start anew."
        )
    # a setting that a checkpoint of an earlier version does not name had its default value
    default = _flat(plain(TrainConfig(data=DataConfig(), init=SCRATCH, visibility="consensus")))
    now, then = _flat(plain(config)), _flat(found.config)
    then = {name: default[name] for name in default.keys() & now.keys() - then.keys()} | then
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
