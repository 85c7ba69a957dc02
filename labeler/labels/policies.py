"""Label policies: which teacher's track a student learns from, query by query.

    random            one teacher per query, drawn uniformly; ignores valid and keep (CoTracker3,
                      section 3.2). The reader of shards offers it one teacher a clip, as the
                      published script does, and so reads no other member
    random-agreeing   one teacher per query, drawn from those that agree in at least 8 valid visible
                      frames; used where it agrees itself
    medoid            the teacher nearest to all seeing teachers, frame by frame (ablation)
    mean, median      of the seeing teachers, per coordinate (ablations; worse: CoTracker3, table 8)
    oracle            the teacher nearest to the truth, query by query (upper bound)

A policy is a function of the stored raw tracks, so it costs no teacher and is chosen when the
student is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from labeler.labels.agreement import (
    OCCLUDED,
    RASTER,
    VISIBLE,
    AgreementConfig,
    agree,
    agreeing,
    medoids,
    stack,
)
from teachers import ConfigError, Tracks, VisibleRule

Policy = Literal["random", "random-agreeing", "medoid", "mean", "median", "oracle"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Target:
    """What a student is trained on: one track per query."""

    xy: np.ndarray
    """float32 [N, T, 2] px of the clip; NaN where `used` is False."""
    visible: np.ndarray
    """bool [N, T]."""
    used: np.ndarray
    """bool [N, T]: frames that enter the loss."""
    teacher: np.ndarray
    """int [N]: index of the teacher in the order of names; -1 where frames come from several, or
    none was found."""
    occluded: np.ndarray | None = None
    """bool [N, T]: frames that are called occluded, where not all of them are used; else None."""

    @property
    def called_occluded(self) -> np.ndarray:
        """bool [N, T]: frames that are called occluded, used or not."""
        return self.used & ~self.visible if self.occluded is None else self.occluded


def choose(
    policy: Policy,
    tracks: Mapping[str, Tracks],
    rules: Mapping[str, VisibleRule],
    queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    config: AgreementConfig | None = None,
    truth_xy: np.ndarray | None = None,  # [N, T, 2] px of the clip
    truth_visible: np.ndarray | None = None,  # [N, T]
) -> Target:
    """The labels of one clip by `policy`.

    Raises:
        ConfigError: no such policy, or "oracle" without a truth.
    """
    config = config or AgreementConfig()
    stacked = stack(tracks, rules, size_hw)  # [K, N, T, 2] px of the 256 raster
    xy, sees = stacked.xy, stacked.sees
    finite = np.isfinite(xy).all(-1)
    to_clip = np.array([size_hw[1] / RASTER, size_hw[0] / RASTER], np.float32)
    if policy == "random":
        drawn = _draw(np.ones(sees.shape[:2], bool) & finite.any(-1), rng)
        return _from_one_teacher(xy, sees, finite, drawn, to_clip)
    if policy == "oracle":
        if truth_xy is None or truth_visible is None:
            raise ConfigError(
                "policy 'oracle' needs exact tracks: it is for procedural video, not for real one."
            )
        distance = np.hypot(*np.moveaxis(xy - truth_xy[None] / to_clip, -1, 0))
        shown = truth_visible[None] & np.isfinite(distance)
        mean = np.where(shown, np.nan_to_num(distance), 0).sum(-1) / np.maximum(shown.sum(-1), 1)
        drawn = np.where(shown.any((0, 2)), np.where(shown.any(-1), mean, np.inf).argmin(0), -1)
        return _from_one_teacher(xy, sees, finite, drawn, to_clip)
    labels = agree(xy, sees, queries[:, 0].astype(int), config)
    if policy == "random-agreeing":
        agrees = agreeing(xy, sees, labels.state, config.tau_px) & labels.valid
        enough = (agrees & sees & (labels.state == VISIBLE)).sum(-1) >= config.min_visible_frames
        return _from_one_teacher(xy, sees, agrees, _draw(enough, rng), to_clip)
    if policy == "medoid":
        medoid, _ = medoids(xy, sees)
        blended = np.take_along_axis(xy, np.maximum(medoid, 0)[None, ..., None], axis=0)[0]
    elif policy in ("mean", "median"):
        seen = np.ma.masked_array(np.nan_to_num(xy), ~np.broadcast_to(sees[..., None], xy.shape))
        over_teachers = seen.mean if policy == "mean" else partial(np.ma.median, seen)
        blended = np.asarray(over_teachers(axis=0).filled(np.nan), np.float32)
    else:
        raise ConfigError(f"no label policy {policy!r}: there are {', '.join(POLICIES)}.")
    visible = labels.state == VISIBLE
    kept = labels.valid & labels.keep[:, None]
    used = kept & visible
    return Target(
        np.where(used[..., None], blended * to_clip, np.nan).astype(np.float32),
        visible,
        used,
        np.full(len(queries), -1),
        kept & (labels.state == OCCLUDED),
    )


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int [N]: a uniform draw among the teachers that `allowed` [K, N] names for each query; -1
    where it names none."""
    score = np.where(allowed, rng.random(allowed.shape), -1.0)
    return np.where(allowed.any(0), score.argmax(0), -1)


def _from_one_teacher(
    xy: np.ndarray, sees: np.ndarray, use: np.ndarray, drawn: np.ndarray, to_clip: np.ndarray
) -> Target:
    rows = np.arange(len(drawn))
    pick = np.maximum(drawn, 0)
    used = use[pick, rows] & (drawn >= 0)[:, None]
    return Target(
        np.where(used[..., None], xy[pick, rows] * to_clip, np.nan).astype(np.float32),
        sees[pick, rows] & used,
        used,
        drawn,
    )
