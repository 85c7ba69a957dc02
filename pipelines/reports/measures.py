"""Measures: what `tapdistill inspect` measures on the raw tracks of some clips, which is how
teachers differ, what is kept, and what other thresholds would keep.

Distances are px of the 256 x 256 raster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from labeler.dataset import Clip, Dataset
from labeler.labels import AgreementConfig, TrustConfig, disagreement, trying
from labeler.labels.policies import Policy, without_truth

MEASURED = 64
"""The most clips that are measured."""
TAUS_PX = (0.5, 1.0, 2.0, 4.0, 8.0)
SUPPORTS = (0.5, 0.6, 0.8)
RIGHTS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class DatasetMeasures:
    """What was measured on some clips."""

    clips: int
    agreement: AgreementConfig
    """The settings of the stored labels; if they differ, those of the latest unit."""
    histogram: np.ndarray
    """float [SUPPORT_BINS]: the points and frames in which any teacher sees the point and it is
    not agreed to be occluded, as shares by their stored support."""
    by_sampler: pd.DataFrame
    by_motion: pd.DataFrame
    by_state: pd.DataFrame
    """The columns of `labeler.labels.disagreement.by_state`."""
    distances: pd.DataFrame
    """Median distance by pair of teachers."""
    repeats: pd.DataFrame
    """Of the positions at which the teacher of the row is far off, the share at which the teacher
    of the column is at the same one; NaN where that cannot be told."""
    nearly_one: tuple[str, ...]
    """A sentence for each two teachers that are hardly two opinions."""
    policies: pd.DataFrame
    """What label policies would take; the columns of `labeler.labels.trying.by_policy`."""
    trusted: pd.DataFrame | None
    """What other thresholds of the verifier would take; the columns of
    `labeler.labels.trying.what_if_trusted`. None where a clip was not judged."""
    thresholds: pd.DataFrame
    """What other values of tau and min_support would keep; the columns of
    `labeler.labels.disagreement.what_if`."""

    def kept(self, table: Literal["by_sampler", "by_motion"]) -> dict[str, tuple[int, int]]:
        """Name -> (points kept, points)."""
        frame: pd.DataFrame = getattr(self, table)
        return {
            str(name): (int(kept), int(points))
            for name, kept, points in zip(frame.index, frame["kept"], frame["queries"], strict=True)
        }


def with_teachers(clips: Iterable[Clip], names: Collection[str]) -> Iterator[Clip]:
    """The clips with the tracks of only these teachers; without those that have none of them."""
    for clip in clips:
        tracks = {name: tracks for name, tracks in clip.tracks.items() if name in names}
        infos = {name: info for name, info in clip.meta["teachers"].items() if name in tracks}
        if tracks:
            yield replace(clip, tracks=tracks, meta={**clip.meta, "teachers": infos})


def measure(
    clips: Sequence[Clip],
    dataset: Dataset,
    policies: Sequence[Policy] = (),
    trust: TrustConfig | None = None,
) -> DatasetMeasures:
    """The measures of these clips of the data set.

    Args:
        policies: policies that are measured besides all those that are installed.
        trust: thresholds of the verifier.
    """
    trust = trust or TrustConfig()
    base = AgreementConfig(**dataset.records[-1].agreement)
    counts = np.zeros(disagreement.SUPPORT_BINS)
    for clip in clips:
        counts += disagreement.support_histogram(clip.labels)
    repeats = disagreement.repeated_errors(clips)
    evidence = {name: kind for clip in clips for name, kind in clip.evidence.items()}
    return DatasetMeasures(
        clips=len(clips),
        agreement=base,
        histogram=counts / max(counts.sum(), 1),
        by_sampler=disagreement.kept_by_sampler(clips),
        by_motion=disagreement.kept_by_motion(clips),
        by_state=disagreement.by_state(clips),
        distances=disagreement.teacher_distances(clips),
        repeats=repeats,
        nearly_one=tuple(disagreement.nearly_one(repeats, evidence)),
        policies=trying.by_policy(
            clips, list(dict.fromkeys([*without_truth(), *policies])), base, trust
        ),
        trusted=trying.what_if_trusted(
            clips, sorted({*RIGHTS, trust.min_right}), [trust.min_hidden], base
        )
        if all(clip.verdict for clip in clips)
        else None,
        thresholds=disagreement.what_if(
            clips, sorted({*TAUS_PX, base.tau_px}), sorted({*SUPPORTS, base.min_support}), base
        ).drop(columns="queries"),
    )
