"""The published verifier with its weights: frames, queries, and tracks in, scores out.

It is not a teacher: it tracks nothing, but says which of several teachers to believe. It must be
asked for by name and is never a default, because its file contains weights that forbid commercial
use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from teachers.checkpoints.cache import cached_checkpoint
from teachers.checkpoints.files import (
    LICENCE,
    load_weights,
    no_weights,
    read_metadata,
    stored_config,
)
from teachers.errors import CheckpointError, ConfigError
from teachers.info import Preset
from teachers.layers.device import pick_device
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.network_teacher import architecture_of, untrained
from teachers.published import OWN_LICENCE, PUBLISHED
from teachers.registry import VERIFIERS
from teachers.tracks import checked_frames, has_position
from teachers.verifier.network import VerifierConfig, VerifierNetwork

PLACES_AT_ONCE = 2**19
"""How many positions (of a teacher, for a query in a frame) are described together, 1 KiB each."""


@dataclass(frozen=True, kw_only=True)
class VerifierInfo:
    """Which verifier judged these tracks."""

    name: str
    architecture: str
    licence: str
    """The licence of the weights. Labels that they chose are made with them."""
    checkpoint_sha256: str
    """"random" for weights that were never trained."""
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class TrackOnVerifier:
    """Scores the positions that teachers give.

    24 frames, 256 queries, and 6 teachers take about 40 s of a CPU core, three quarters of it for
    the frames alone. The features of all frames are held in memory: 6.3 MB per frame.
    """

    presets: ClassVar[Mapping[str, Callable[[], VerifierConfig]]] = {
        "official": VerifierConfig,
        "mini": VerifierConfig.mini,
    }
    network = VerifierNetwork
    weights = PUBLISHED["track-on-r-verifier"]

    def __init__(
        self,
        *,
        name: str,
        memory: Memory = DEFAULT_MEMORY,
        preset: Preset = "official",
        checkpoint: str | None = None,
        device: str = "auto",
    ) -> None:
        """Make a verifier.

        Args:
            name: one of `names()`, or any other for a file of one's own.
            preset: "official" or "mini", which network; a file that says so itself needs none.
            checkpoint: file with its weights; "random" must be asked for by name, and is for tests.
            device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
            memory: see `Memory`; of it only `frames_per_block` counts here.

        Raises:
            ConfigError: no such preset or device.
            CheckpointError: no weights, or not those of a verifier; the message says whose.
        """
        if preset not in self.presets:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(self.presets)}.")
        if checkpoint is None:
            raise no_weights(name, self.weights)
        config = stored_config(checkpoint, self.presets[preset]())
        self.device, self.memory = pick_device(device), memory
        self.model = untrained(self.network, config)
        official = config == VerifierConfig()
        random = checkpoint == "random"
        licence = self.weights.licence if official else OWN_LICENCE
        self.info = VerifierInfo(
            name=name,
            architecture=architecture_of("Track-On-R's verifier", self.model, official),
            licence=read_metadata(checkpoint).get(LICENCE, licence),
            checkpoint_sha256="random" if random else load_weights(self.model, checkpoint, name),
            settings={"resolution": config.resolution},
        )
        self.model.to(self.device)

    def score(
        self,
        frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
        queries: np.ndarray,  # [N, 3] (t, x, y), px of the frames
        xy: np.ndarray,  # [K, N, T, 2] px of the frames; NaN where a teacher has no position
    ) -> np.ndarray:  # float32 [K, N, T]
        """Scores of positions, which may only be compared with those for the same query and frame.

        Their softmax over K says how much to rely on each teacher. A position that is NaN is
        treated as if its teacher were not there, and its score is NaN. If no teacher has a position
        in any frame from the query's on, there is nothing to go by, and all scores for the query
        are NaN. Frames before the query are judged too, though no evidence is taken from them.

        Raises:
            ConfigError: shapes do not fit together, or a query is not in the clip.
            CheckpointError: the network computes NaN, so its weights are broken.
        """
        queries, xy = _checked(checked_frames(frames), queries, xy)
        scores = np.full(xy.shape[:3], np.nan, np.float32)
        if scores.size == 0:
            return scores
        at_once = max(1, PLACES_AT_ONCE // (xy.shape[0] * xy.shape[2]))
        with torch.inference_mode():
            features = self._encode(frames)
            for first in range(0, len(queries), at_once):
                part = slice(first, first + at_once)
                of = torch.tensor(queries[part], device=self.device)
                positions = torch.tensor(xy[:, part], device=self.device)
                logits = self.model.judge(features, frames.shape[1:3], of, positions)
                scores[:, part] = logits.cpu().numpy()
        self._require_finite(scores, queries, xy)
        return scores

    def _encode(self, frames: np.ndarray) -> torch.Tensor:  # -> [T, channels, h, w]
        """The features of frames, which go to the device one block at a time."""
        block = self.memory.frames(self.device)
        encoded = []
        for t in range(0, len(frames), block):
            part = torch.tensor(frames[t : t + block], device=self.device).permute(0, 3, 1, 2)
            encoded.append(self.model.encode(part, self.memory))
        return torch.cat(encoded)

    def _require_finite(self, scores: np.ndarray, queries: np.ndarray, xy: np.ndarray) -> None:
        placed = has_position(xy)
        evidence = placed.any(0) & (np.arange(xy.shape[2]) >= queries[:, :1])  # [N, T]
        broken = placed & evidence.any(1, keepdims=True) & ~np.isfinite(scores)
        if broken.any():
            raise CheckpointError(
                f"the verifier {self.info.name!r} computed NaN or infinity for {int(broken.sum())} "
                f"of {int(placed.sum())} positions: its weights are broken. See what is wrong with "
                f"their file: `tapdistill teachers check {self.info.name} FILE`."
            )


def load_verifier(
    name: str, *, checkpoint: str | None = None, device: str = "auto", **settings: Any
) -> TrackOnVerifier:
    """Make a verifier by name, as `teachers.load` makes a teacher.

    Args:
        name: one of `names()`; or any other name together with a checkpoint.
        checkpoint: file with its weights; None takes the one that `tapdistill teachers pull` got.
        device: see `TrackOnVerifier`.
        **settings: see `TrackOnVerifier`.

    Raises:
        ConfigError: there is no such verifier, preset, or device.
        CheckpointError: there are no weights, or not those of a verifier.
    """
    if checkpoint is None and name not in names():
        raise ConfigError(f"no verifier {name!r}: there is {', '.join(names())}.")
    if checkpoint is None and settings.get("preset", "official") == "official":
        cached = cached_checkpoint(name)
        checkpoint = None if cached is None else str(cached)
    return TrackOnVerifier(name=name, checkpoint=checkpoint, device=device, **settings)


def names() -> list[str]:
    """Names of the verifiers whose files are known."""
    return [entry.name for entry in VERIFIERS]


def _checked(
    frames: np.ndarray, queries: np.ndarray, xy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, 3], [K, N, T, 2], if they fit each other and the frames; else a ConfigError."""
    queries, xy = np.asarray(queries, np.float32), np.asarray(xy, np.float32)
    if queries.ndim != 2 or queries.shape[1] != 3:
        raise ConfigError(f"queries must be an array [N, 3] of (t, x, y), not {queries.shape}.")
    if xy.ndim != 4 or len(xy) == 0 or xy.shape[1:] != (len(queries), len(frames), 2):
        raise ConfigError(
            f"tracks {xy.shape} do not fit {len(queries)} queries in {len(frames)} frames: they "
            f"must be [K, N, T, 2], here [K >= 1, {len(queries)}, {len(frames)}, 2]."
        )
    bad = ~(np.isfinite(queries).all(1) & (queries[:, 0] >= 0) & (queries[:, 0] <= len(frames) - 1))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ConfigError(
            f"query {first} is (t, x, y) = {tuple(queries[first].tolist())}: t must be in "
            f"0..{len(frames) - 1}, x and y must be numbers ({int(bad.sum())} of {len(queries)} "
            "queries are wrong)."
        )
    return queries, xy
