"""Verifier: which of the teachers' positions to believe, and where a point is hidden.

In   frames, queries, and the raw tracks of any number of teachers, in any order. Out: `Verdict`:
     for each teacher, query, and frame the probability that its position is right, for each query
     and frame the probability that the point is hidden.

    verifier = Verifier.load()                                  # the one that is shipped
    verdict = verifier.judge(frames, queries, tracks, rules)    # the stored, decoded clip
    stored = to_uint8(verdict.right), to_uint8(verdict.hidden)  # [K, N, T], [N, T] for a shard
    best = verdict.right.argmax(0)                              # [N, T]: whom to follow
    trusted = verdict.right.max(0) > 0.9                        # [N, T]: where to follow anyone

A position is right if the point is visible there, and within 2 px of the 256 x 256 raster; in the
query's own frame too. Give it the frames as the shard stores them (decoded, not the originals), and
all the clip's queries at once: they are each other's neighbours. `version` names code and weights;
store it beside the verdict, since verdicts of two versions must not be mixed.

The verifier never hears a teacher's name: it weighs `labeler.labels.evidence`, so a teacher that
it never met is judged like the others. It is a small network: each position is seen alone, then
beside what all the teachers' positions have in common (mean and maximum over teachers), then beside
its neighbours in time; twice.

Weights  weights/verifier.safetensors, trained by `python -m experiments.verifier.train`; Apache-2.0
Runs     in numpy, so that relabelling needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from labeler.labels.evidence import OWN, SHARED, gather
from teachers import CheckpointError, Tracks, VisibleRule
from teachers.tracks import checked_frames, checked_queries

SHIPPED = Path(__file__).parent / "weights" / "verifier.safetensors"
CODE = 1
"""Counts the changes of the evidence and of the network that change a verdict."""
DILATIONS = (1, 3)
"""In frames, of the two steps over time."""
AT_ONCE = 16
"""Queries that go through the network together: few, so that they stay in the cache."""


@dataclass(frozen=True)
class Verdict:
    """What the verifier says of one clip."""

    right: np.ndarray
    """float32 [K, N, T] in [0, 1]: the probability that the point is visible and within 2 px (of
    the 256 raster) of this teacher's position; 0 where the teacher gives none. Teachers as in
    `tracks`."""
    hidden: np.ndarray
    """float32 [N, T] in [0, 1]: the probability that the point is hidden, or out of the frame."""


class Verifier:
    """Judges tracks. `Verifier.load()` is the one that is shipped."""

    def __init__(self, weights: Mapping[str, np.ndarray], version: str) -> None:
        self.weights = weights
        self.version = version
        """Of the code and the weights: equal versions give equal verdicts on one machine."""

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> Verifier:
        """The verifier in a safetensors file.

        Raises:
            CheckpointError: no such file, or not a verifier that this version can run.
        """
        try:
            data = Path(path).read_bytes()
            weights = load(data)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: not a readable file of verifier weights ({error})."
            ) from error
        wanted = shapes(weights["first.w"].shape[1] if "first.w" in weights else 0)
        found = {name: value.shape for name, value in weights.items()}
        if found != wanted:
            wrong = sorted(
                name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
            )
            raise CheckpointError(
                f"{path}: not a verifier of this version of tapdistill: {len(wrong)} of its "
                f"{len(wanted)} arrays are wrong (first: {wrong[0]!r} is {found.get(wrong[0])}, "
                f"not {wanted.get(wrong[0])})."
            )
        return cls(weights, f"{CODE}.{hashlib.sha256(data).hexdigest()[:12]}")

    def judge(
        self,
        frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
        queries: np.ndarray,  # [N, 3] (t, x, y) px of the clip
        tracks: Mapping[str, Tracks],  # [N, T, ...] each, px of the clip
        rules: Mapping[str, VisibleRule],
    ) -> Verdict:
        """Judge every position of every teacher in a clip.

        Names serve only to find each teacher's rule; another order gives the same verdict in that
        order. A teacher that is NaN everywhere changes nothing for the others.

        Raises:
            ConfigError: frames or queries that a teacher would refuse.
        """
        frames = checked_frames(frames)
        queries = checked_queries(queries, frames.shape)
        there = {name: each for name, each in tracks.items() if np.isfinite(each.xy).any()}
        right = np.zeros((len(tracks), len(queries), len(frames)), np.float32)
        hidden = np.zeros(right.shape[1:], np.float32)
        evidence = gather(frames, queries, there, rules)
        rows = np.array([list(tracks).index(name) for name in there], int)
        for first in range(0, len(queries), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            logits, hidden_logits = self.logits(
                evidence.own[:, part], evidence.shared[part], evidence.placed[:, part]
            )
            right[rows, part] = np.where(evidence.placed[:, part], _sigmoid(logits), 0)
            hidden[part] = _sigmoid(hidden_logits)
        return Verdict(right, hidden)

    def logits(
        self,
        own: np.ndarray,  # float32 [K, N, T, len(OWN)]
        shared: np.ndarray,  # float32 [N, T, len(SHARED)]
        placed: np.ndarray,  # bool [K, N, T]
    ) -> tuple[np.ndarray, np.ndarray]:  # [K, N, T], [N, T]
        """The network. experiments/verifier/network.py is the same in torch; a test holds them
        equal."""
        w = self.weights
        there = placed[..., None].astype(np.float32)
        count = np.maximum(there.sum(0), 1)
        own = (own - w["own.mean"]) / w["own.std"] * there
        shared = (shared - w["shared.mean"]) / w["shared.std"]
        h = _relu(own @ w["first.w"] + (shared @ w["first.shared"] + w["first.b"]))
        h = _relu(h @ w["second.w"] + w["second.b"]) * there
        for i, dilation in enumerate(DILATIONS):
            together = _together(h, count) @ w[f"pool{i}.w"] + w[f"pool{i}.b"]
            h = (h + _relu(h @ w[f"mix{i}.w"] + together)) * there
            past = _over_time(h, w[f"time{i}.k"], dilation)
            h = (h + _relu(past @ w[f"time{i}.w"] + w[f"time{i}.b"])) * there
        g = _relu(
            _together(h, count) @ w["hidden.pool"] + shared @ w["hidden.shared"] + w["hidden.b"]
        )
        g = g + _relu(_over_time(g, w["hidden.k"], 1) @ w["hidden.w"] + w["hidden.b2"])
        return (h @ w["right.w"] + w["right.b"])[..., 0], (g @ w["hidden.out"] + w["hidden.b3"])[
            ..., 0
        ]

    @cached_property
    def size(self) -> int:
        """Number of weights."""
        return sum(value.size for value in self.weights.values())


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a verifier whose layers are `width` wide."""
    own, shared, taps = len(OWN), len(SHARED), 9
    out: dict[str, tuple[int, ...]] = {
        "own.mean": (own,), "own.std": (own,), "shared.mean": (shared,), "shared.std": (shared,),
        "first.w": (own, width), "first.shared": (shared, width), "first.b": (width,),
        "second.w": (width, width), "second.b": (width,),
        "right.w": (width, 1), "right.b": (1,),
        "hidden.pool": (2 * width, width), "hidden.shared": (shared, width), "hidden.b": (width,),
        "hidden.k": (taps, width), "hidden.w": (width, width), "hidden.b2": (width,),
        "hidden.out": (width, 1), "hidden.b3": (1,),
    }  # fmt: skip
    for i in range(len(DILATIONS)):
        out |= {
            f"pool{i}.w": (2 * width, width), f"pool{i}.b": (width,), f"mix{i}.w": (width, width),
            f"time{i}.k": (taps, width), f"time{i}.w": (width, width), f"time{i}.b": (width,),
        }  # fmt: skip
    return out


def to_uint8(probability: np.ndarray) -> np.ndarray:
    """Probabilities as a shard stores them: 255 is 1."""
    return np.rint(probability * np.float32(255)).astype(np.uint8)


def from_uint8(stored: np.ndarray) -> np.ndarray:
    """float32: the probabilities that `to_uint8` stored, to within 1/510."""
    return stored.astype(np.float32) / np.float32(255)


def _together(h: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[N, T, 2 C]: mean and maximum over the teachers that have a position; `h` [K, N, T, C] is 0
    elsewhere, and never negative."""
    return np.concatenate([h.sum(0) / count, h.max(0, initial=0)], -1)


def _over_time(h: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    """Each channel of `h` [..., T, C] with its own `kernel` [taps, C] over time; 0 before and
    after the clip."""
    t, half = h.shape[-2], len(kernel) // 2
    out = np.zeros_like(h)
    for tap, weight in enumerate(kernel):
        shift = (tap - half) * dilation
        if abs(shift) < t:
            here = slice(max(0, -shift), t - max(0, shift))
            there = slice(max(0, shift), t + min(0, shift))
            out[..., here, :] += h[..., there, :] * weight
    return out


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
