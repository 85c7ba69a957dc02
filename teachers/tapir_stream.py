"""Causal BootsTAPIR as a teacher: over a whole clip, or through frames as they come.

Paper    the live demo of BootsTAP, arXiv 2402.00847, section 4.
Stream   a point's features come from its own frame; from then on each frame is matched alone and refined with what the mixer
         remembers of the two frames before, in every iteration. Features of frames that have been tracked are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from teachers.errors import ConfigError
from teachers.interface import Tracks, checked_frames, checked_queries
from teachers.tapir import CAUSAL_BOOTSTAPIR, BootsTapirTeacher, Size
from teachers.temporal_mixer import Past

ENDLESS = 2**24
"""More frames than a stream has, and more px than a frame; float32 counts so far."""
FRAMES_PER_RUN = 8
"""Frames whose features a stream holds at once."""


class CausalBootsTapirTeacher(BootsTapirTeacher):
    """Causal BootsTAPIR.

    Over a whole clip, frames before a query are matched as any other, but refined from still earlier frames alone; mode `label` takes
    them from the reversed clip.
    """

    architecture = "causal BootsTAPIR"
    variant = CAUSAL_BOOTSTAPIR
    weights_at = "https://storage.googleapis.com/dm-tapnet/bootstap/causal_bootstapir_checkpoint.pt"

    def stream(self, queries: np.ndarray) -> TapirStream:
        """Track points through frames that come bit by bit.

        Args:
            queries: [N >= 1, 3] as for `track`; frames count from the first that is pushed.

        Raises:
            ConfigError: queries that `track` refuses, or a mode that needs the whole clip.
        """
        if self.call.backward:
            raise ConfigError(
                f"mode {self.info.mode!r} of {self.info.name!r} needs the whole clip, because it also tracks backward: stream with mode "
                "'predictor'."
            )
        return TapirStream(self, queries)


class TapirStream:
    """Tracks of N points; memory does not grow with the frames.

    Before its own frame a point's track is NaN. In it the answer is what the network sees, not the query itself. How frames are
    grouped into pushes does not change the tracks.
    """

    def __init__(self, teacher: CausalBootsTapirTeacher, queries: np.ndarray) -> None:
        self._teacher = teacher
        self._queries = checked_queries(queries, (ENDLESS, ENDLESS, ENDLESS, 3))
        if len(self._queries) == 0:
            raise ConfigError("a stream needs at least one query.")
        self._size: Size | None = None
        self._frames = 0
        self._finished = False
        self._points = torch.zeros(0, dtype=torch.long)
        """Rows of the queries whose frame has come, in that order; what follows is of these points."""
        self._described: list[Tensor] = []
        self._pasts: list[Past] = []

    def push(self, frames: np.ndarray) -> Tracks:  # uint8 [T, H, W, 3]
        """Tracks [N, T] in these frames.

        Raises:
            ConfigError: frames or queries that `track` refuses, frames of another size than before, or a stream that has finished.
        """
        if self._finished:
            raise ConfigError("the stream has finished: start another one for more frames.")
        frames = checked_frames(frames)
        self._begin_or_go_on((frames.shape[1], frames.shape[2]))
        return _joined([self._run(frames[first:end]) for first, end in self._runs(len(frames))])

    def replace(self, index: int, x: float, y: float) -> None:
        """Drop point `index` and follow (x, y) of the next frame in its row instead."""
        queries = self._queries.copy()
        queries[index] = self._frames, x, y
        self._queries = checked_queries(queries, (ENDLESS, *(self._size or (ENDLESS, ENDLESS)), 3))
        rest = self._points != index
        self._points = self._points[rest]
        self._described = [level[:, rest] for level in self._described]
        self._pasts = [Past(past.first[:, rest], past.second[:, rest]) for past in self._pasts]

    def finish(self) -> Tracks:
        """No more tracks: every frame has had its own.

        Raises:
            ConfigError: the frame of a query never came.
        """
        self._finished = True
        late = np.flatnonzero(self._queries[:, 0] >= self._frames)
        if len(late):
            raise ConfigError(
                f"query {late[0]} is in frame {self._queries[late[0], 0]:g}, but the stream ended after {self._frames} frames "
                f"({len(late)} of {len(self._queries)} queries came too late)."
            )
        return Tracks.nan(len(self._queries), 0)

    def _begin_or_go_on(self, size: Size) -> None:
        if self._size is None:
            self._queries = checked_queries(self._queries, (ENDLESS, *size, 3))
            self._size = size
        if size != self._size:
            raise ConfigError(f"frames of {size[1]} x {size[0]} px in a stream of {self._size[1]} x {self._size[0]} px.")

    def _runs(self, frames: int) -> Sequence[tuple[int, int]]:
        """Parts of the next frames: a point can join only in the first frame of a part, and a part bounds the memory."""
        joins = self._queries[:, 0].astype(int) - self._frames
        cuts = sorted({*range(0, frames, FRAMES_PER_RUN), *joins[(joins > 0) & (joins < frames)].tolist(), frames})
        return list(pairwise(cuts))

    @torch.inference_mode()
    def _run(self, frames: np.ndarray) -> Tracks:
        assert self._size is not None
        teacher, network = self._teacher, self._teacher.model
        features = network.encode(teacher.to_video(frames), teacher.resolutions(self._size), teacher.memory)
        new = torch.from_numpy(np.flatnonzero(self._queries[:, 0] == self._frames))
        if len(new):
            own = teacher.to_corners(self._queries[new.numpy()] * np.array([0, 1, 1], np.float32))
            self._join(new, network.describe(features, own, self._size))
        result = Tracks.nan(len(self._queries), len(frames))
        if len(self._points):
            steps = network.track(features, self._described, self._size, pasts=self._pasts, memory=teacher.memory).steps
            tracks, rows = teacher.to_tracks(steps[-1]), self._points.numpy()
            result.xy[rows], result.visibility[rows], result.confidence[rows] = tracks.xy, tracks.visibility, tracks.confidence
        self._frames += len(frames)
        return result

    def _join(self, points: Tensor, described: list[Tensor]) -> None:
        network = self._teacher.model
        empty = [level[:, :0] for level in described]
        pasts = self._pasts or [network.no_past(0) for _ in described[1:]]
        unborn = network.no_past(len(points))
        self._points = torch.cat([self._points, points])
        self._described = [torch.cat(levels, 1) for levels in zip(self._described or empty, described, strict=True)]
        self._pasts = [Past(torch.cat([past.first, unborn.first], 1), torch.cat([past.second, unborn.second], 1)) for past in pasts]


def _joined(parts: Sequence[Tracks]) -> Tracks:
    return Tracks(*(np.concatenate([getattr(part, name) for part in parts], 1) for name in ("xy", "visibility", "confidence")))
