"""Labelled: what the labels of one clip are, by agreement or by a label policy.

    labelled(clip)                                  as they are stored: `keep` and `valid`
    labelled(clip, "verified", TrustConfig(...))    what a student learns by that policy

For those who look at labels: a count of wrong ones says something about a training only if both are
of one policy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from labeler.labels.agreement import OCCLUDED, VISIBLE, AgreementConfig, medoids, stack
from labeler.labels.policies import Policy, chosen, uses_verdict
from labeler.labels.policy import Target
from labeler.labels.sample import Sample
from labeler.labels.trust import TrustConfig
from labeler.labels.trying import candidates_of

AGREEMENT = "agreement"
AGREEMENT_FIELDS = {field.name for field in fields(AgreementConfig)}


@dataclass(frozen=True)
class Labelled:
    """The labels of one clip of N queries in T frames."""

    by: str
    """"agreement", or the name of the policy."""
    how: str
    """The same with its thresholds, where it has any."""
    xy: np.ndarray
    """float32 [N, T, 2] px of the clip; NaN where the label is not visible."""
    visible: np.ndarray
    """bool [N, T]: the point is labelled visible, at `xy`."""
    hidden: np.ndarray
    """bool [N, T]: the point is labelled hidden."""


def labelled(
    sample: Sample, policy: Policy | None = None, trust: TrustConfig | None = None
) -> Labelled:
    """The labels of a clip.

    Args:
        policy: the label policy; None: the stored labels by agreement, whose position is that of
            the medoid. A policy that draws does so by the clip's key, the same each time.
        trust: the policy's thresholds of the verifier.

    Raises:
        ConfigError: there is no such policy; it needs exact tracks; or it needs a verdict, and no
            verifier judged the clip.
    """
    how = described(policy, trust)
    if policy is None:
        return _by_agreement(sample, how)
    target = target_of(sample, policy, trust=trust)
    visible = target.used & target.visible
    xy = np.where(visible[..., None], target.xy, np.nan).astype(np.float32)
    return Labelled(policy, how, xy, visible, target.called_occluded)


def described(policy: Policy | None = None, trust: TrustConfig | None = None) -> str:
    """Whose labels they are, in a few words."""
    if policy is None:
        return AGREEMENT
    if not uses_verdict(policy):
        return policy
    trust = trust or TrustConfig()
    return f"{policy} (min-right {trust.min_right:g}, min-hidden {trust.min_hidden:g})"


def target_of(
    sample: Sample,
    policy: Policy,
    *,
    agreement: AgreementConfig | None = None,
    trust: TrustConfig | None = None,
    seed: int = 0,
) -> Target:
    """The labels of a stored clip by a policy; without `agreement`, with the thresholds that the
    clip was labelled with. What is drawn depends on the seed and the clip's key, not on other
    clips.

    Raises:
        ConfigError: as `labelled`.
    """
    stored = sample.labels.settings
    names = AGREEMENT_FIELDS & stored.keys()
    agreement = agreement or AgreementConfig(**{name: stored[name] for name in names})
    rng = np.random.default_rng([seed, *sample.key.encode()])
    return chosen(policy, candidates_of(sample, agreement, trust or TrustConfig()), rng)


def _by_agreement(sample: Sample, how: str) -> Labelled:
    labels = sample.labels
    stacked = stack(sample.tracks, sample.rules, sample.size_hw, sample.evidence)
    medoid, _ = medoids(stacked.xy, stacked.sees, stacked.families)
    label = labels.valid & labels.keep[:, None]
    visible = label & (labels.state == VISIBLE) & (medoid >= 0)
    raw = np.stack([sample.tracks[name].xy for name in stacked.names])
    xy = np.take_along_axis(raw, np.maximum(medoid, 0)[None, ..., None], axis=0)[0]
    xy = np.where(visible[..., None], xy, np.nan).astype(np.float32)
    return Labelled(AGREEMENT, how, xy, visible, label & (labels.state == OCCLUDED))
