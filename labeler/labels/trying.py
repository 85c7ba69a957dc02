"""Trying: what label policies would take of some clips, and what other thresholds of the verifier
would.

Every function goes once through the samples it is given, so they may be many. Shares are of all
points and frames; `trust` is the verifier's mean probability that a visible label is right. The
query's own frame never counts: its label is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import Policy, chosen, find
from labeler.labels.policy import Candidates, Target, weights
from labeler.labels.sample import Sample
from labeler.labels.trust import TrustConfig

SHARES = ("used_share", "hidden_share", "query_share")


class Tally:
    """What a policy takes, added up clip by clip."""

    def __init__(self) -> None:
        self.used = self.hidden = self.queries = self.positions = self.all_queries = 0
        self.trust = 0.0
        self.weighed = True

    def add(self, target: Target, clip: Candidates) -> None:
        """One more clip."""
        others = np.arange(target.used.shape[1]) != clip.queries[:, :1]
        shown = target.used & target.visible & others
        self.used += int(shown.sum())
        self.hidden += int((target.called_occluded & others).sum())
        self.queries += int(shown.any(1).sum())
        self.positions += int(others.sum())
        self.all_queries += len(shown)
        if clip.verdict is None:
            self.weighed = False
        else:
            self.trust += float(weights(target, clip)[shown].sum())

    def row(self) -> dict[str, float]:
        """used_share and hidden_share: of all points and frames, those that are labelled visible,
        and those that are called hidden. query_share: queries with any visible label. trust: the
        mean over visible labels; NaN where a clip was not judged, or there is none. All without
        the queries' own frames."""
        known = self.weighed and self.used
        return {
            "used_share": self.used / max(self.positions, 1),
            "hidden_share": self.hidden / max(self.positions, 1),
            "query_share": self.queries / max(self.all_queries, 1),
            "trust": self.trust / self.used if known else float("nan"),
        }


def by_policy(
    samples: Iterable[Sample],
    policies: Sequence[Policy],
    agreement: AgreementConfig,
    trust: TrustConfig,
    seed: int = 0,
) -> pd.DataFrame:
    """What each policy would take: a row per policy, by its name; the columns of `Tally.row`.

    A policy that needs a verdict is left out where any of the clips has none.
    """
    tallies = {policy: Tally() for policy in policies}
    rngs = {policy: np.random.default_rng(seed) for policy in policies}
    for sample in samples:
        clip = candidates_of(sample, agreement, trust)
        if clip.verdict is None:
            tallies = {name: one for name, one in tallies.items() if not find(name).needs_verdict}
        for policy, tally in tallies.items():
            tally.add(chosen(policy, clip, rngs[policy]), clip)
    rows = {policy: tally.row() for policy, tally in tallies.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*SHARES, "trust"])


def what_if_trusted(
    samples: Iterable[Sample],
    min_right: Sequence[float],
    min_hidden: Sequence[float],
    agreement: AgreementConfig,
) -> pd.DataFrame:
    """What the policy `verified` would take with other thresholds: a row per pair of them;
    min_right, min_hidden, and the columns of `Tally.row`.

    Raises:
        ConfigError: a clip was not judged.
    """
    configs = [
        TrustConfig(min_right=float(right), min_hidden=float(hidden))
        for right in min_right
        for hidden in min_hidden
    ]
    tallies = [Tally() for _ in configs]
    rng = np.random.default_rng(0)  # `verified` draws nothing
    for sample in samples:
        clip = candidates_of(sample, agreement, TrustConfig())
        for config, tally in zip(configs, tallies, strict=True):
            tried = replace(clip, trust=config)
            tally.add(chosen("verified", tried, rng), tried)
    return pd.DataFrame(
        [
            {"min_right": config.min_right, "min_hidden": config.min_hidden, **tally.row()}
            for config, tally in zip(configs, tallies, strict=True)
        ]
    )


def candidates_of(sample: Sample, agreement: AgreementConfig, trust: TrustConfig) -> Candidates:
    """What a policy is given of a stored clip."""
    return Candidates(
        tracks=sample.tracks,
        rules=sample.rules,
        queries=sample.queries,
        size_hw=sample.size_hw,
        agreement=agreement,
        trust=trust,
        verdict=sample.verdict,
        evidence=sample.evidence,
    )
