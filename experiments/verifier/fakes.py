"""Fakes: teachers made of the truth and of mistakes, so that a verifier has met stronger and
stranger ones than exist here.

A fake teacher follows the truth with some noise and drift, and fails as trackers do: it jumps,
holds still, drifts off, goes over to a neighbour or to what passes in front, and finds the point
again or does not. What it says of its own visibility and confidence comes late, is noisy, and is
about as honest as what real trackers say. Some know no confidence, some not even visibility; some
don't track before the query; some copy another teacher in most of their tracks, as methods of one
family do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teachers import Tracks, VisibleRule

RULES = ("v > 0.9", "v*c > 0.6", "v*c > 0.5", "v > 0.5", "v > 0.6", "none")


@dataclass(frozen=True)
class Truth:
    """What is known of N points in a procedural clip of T frames; px of the clip, which is 256 x
    256."""

    query_t: np.ndarray  # int [N]
    xy: np.ndarray  # [N, T, 2], also where hidden
    visible: np.ndarray  # bool [N, T]
    cover: np.ndarray
    """[2, N, T, 2]: the point that first covers it after, and before, its query; NaN if none
    does."""


@dataclass(frozen=True)
class _Habits:
    """How one fake teacher is wrong."""

    jitter_px: float
    drift_px: float
    failures: float
    """Expected number of a track."""
    finds_again: float
    """Chance that a failure ends."""
    keeps_through: float
    """Chance to be right again after the point was hidden."""
    admits: float
    """Chance to say that it lost the point."""
    sees_hidden: float
    """Chance to call a hidden spell visible."""
    hides_seen: float
    """Chance of a false gap in a track."""
    late: int
    """Frames by which its flag lags."""
    sure: float
    """Logit of its visibility."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Habits:
        def log_uniform(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))

        return cls(
            log_uniform(0.03, 1.0), log_uniform(0.01, 0.5), log_uniform(0.03, 1.5),
            rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.95), rng.uniform(0, 0.9), rng.uniform(0,
            0.7), log_uniform(0.01, 0.4), int(rng.integers(0, 4)), rng.uniform(1.5, 6),
        )  # fmt: skip


def fake(
    rng: np.random.Generator,
    truth: Truth,
    models: Sequence[tuple[Tracks, VisibleRule]],
    hardness: np.ndarray,
) -> tuple[Tracks, VisibleRule]:
    """A teacher that never was. `models` are those it may copy; `hardness` [N] scales how often a
    track fails."""
    habits = _Habits.draw(rng)
    n, t = truth.visible.shape
    xy, lost = _positions(rng, truth, habits, hardness)
    sees = _flags(rng, truth, habits, lost)
    rule = VisibleRule.parse(str(rng.choice(RULES)))
    if models and rng.random() < 0.3:
        model, model_rule = models[rng.integers(len(models))]
        copied = (rng.random(n) < rng.uniform(0.5, 0.95)) & np.isfinite(model.xy).all((1, 2))
        xy[copied] = model.xy[copied] + rng.normal(0, rng.uniform(0, 0.2), (copied.sum(), t, 2))
        sees[copied] = model_rule(model)[copied]
    tracks = _said(rng, xy, sees, truth, habits, rule)
    if rng.random() < 0.12:
        unknown = np.arange(t) < truth.query_t[:, None]
        for value in (tracks.xy, tracks.visibility, tracks.confidence):
            value[unknown] = np.nan
    return tracks, rule


def _positions(
    rng: np.random.Generator, truth: Truth, habits: _Habits, hardness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[N, T, 2] positions, and bool [N, T] where the point is lost."""
    n, t = truth.visible.shape
    xy = truth.xy + rng.normal(0, habits.jitter_px, (n, t, 2))
    lost = np.zeros((n, t), bool)
    for i in range(n):
        query = truth.query_t[i]
        for way, frames in ((0, np.arange(query, t)), (1, np.arange(query, -1, -1))):
            if len(frames) < 2:
                continue
            walk = np.cumsum(
                rng.normal(0, habits.drift_px * rng.exponential(), (len(frames), 2)), axis=0
            )
            walk[0] = 0
            path, wrong = _walk(rng, truth, habits, hardness[i], i, way, frames)
            at = path + walk
            xy[i, frames[1:]] = at[1:] + (xy[i, frames[1:]] - truth.xy[i, frames[1:]])
            lost[i, frames] = wrong
        xy[i, query] = truth.xy[i, query]
        lost[i, query] = False
    return xy, lost


def _walk(
    rng: np.random.Generator,
    truth: Truth,
    habits: _Habits,
    hardness: float,
    i: int,
    way: int,
    frames: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where it believes the point to be in `frames`, from the query on; and where that is wrong."""
    right = truth.xy[i, frames]
    path, wrong = right.copy(), np.zeros(len(frames), bool)
    chance = habits.failures * hardness / truth.visible.shape[1]
    j = 1
    while j < len(frames):
        seen = truth.visible[i, frames[j]]
        goes_hidden = not seen and truth.visible[i, frames[j - 1]]
        fails = rng.random() < (1 - habits.keeps_through if goes_hidden else chance)
        if not fails:
            j += 1
            continue
        length = int(rng.integers(1, 4)) if rng.random() < 0.2 else int(rng.geometric(0.15))
        end = min(len(frames), j + length) if rng.random() < habits.finds_again else len(frames)
        path[j:end] = _astray(rng, truth, i, way, frames, j, path[j - 1], hidden=goes_hidden)[
            : end - j
        ]
        wrong[j:end] = np.hypot(*(path[j:end] - right[j:end]).T) > 2
        j = end
    return path, wrong


def _astray(
    rng: np.random.Generator,
    truth: Truth,
    i: int,
    way: int,
    frames: np.ndarray,
    j: int,
    last: np.ndarray,
    hidden: bool,
) -> np.ndarray:
    """[rest, 2]: a wrong path from frame number j on."""
    rest = frames[j:]
    kinds = (
        ("cover", "hold", "on", "neighbour")
        if hidden
        else ("jump", "neighbour", "hold", "drift", "far", "slip")
    )
    kind = rng.choice(kinds)
    if kind == "cover" and np.isfinite(truth.cover[way, i, 0, 0]):
        other = truth.cover[way, i, rest]
        return other + (last - other[0]) * (rng.random() < 0.5)
    if kind in ("neighbour", "cover"):
        away = np.hypot(*(truth.xy[:, rest[0]] - last).T) + 1e3 * ~truth.visible[:, rest[0]]
        away[i] = np.inf
        return truth.xy[np.argsort(away)[rng.integers(min(3, len(away)))], rest].copy()
    if kind == "hold":
        return np.repeat(last[None], len(rest), 0)
    if kind in ("drift", "on"):
        speed = (
            rng.normal(0, 1.5, 2)
            if kind == "drift"
            else truth.xy[i, frames[j - 1]] - truth.xy[i, frames[max(j - 2, 0)]]
        )
        base = truth.xy[i, rest] if kind == "drift" else last
        return base + np.arange(1, len(rest) + 1)[:, None] * speed
    if kind == "slip":  # a few px off, and with the surface
        return truth.xy[i, rest] + rng.normal(0, 1, 2) * np.exp(rng.uniform(np.log(1.5), np.log(8)))
    if kind == "far":
        return (
            np.repeat(rng.uniform(0, 255, (1, 2)), len(rest), 0)
            + truth.xy[i, rest]
            - truth.xy[i, rest[0]]
        )
    return truth.xy[i, rest] + rng.normal(0, 1, 2) * np.exp(rng.uniform(np.log(3), np.log(60)))


def _flags(rng: np.random.Generator, truth: Truth, habits: _Habits, lost: np.ndarray) -> np.ndarray:
    """bool [N, T]: whether it says to see the point."""
    n, t = truth.visible.shape
    sees = truth.visible.copy()
    for i in range(n):
        query = truth.query_t[i]
        if rng.random() < habits.sees_hidden:
            sees[i] = True
        late = int(rng.integers(0, habits.late + 1))
        if late:
            flag = sees[i].copy()
            sees[i, query + late :] = flag[query : t - late]
            sees[i, : max(0, query - late + 1)] = flag[late : late + max(0, query - late + 1)]
        if rng.random() < habits.hides_seen:
            start = rng.integers(t)
            sees[i, start : start + rng.geometric(0.2)] = False
    admits = (rng.random(n) < habits.admits)[:, None]
    sees &= ~(lost & admits)
    sees |= lost & ~admits & (rng.random((n, 1)) < 0.5)
    sees[np.arange(n), truth.query_t] = True
    return sees


def _said(
    rng: np.random.Generator,
    xy: np.ndarray,
    sees: np.ndarray,
    truth: Truth,
    habits: _Habits,
    rule: VisibleRule,
) -> Tracks:
    """The tracks with a visibility and a confidence that give `sees` by `rule`, mostly."""
    shape = sees.shape
    nan = np.full(shape, np.nan, np.float32)
    xy = xy.astype(np.float32)
    if rule.quantity == "none":
        return Tracks(xy, nan.copy(), nan.copy())
    smooth = np.cumsum(rng.normal(0, 0.3, shape), 1) / 2
    logit = np.where(sees, habits.sure, -habits.sure) + rng.normal(0, 0.4, shape) + smooth
    if rng.random() < 0.2:
        logit *= 100  # says 0 or 1
    visibility = 1 / (
        1 + np.exp(-np.clip(logit + np.log(rule.threshold / (1 - rule.threshold)), -30, 30))
    )
    error = np.hypot(*np.moveaxis(xy - truth.xy, -1, 0))
    about = np.clip(rng.uniform(0.2, 1) * (3 - error), -4, 3) + rng.normal(0, 0.7, shape)
    confidence = 1 / (1 + np.exp(-about - rng.uniform(0, 2)))
    if rule.quantity == "v" and rng.random() < 0.5:
        confidence = nan.copy()
    if rule.quantity == "v*c":
        visibility = visibility**0.5  # the product is compared
        confidence = np.where(sees, confidence ** rng.uniform(0.1, 0.5), confidence)
    return Tracks(xy, visibility.astype(np.float32), confidence.astype(np.float32))
