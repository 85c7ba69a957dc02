"""From the tracks of several teachers to labels: agreement, and whose track is the label."""

from labeler.labels.agreement import AgreementConfig, Labels, label
from labeler.labels.policies import Policy, choose
from labeler.labels.sample import Sample
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict

__all__ = [
    "AgreementConfig",
    "ClipVerdict",
    "Labels",
    "Policy",
    "Sample",
    "TrustConfig",
    "choose",
    "label",
]
