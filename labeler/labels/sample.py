"""Sample: one labelled clip, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labeler.labels.agreement import Labels
from labeler.labels.verdict import ClipVerdict
from teachers import TeacherInfo, Tracks, VisibleRule


@dataclass(frozen=True)
class Sample:
    """One labelled clip."""

    key: str
    mp4: bytes
    """The stored clip; `labeler.video.encode.decode_clip` gives uint8 [T, H, W, 3]."""
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y), px of the stored clip, pixel centres."""
    sampler: np.ndarray
    """unicode [N]: the sampler that drew each query."""
    tracks: dict[str, Tracks]
    """Raw tracks by teacher, [N, T, ...] each, px of the stored clip."""
    labels: Labels
    meta: dict[str, Any]
    """schema, source, frame indices and timestamps, fps, size, decoder, teachers (their `info`),
    and the user's metadata."""
    verdict: ClipVerdict | None = None
    """How far each position can be trusted; None for a clip that no verifier judged."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the stored clip, px."""
        return self.meta["height"], self.meta["width"]

    @property
    def rules(self) -> dict[str, VisibleRule]:
        """Each teacher's visible rule."""
        return {
            name: VisibleRule.parse(info["visible_rule"])
            for name, info in self.meta["teachers"].items()
        }

    @property
    def evidence(self) -> dict[str, str]:
        """What each teacher's tracks are based on; in older shards, what is known of it."""
        return {
            name: TeacherInfo.from_json(info).evidence
            for name, info in self.meta["teachers"].items()
        }

    def visible(self, teacher: str) -> np.ndarray:
        """bool [N, T]: the teacher's own visible rule applied to its tracks."""
        return self.rules[teacher](self.tracks[teacher])
