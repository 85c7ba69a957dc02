"""Candidates: tracks that go wrong as trackers do, made from true ones.

So a verifier is trained without running a tracker.

Source   Track-On-R, arXiv 2603.12217, section 4.4; kinds, probabilities, and sizes are those of the
         published training.
Unit     px of the raster that the truth is in; the published one is 384 x 512.

Each candidate starts as the truth with a little noise. Then the kinds of `KINDS` come one after the
other, each with its own probability, to all points of the candidate, on top of what the ones before
it made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MappingProxyType

import numpy as np

PER_CLIP = (6, 8, 10, 12)
"""Numbers of candidates that the published training draws from, for each clip."""
NOISE_PX = 1.0
LEVELS, LEVEL_PROBABILITIES = (1.0, 1.3, 0.7), (0.5, 0.25, 0.25)
"""What all probabilities of a call are multiplied with."""


def perturbed_tracks(
    truth: np.ndarray,  # [N, T, 2] px
    visible: np.ndarray,  # bool [N, T]
    number: int,
    rng: np.random.Generator,
    probabilities: dict[str, float]
    | None = None,  # by kind, exactly these; None draws the published ones
) -> np.ndarray:  # float32 [number, N, T, 2] px
    """`number` candidates for the tracks of N points, each with errors of its own."""
    if probabilities is None:
        level = rng.choice(LEVELS, p=LEVEL_PROBABILITIES)
        probabilities = {kind: level * probability for kind, (probability, _) in KINDS.items()}
    made = []
    for _ in range(number):
        xy = _noisy(truth, NOISE_PX, rng)
        for kind, (_, change) in KINDS.items():
            if rng.random() < probabilities.get(kind, 0):
                xy = change(xy, visible, rng)
        made.append(xy)
    return np.array(made, np.float32).reshape(number, *truth.shape)


def running_mean(xy: np.ndarray, frames: int) -> np.ndarray:  # [N, T, 2] -> [N, T, 2]
    """The mean of an odd number of frames around each; the first and the last are repeated."""
    half, length = frames // 2, xy.shape[1]
    padded = np.pad(xy, ((0, 0), (half, half), (0, 0)), mode="edge")
    return np.mean([padded[:, shift : shift + length] for shift in range(frames)], axis=0)


def _noisy(xy: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return xy + sigma * rng.standard_normal(xy.shape)


def _switch_at_occlusion(
    xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator, *, reach: float, sigma: float
) -> np.ndarray:
    """From a frame in which a point is hidden, it fades into the track of a visible neighbour."""
    changed, frames = xy.copy(), xy.shape[1]
    for point in np.flatnonzero(~visible.all(1)):
        start = int(rng.choice(np.flatnonzero(~visible[point])))
        near = visible[:, start] & (
            np.linalg.norm(xy[:, start] - xy[point, start], axis=-1) < reach
        )
        near[point] = False
        if not near.any():
            continue
        neighbour = rng.choice(np.flatnonzero(near))
        own = np.linspace(1, 0, frames - start)[:, None]
        changed[point, start:] = own * xy[point, start:] + (1 - own) * xy[neighbour, start:]
        changed[point, start + 1 :] = _noisy(changed[point, start + 1 :], sigma, rng)
    return changed


def _walk(xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drift away, smoothly."""
    return running_mean(xy + _random_walk(xy.shape, 2, rng), 5)


def _walk_with_spikes(xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drift away, with a jolt of all points in two frames, which may be the same."""
    xy = xy + _random_walk(xy.shape, 4, rng)
    if xy.shape[1] > 2:
        for frame in rng.integers(1, xy.shape[1] - 1, 2):
            xy[:, frame] = _noisy(xy[:, frame], 8, rng)
    return running_mean(xy, 3)


def _random_walk(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    return np.cumsum(sigma * rng.standard_normal(shape), axis=1)


def _other_points(xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every track is that of a point drawn from all, perhaps its own."""
    return xy[rng.integers(len(xy), size=len(xy))]


def _swaps(xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three times, visible points less than 24 px apart swap their tracks from a frame on."""
    xy = xy.copy()
    for _ in range(3):
        frame = int(rng.integers(xy.shape[1]))
        apart = np.linalg.norm(xy[:, None, frame] - xy[None, :, frame], axis=-1)
        seen = visible[:, frame]
        may = (apart < 24) & seen[:, None] & seen[None] & (rng.random(apart.shape) < 0.6)
        np.fill_diagonal(may, False)
        swapped = np.zeros(len(xy), bool)
        for one, other in np.argwhere(may):
            if not swapped[one] and not swapped[other]:
                swapped[[one, other]] = True
                xy[[one, other], frame:] = xy[[other, one], frame:]
        xy[swapped, frame + 1 :] = _noisy(xy[swapped, frame + 1 :], 16, rng)
    return _noisy(xy, 2, rng)


def _run_away(xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All points drift off in one direction, faster in some candidates than in others."""
    along = np.linspace(0, 1, xy.shape[1])[:, None] * (64 * rng.standard_normal(2))
    return running_mean(xy + along, 5)


Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""xy [N, T, 2], visible [N, T], and a source of chance, to xy [N, T, 2]."""


def _switch(reach: float, sigma: float) -> Change:
    return functools.partial(_switch_at_occlusion, reach=reach, sigma=sigma)


KINDS: MappingProxyType[str, tuple[float, Change]] = MappingProxyType(
    {
        "drifty": (0.30, _switch(32, 16)),
        "mild_drift": (0.40, _switch(16, 8)),
        "stable_clean": (0.50, _walk),
        "stable_with_spikes": (0.40, _walk_with_spikes),
        "catastrophic_constant": (0.10, _other_points),
        "spiky": (0.30, _swaps),
        "catastrophic_jump": (0.10, _switch(128, 32)),
        "catastrophic_growing": (0.10, _run_away),
    }
)
"""Probability and change of each kind, in the order in which they come."""
