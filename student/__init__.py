"""What learns or measures: TAP-Vid figures (`metrics`), procedural video with exact tracks (`synth`), label policies (`policies`)."""

from student.metrics import score, tapvid_metrics
from student.policies import Policy, choose
from student.synth import SynthClip, SynthConfig, generate

__all__ = ["Policy", "SynthClip", "SynthConfig", "choose", "generate", "score", "tapvid_metrics"]
