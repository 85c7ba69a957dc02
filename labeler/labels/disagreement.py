"""Disagreement: how the teachers of some clips differ, and what other thresholds would keep, from
the raw tracks.

Every function goes once through the samples it is given, so they may be many. Distances are px of
the 256 x 256 raster.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from labeler.labels.agreement import (
    DISPUTED,
    OCCLUDED,
    VISIBLE,
    AgreementConfig,
    Labels,
    Stack,
    at_least,
    extent,
    judge,
    medoids,
    stack,
)
from labeler.labels.sample import Sample

DISTANCES_A_CLIP = 20_000
"""The most distances of a clip that enter the median of a pair of teachers, evenly chosen."""
STATES = {"visible": VISIBLE, "occluded": OCCLUDED, "disputed": DISPUTED}
OFF_PX, REPEAT_PX = 4.0, 2.0
"""A teacher farther away than the first is far off; two that are nearer than the second are at the
same position."""
LEAST_POSITIONS = 50
"""The fewest positions of which a share is given."""
NEARLY_ONE = 0.2
"""Teachers that share this much of their errors are not two opinions."""
SUPPORT_BINS = 10
MOTION_PX = (2.0, 8.0, 32.0)
"""Bounds of the classes of motion."""


def teacher_distances(samples: Iterable[Sample]) -> pd.DataFrame:
    """Median distance by pair of teachers, where both see the point; NaN where they never do. A
    square table; on the diagonal 0, NaN for a teacher that sees nothing."""
    return distances(stack(one.tracks, one.rules, one.size_hw) for one in samples)


def distances(stacks: Iterable[Stack]) -> pd.DataFrame:
    """`teacher_distances` of clips whose tracks are stacked."""
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    names, seeing = set[str](), set[str]()
    for stacked in stacks:
        names.update(stacked.names)
        seeing.update(np.array(stacked.names)[stacked.sees.any((1, 2))].tolist())
        for i, j in combinations(range(len(stacked.names)), 2):
            both = stacked.sees[i] & stacked.sees[j]
            distance = np.hypot(*(stacked.xy[i] - stacked.xy[j])[both].T)
            found[stacked.names[i], stacked.names[j]].append(_thinned(distance))
    table = pd.DataFrame(np.nan, index=sorted(names), columns=sorted(names))
    for name in seeing:
        table.loc[name, name] = 0.0
    for (a, b), parts in found.items():
        if len(together := np.concatenate(parts)):
            table.loc[a, b] = table.loc[b, a] = float(np.median(together))
    return table


def repeated_errors(samples: Iterable[Sample]) -> pd.DataFrame:
    """How far two teachers are one: of the positions where the teacher of the row is far off, the
    share in which that of the column sees the point there too.

    Nobody knows the truth here. A teacher counts as far off where at least two others of different
    evidence see the point within `REPEAT_PX` of each other, and it sees it more than `OFF_PX` from
    both; the column's teacher is neither of those two. So four teachers are needed, of at least two
    kinds of evidence.

    Returns:
        A square table; NaN on the diagonal and where fewer than `LEAST_POSITIONS` can be counted.
    """
    off: dict[tuple[str, str], int] = defaultdict(int)
    repeated: dict[tuple[str, str], int] = defaultdict(int)
    names: set[str] = set()
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw, sample.evidence)
        names.update(stacked.names)
        for (a, b), (there, both) in _repeats(stacked).items():
            off[a, b] += there
            repeated[a, b] += both
    table = pd.DataFrame(np.nan, index=sorted(names), columns=sorted(names))
    for (a, b), there in off.items():
        if there >= LEAST_POSITIONS:
            table.loc[a, b] = repeated[a, b] / there
    return table


def _repeats(stacked: Stack) -> dict[tuple[str, str], tuple[int, int]]:
    """Of one clip, by pair of teachers: where the first is far off, and where the second is there
    too."""
    k, xy, sees = len(stacked.names), stacked.xy, stacked.sees
    with np.errstate(invalid="ignore"):
        away = {
            (i, j): np.where(
                sees[i] & sees[j], np.hypot(*np.moveaxis(xy[i] - xy[j], -1, 0)), np.nan
            )
            for i, j in combinations(range(k), 2)
        }
        away |= {(j, i): distance for (i, j), distance in away.items()}
        witnesses = {
            (i, j): away[i, j] <= REPEAT_PX
            for i, j in combinations(range(k), 2)
            if stacked.families[i] != stacked.families[j]
        }
        found = {}
        for a in range(k):
            lost = {
                pair: agree & (away[a, pair[0]] > OFF_PX) & (away[a, pair[1]] > OFF_PX)
                for pair, agree in witnesses.items()
                if a not in pair
            }
            for b in range(k):
                parts = [mask for pair, mask in lost.items() if b not in pair]
                if a != b and parts:
                    there = np.logical_or.reduce(parts)
                    both = there & (away[a, b] <= REPEAT_PX)
                    found[stacked.names[a], stacked.names[b]] = int(there.sum()), int(both.sum())
    return found


def nearly_one(repeats: pd.DataFrame, evidence: Mapping[str, str]) -> list[str]:
    """A sentence for each two teachers that `repeated_errors` shows to be nearly one, the most
    alike first."""
    said = []
    for a, b in combinations(repeats.index, 2):
        shares = {(one, other): repeats.loc[one, other] for one, other in ((a, b), (b, a))}
        (one, other), share = max(shares.items(), key=lambda item: np.nan_to_num(item[1], nan=-1))
        if share >= NEARLY_ONE:
            same = evidence.get(a) and evidence.get(a) == evidence.get(b)
            counted = (
                f"they count for one opinion ({evidence[a]})"
                if same
                else "and yet they count for two opinions: leave one of them out, or declare the "
                "same evidence"
            )
            said.append(
                (
                    share,
                    f"{a} and {b} are nearly one: where {one} is far off, {other} is at the "
                    f"same wrong position in {share:.0%}; {counted}.",
                )
            )
    return [text for _, text in sorted(said, key=lambda pair: -pair[0])]


def _thinned(distance: np.ndarray) -> np.ndarray:
    """At most `DISTANCES_A_CLIP` of them, evenly chosen."""
    return distance[:: max(1, math.ceil(len(distance) / DISTANCES_A_CLIP))]


def by_state(samples: Iterable[Sample]) -> pd.DataFrame:
    """What the labels say, and how certain that is: a row for visible, occluded, and disputed.

    Returns:
        share of all points and frames; valid_share, of those, in the valid run; apart_px, the
        median distance of two teachers' positions there, seen or not: where it is large, the
        positions that are stored for such frames cannot all be right.
    """
    frames, valid = np.zeros(len(STATES), int), np.zeros(len(STATES), int)
    apart: dict[int, list[np.ndarray]] = defaultdict(list)
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw)
        for state in STATES.values():
            here = sample.labels.state == state
            frames[state] += here.sum()
            valid[state] += (here & sample.labels.valid).sum()
            for i, j in combinations(range(len(stacked.names)), 2):
                distance = np.hypot(*(stacked.xy[i] - stacked.xy[j])[here].T)
                distance = distance[np.isfinite(distance)]
                apart[state].append(_thinned(distance))
    medians = {
        state: float(np.median(np.concatenate(parts))) if sum(map(len, parts)) else np.nan
        for state, parts in apart.items()
    }
    return pd.DataFrame(
        {
            "share": [frames[state] / max(frames.sum(), 1) for state in STATES.values()],
            "valid_share": [valid[state] / max(frames[state], 1) for state in STATES.values()],
            "apart_px": [medians.get(state, np.nan) for state in STATES.values()],
        },
        index=list(STATES),
    )


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
    track, wherever a teacher sees it. A point that teachers lose moves on while some still follow
    it, and would count as still where only what most of them see was measured."""
    classes = [f"< {MOTION_PX[0]:g} px", *(f"{a:g}-{b:g} px" for a, b in pairwise(MOTION_PX))]
    classes.append(f">= {MOTION_PX[-1]:g} px")
    rows = []
    for sample in samples:
        stacked = stack(sample.tracks, sample.rules, sample.size_hw, sample.evidence)
        medoid, _ = medoids(stacked.xy, stacked.sees, stacked.families)
        moves = extent(stacked.xy, medoid, medoid >= 0)
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
        stacked = stack(sample.tracks, sample.rules, sample.size_hw, sample.evidence)
        medoid, distance = medoids(stacked.xy, stacked.sees, stacked.families)
        asked = sample.queries[:, 0].astype(int)
        for number, config in enumerate(configs):
            judged = judge(
                stacked.xy, stacked.sees, asked, medoid, distance, config, stacked.families
            )
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


def seen(labels: Labels) -> np.ndarray:  # bool [N, T]
    """Where any opinion sees the point, and they do not agree that it is occluded. Elsewhere
    support says nothing: it is 0 where nobody sees the point."""
    return (labels.support > 0) & (labels.state != OCCLUDED)


def parted(labels: Labels) -> np.ndarray:  # bool [N, T]
    """Where teachers disagree: the point is `seen`, but no majority sees it, or those who are
    within tau of the medoid are fewer than a label asks for. A frame in which nobody sees the
    point has no label, but is no disagreement."""
    least = labels.settings.get("min_support", AgreementConfig.min_support)
    return seen(labels) & ((labels.state == DISPUTED) | ~at_least(labels.support, least))


def support_histogram(labels: Labels) -> np.ndarray:  # int [SUPPORT_BINS]
    """The points and frames in which the point is `seen`, counted by their support."""
    return np.histogram(labels.support[seen(labels)], SUPPORT_BINS, (0, 1))[0]


def mean_support(labels: Labels) -> np.ndarray:  # float [T]
    """By frame, over the points that are `seen`; NaN where none is."""
    counted = seen(labels)
    support = np.where(counted, labels.support, 0).sum(0)
    return support / np.where(counted.any(0), counted.sum(0), np.nan)


def disagreement(labels: Labels) -> float:
    """In [0, 1]: the share of all points and frames in which teachers disagree (`parted`)."""
    return float(parted(labels).mean()) if labels.state.size else 0.0


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
