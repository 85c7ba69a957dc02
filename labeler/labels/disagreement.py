"""Disagreement: how the teachers of some clips differ, and what other thresholds would keep, from
the raw tracks.

Every function goes once through the samples it is given, so they may be many. Distances are px of
the 256 x 256 raster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from labeler.labels.agreement import (
    OCCLUDED,
    VISIBLE,
    AgreementConfig,
    Labels,
    extent,
    judge,
    medoids,
    stack,
)
from labeler.labels.sample import Sample

DISTANCES_A_CLIP = 20_000
"""Of each pair of teachers, so many distances of a clip enter the median at most, evenly chosen."""
MOTION_PX = (2.0, 8.0, 32.0)
"""Bounds of the classes of motion."""


def teacher_distances(samples: Iterable[Sample]) -> pd.DataFrame:
    """Median distance by pair of teachers, where both see the point; NaN where they never do. A
    square table, 0 on the diagonal."""
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    names: set[str] = set()
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw)
        names.update(stacked.names)
        for i, j in combinations(range(len(stacked.names)), 2):
            both = stacked.sees[i] & stacked.sees[j]
            distance = np.hypot(*(stacked.xy[i] - stacked.xy[j])[both].T)
            found[stacked.names[i], stacked.names[j]].append(
                distance[:: max(1, len(distance) // DISTANCES_A_CLIP)]
            )
    table = pd.DataFrame(np.nan, index=sorted(names), columns=sorted(names))
    for name in names:
        table.loc[name, name] = 0.0
    for (a, b), parts in found.items():
        distances = np.concatenate(parts)
        if len(distances):
            table.loc[a, b] = table.loc[b, a] = float(np.median(distances))
    return table


def kept_by_sampler(samples: Iterable[Sample]) -> pd.DataFrame:
    """How many queries of each sampler are kept: queries, kept, share."""
    return _shares(
        (
            (str(name), bool(kept))
            for sample in samples
            for name, kept in zip(sample.sampler, sample.labels.keep, strict=True)
        )
    )


def kept_by_motion(samples: Iterable[Sample]) -> pd.DataFrame:
    """How many queries are kept by how far they move: the diagonal of the box around the medoid
    track where most teachers see it."""
    classes = [f"< {MOTION_PX[0]:g} px", *(f"{a:g}-{b:g} px" for a, b in pairwise(MOTION_PX))]
    classes.append(f">= {MOTION_PX[-1]:g} px")
    rows = []
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw)
        medoid, _ = medoids(stacked.xy, stacked.sees)
        moves = extent(stacked.xy, medoid, sample.labels.state == VISIBLE)
        which = np.searchsorted(MOTION_PX, moves, side="right")
        rows += [
            (classes[at], bool(kept)) for at, kept in zip(which, sample.labels.keep, strict=True)
        ]
    return (
        _shares(rows)
        .reindex(classes)
        .fillna({"queries": 0, "kept": 0})
        .astype({"queries": int, "kept": int})
    )


def what_if(
    samples: Iterable[Sample],
    tau_px: Sequence[float],
    min_support: Sequence[float],
    base: AgreementConfig,
) -> pd.DataFrame:
    """What other thresholds would keep: a row per tau and least support, the other settings as in
    `base`.

    Returns:
        tau_px, min_support, queries (all of the samples), kept, share of the queries, and
        label_share: of all points and frames, those that would be visible labels.
    """
    configs = [
        replace(base, tau_px=float(tau), min_support=float(least))
        for tau in tau_px
        for least in min_support
    ]
    kept, labels = np.zeros(len(configs), int), np.zeros(len(configs), int)
    queries = positions = 0
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw)
        medoid, distance = medoids(stacked.xy, stacked.sees)
        asked = sample.queries[:, 0].astype(int)
        for number, config in enumerate(configs):
            judged = judge(stacked.xy, stacked.sees, asked, medoid, distance, config)
            kept[number] += judged.keep.sum()
            labels[number] += (
                judged.valid & (judged.state == VISIBLE) & judged.keep[:, None]
            ).sum()
        queries += len(asked)
        positions += medoid.size
    return pd.DataFrame(
        {
            "tau_px": [config.tau_px for config in configs],
            "min_support": [config.min_support for config in configs],
            "queries": queries,
            "kept": kept,
            "share": kept / max(queries, 1),
            "label_share": labels / max(positions, 1),
        }
    )


def disagreement(labels: Labels) -> float:
    """In [0, 1]: how far support is from 1 on average, over the points and frames that are not
    agreed to be occluded."""
    counted = labels.state != OCCLUDED
    return float(1 - labels.support[counted].mean()) if counted.any() else 0.0


def _shares(rows: Iterable[tuple[str, bool]]) -> pd.DataFrame:
    """queries, kept, and share by name."""
    table = pd.DataFrame(list(rows), columns=["name", "kept"])
    grouped = table.groupby("name")["kept"]
    return pd.DataFrame(
        {
            "queries": grouped.count(),
            "kept": grouped.sum().astype(int),
            "share": grouped.mean().astype(float),
        }
    ).rename_axis(None)
