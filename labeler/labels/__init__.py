"""From the tracks of several teachers to labels: agreement, and whose track is the label."""

from labeler.labels.agreement import AgreementConfig, Labels, label
from labeler.labels.policies import Policy, choose
from labeler.labels.sample import Sample

__all__ = ["AgreementConfig", "Labels", "Policy", "Sample", "choose", "label"]
