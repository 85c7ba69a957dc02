"""What learns or measures: `synth` makes procedural video with exact tracks, `evaluation` TAP-Vid
figures, `data` batches, and `training` a student."""

from labeler.labels.policies import Policy, choose
from student.evaluation.metrics import score, tapvid_metrics
from student.synth.scene import SynthClip, SynthConfig, generate

__all__ = ["Policy", "SynthClip", "SynthConfig", "choose", "generate", "score", "tapvid_metrics"]
