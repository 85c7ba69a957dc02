"""Causal BootsTAPIR as a teacher: over a whole clip, or through frames as they come.

Paper    the live demo of BootsTAP, arXiv 2402.00847, section 4.
Stream   a point's features come from its own frame; from then on each frame is matched alone and
         refined with what the mixer remembers of the two frames before, in every iteration.
         Features of frames that have been tracked are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from teachers.published import PUBLISHED
from teachers.stream import ENDLESS, Stream
from teachers.tapir.config import CAUSAL_BOOTSTAPIR
from teachers.tapir.mixer import Past
from teachers.tapir.teacher import BootsTapirTeacher
from teachers.tracks import Tracks, checked_queries

FRAMES_PER_RUN = 8
"""How many frames' features a stream holds at once."""


class CausalBootsTapirTeacher(BootsTapirTeacher):
    """Causal BootsTAPIR.

    Over a whole clip, frames before a query are matched like any other, but refined only from still
    earlier frames; mode `label` takes them from the reversed clip.
    """

    architecture = "causal BootsTAPIR"
    variant = CAUSAL_BOOTSTAPIR
    weights = PUBLISHED["bootstapir-causal"]
    streams = True

    def stream(self, queries: np.ndarray) -> TapirStream:
        """See `Teacher.stream`."""
        self._require_forward(self.mode_settings.backward)
        return TapirStream(self, queries)


class TapirStream(Stream):
    """Frames are final at once. Before its own frame, the track of a point is NaN. In it, the
    answer is what the network sees, not the query."""

    def __init__(self, teacher: CausalBootsTapirTeacher, queries: np.ndarray) -> None:
        super().__init__(queries, teacher)
        self._teacher = teacher
        self._points = torch.zeros(0, dtype=torch.long)
        """Rows of the queries whose frame has come, in that order; the fields below are about these
        points."""
        self._described: list[Tensor] = []
        self._pasts: list[Past] = []

    def _advance(self, frames: np.ndarray) -> Tracks:
        return _joined(
            [
                self._run(frames[first:end], self._frames + first)
                for first, end in self._runs(len(frames))
            ]
        )

    def replace(self, index: int, x: float, y: float) -> None:
        """Drop point `index`, and follow the point at (x, y) in the next frame in its row
        instead."""
        queries = self._queries.copy()
        queries[index] = self._frames, x, y
        self._queries = checked_queries(queries, (ENDLESS, *(self._size or (ENDLESS, ENDLESS)), 3))
        rest = self._points != index
        self._points = self._points[rest]
        self._described = [level[:, rest] for level in self._described]
        self._pasts = [Past(past.first[:, rest], past.second[:, rest]) for past in self._pasts]

    def _rest(self) -> Tracks:
        return Tracks.nan(len(self._queries), 0)  # every frame has had its answer

    def _runs(self, frames: int) -> Sequence[tuple[int, int]]:
        """Parts of the next frames: a point can join only in the first frame of a part, and a part
        bounds the memory."""
        joins = self._queries[:, 0].astype(int) - self._frames
        cuts = sorted(
            {
                *range(0, frames, FRAMES_PER_RUN),
                *joins[(joins > 0) & (joins < frames)].tolist(),
                frames,
            }
        )
        return list(pairwise(cuts))

    @torch.inference_mode()
    def _run(self, frames: np.ndarray, first: int) -> Tracks:
        """Tracks in the next frames, which begin with frame `first` of the stream."""
        teacher, network = self._teacher, self._teacher.model
        features = network.encode(
            teacher.to_video(frames), teacher.resolutions(self.size), teacher.memory
        )
        new = torch.from_numpy(np.flatnonzero(self._queries[:, 0] == first))
        if len(new):
            own = teacher.to_corners(self._queries[new.numpy()] * np.array([0, 1, 1], np.float32))
            self._join(new, network.describe(features, own, self.size))
        result = Tracks.nan(len(self._queries), len(frames))
        if len(self._points):
            answer = network.track(
                features, self._described, self.size, pasts=self._pasts, memory=teacher.memory
            ).answer
            tracks, rows = teacher.to_tracks(answer), self._points.numpy()
            result.xy[rows], result.visibility[rows], result.confidence[rows] = (
                tracks.xy,
                tracks.visibility,
                tracks.confidence,
            )
        return result

    def _join(self, points: Tensor, described: list[Tensor]) -> None:
        network = self._teacher.model
        empty = [level[:, :0] for level in described]
        pasts = self._pasts or [network.no_past(0) for _ in described[1:]]
        unborn = network.no_past(len(points))
        self._points = torch.cat([self._points, points])
        self._described = [
            torch.cat(levels, 1) for levels in zip(self._described or empty, described, strict=True)
        ]
        self._pasts = [
            Past(
                torch.cat([past.first, unborn.first], 1), torch.cat([past.second, unborn.second], 1)
            )
            for past in pasts
        ]


def _joined(parts: Sequence[Tracks]) -> Tracks:
    return Tracks(
        *(
            np.concatenate([getattr(part, name) for part in parts], 1)
            for name in ("xy", "visibility", "confidence")
        )
    )
