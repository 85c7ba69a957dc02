"""Stream: TAPNext through frames as they come. It holds the state of its tokens, which does not
grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from teachers.stream import Stream
from teachers.tapnext.network import State
from teachers.tracks import Tracks

if TYPE_CHECKING:
    from teachers.tapnext.teacher import TapNextTeacher


class TapNextStream(Stream):
    """Frames are final at once.

    Before its own frame, the track of a point is NaN; in it, the answer is what the network sees,
    not the query, unless the teacher has `through_query`. The published network carries on 147 KB
    per point and 151 MB for the frame (604 MB at 512 px). No point can be added later.
    """

    def __init__(self, teacher: TapNextTeacher, queries: np.ndarray) -> None:
        super().__init__(queries, teacher)
        self._teacher = teacher
        self._points: Tensor | None = None
        self._state: State | None = None

    @torch.inference_mode()
    def _advance(self, frames: np.ndarray) -> Tracks:
        teacher, queries = self._teacher, self._queries
        if self._points is None:
            self._points = teacher.to_units(queries, self.size)
        answers, self._state = teacher.advance(frames, self._points, len(queries), self._state)
        times = np.arange(self._frames, self._frames + len(frames))
        tracks = teacher.to_tracks(answers, self.size, times < queries[:, :1])
        if teacher.mode_settings.through_query:
            rows = np.flatnonzero(np.isin(queries[:, 0], times))
            tracks.xy[rows, queries[rows, 0].astype(int) - self._frames] = queries[rows, 1:]
        return tracks

    def _rest(self) -> Tracks:
        return Tracks.nan(len(self._queries), 0)  # every frame has had its answer
