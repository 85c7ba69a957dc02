"""What learns or measures: students, label policies on trial, TAP-Vid figures, procedural video.

    config = student.TrainConfig(student="tapir", init="tapir-mini", data=...)
    result = student.train(config, Path("out"))            # its weights: result.weights
    table = student.compare({"mine": tracker}, clips)      # AJ, delta_avg, OA of each clip

`synth` makes procedural video with exact tracks, `evaluation` TAP-Vid figures, `data` batches, and
`training` a student. Names below are imported when they are first used.
"""

from typing import TYPE_CHECKING

from tapdistill import find_own_packages

find_own_packages()

from teachers.lazy import lazy_names  # noqa: E402, now it is ours

if TYPE_CHECKING:
    from labeler.labels.policies import Policy, choose
    from student.clip import TestClip
    from student.data.config import DataConfig
    from student.evaluation.evaluate import FIGURES, compare, with_interval
    from student.evaluation.labels import LABEL_FIGURES, score_policy
    from student.evaluation.metrics import score, tapvid_metrics
    from student.synth.scene import SynthClip, SynthConfig, generate, true_tracks
    from student.training.config import TrainConfig
    from student.training.events import StepDone
    from student.training.losses import LossConfig, TapirLossConfig
    from student.training.losses_tapnext import tapnext_loss
    from student.training.schedule import ScheduleConfig
    from student.training.train import train
    from student.verifier.candidates import perturbed_tracks
    from student.verifier.losses import reliability_loss

_MODULES = {
    "DataConfig": "student.data.config",
    "FIGURES": "student.evaluation.evaluate",
    "LABEL_FIGURES": "student.evaluation.labels",
    "LossConfig": "student.training.losses",
    "Policy": "labeler.labels.policies",  # of labeler; here for one more release
    "ScheduleConfig": "student.training.schedule",
    "StepDone": "student.training.events",
    "SynthClip": "student.synth.scene",
    "SynthConfig": "student.synth.scene",
    "TapirLossConfig": "student.training.losses",
    "TestClip": "student.clip",
    "TrainConfig": "student.training.config",
    "choose": "labeler.labels.policies",  # of labeler; here for one more release
    "compare": "student.evaluation.evaluate",
    "generate": "student.synth.scene",
    "perturbed_tracks": "student.verifier.candidates",
    "reliability_loss": "student.verifier.losses",
    "score": "student.evaluation.metrics",
    "score_policy": "student.evaluation.labels",
    "tapnext_loss": "student.training.losses_tapnext",
    "tapvid_metrics": "student.evaluation.metrics",
    "train": "student.training.train",
    "true_tracks": "student.synth.scene",
    "with_interval": "student.evaluation.evaluate",
}

__all__ = [
    "FIGURES",
    "LABEL_FIGURES",
    "DataConfig",
    "LossConfig",
    "Policy",
    "ScheduleConfig",
    "StepDone",
    "SynthClip",
    "SynthConfig",
    "TapirLossConfig",
    "TestClip",
    "TrainConfig",
    "choose",
    "compare",
    "generate",
    "perturbed_tracks",
    "reliability_loss",
    "score",
    "score_policy",
    "tapnext_loss",
    "tapvid_metrics",
    "train",
    "true_tracks",
    "with_interval",
]

__getattr__ = lazy_names(__name__, _MODULES)
