"""Evaluation: a tracker against exact tracks, as TAP-Vid counts.

In   teachers or students, clips with truth. Out: a table row per tracker and clip, and means with
     bootstrap intervals over clips.
Labels are scored in `student.evaluation.labels`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from student.clip import TestClip
from student.evaluation.metrics import QueryMode, score
from teachers import ConfigError, Teacher, Tracks, VisibleRule

FIGURES = ("AJ", "delta_avg", "OA")


def compare(
    trackers: Mapping[str, Teacher], clips: Iterable[TestClip], query_mode: QueryMode = "first"
) -> pd.DataFrame:
    """A row per tracker and clip: `model`, `clip`, every figure of
    `student.evaluation.metrics.score`, `points`, `frames`, `seconds`.

    `query_mode` says which frames count; the queries are the clips' own. One clip at a time is in
    memory.
    """
    rows = []
    for clip in clips:
        for name, tracker in trackers.items():
            (found,), seconds = track_clips(tracker, [clip])
            (figures,) = score_tracks([found], tracker.info.rule, [clip], query_mode).to_dict(
                "records"
            )
            figures |= {"points": len(clip.queries), "frames": len(clip.frames), "seconds": seconds}
            rows.append({"model": name, "clip": clip.name, **figures})
    return pd.DataFrame(rows)


def track_clips(
    teacher: Teacher, clips: Sequence[TestClip], seen: Callable[[], None] | None = None
) -> tuple[list[Tracks], float]:
    """A tracker's tracks of every clip, and the wall time in seconds; `seen` is called after each
    clip."""
    found, started = [], time.perf_counter()
    for clip in clips:
        found.append(teacher.track(clip.frames, clip.queries))
        if seen:
            seen()
    return found, time.perf_counter() - started


def score_tracks(
    tracks: Sequence[Tracks],
    rule: VisibleRule,
    clips: Sequence[TestClip],
    query_mode: QueryMode = "first",
) -> pd.DataFrame:
    """One row per clip: every figure of `student.evaluation.metrics.score`."""
    return pd.DataFrame(
        [
            score(
                clip.queries,
                clip.xy,
                clip.visible,
                found.xy,
                rule(found),
                clip.frames.shape[1:3],
                query_mode,
            )
            for found, clip in zip(tracks, clips, strict=True)
        ]
    )


def with_interval(
    values: npt.ArrayLike, seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """(mean, low, high): the mean over clips and its 95 % bootstrap interval, by percentiles: too
    narrow where clips are few. NaN clips are left out."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    means = np.random.default_rng(seed).choice(known, (draws, len(known))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(known.mean()), float(low), float(high)


def minus(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Every tracker minus one of them, clip by clip: what they have in common, as that some clips
    are harder, falls out.

    Args:
        scores: as `compare` returns them.
        baseline: the `model` that is subtracted.

    Returns:
        For each other `model` and each `figure` of AJ, delta_avg, and OA: the mean difference in
        [-1, 1] with its bootstrap interval (`mean`, `low`, `high`: see `with_interval`), on how
        many clips it is above 0 (`above`), and how many clips have both figures (`clips`).
    """
    by_model = dict(list(scores.groupby("model", sort=False)))
    if baseline not in by_model:
        raise ConfigError(f"no rows of {baseline!r}: there are {', '.join(map(str, by_model))}.")
    rows = []
    for model, ones in by_model.items():
        if model == baseline:
            continue
        for figure in FIGURES:
            # Every tracker has a row for every clip, in the same order.
            difference = ones[figure].to_numpy() - by_model[baseline][figure].to_numpy()
            mean, low, high = with_interval(difference)
            rows.append(
                {
                    "model": model,
                    "figure": figure,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "above": int((difference > 0).sum()),
                    "clips": int(np.isfinite(difference).sum()),
                }
            )
    return pd.DataFrame(rows)
