"""Refinements: the tracks of one run of frames as an iterative tracker leaves them after each
iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Refinements:
    """The tracks of one run of frames after each of I iterations; the last is the answer, and all
    of them enter the loss."""

    xy: Tensor
    """[I, B, N, T, 2] px of the frames."""
    visibility_logit: Tensor
    """[I, B, N, T]; [1, B, N, T] where the model judges visibility only after the last iteration
    (CoTracker 2.1)."""
    confidence_logit: Tensor
    """As `visibility_logit`; NaN where the model has no confidence."""
    first_frame: int = 0
    """The frame of the clip in which these T frames begin."""

    @property
    def visibility(self) -> Tensor:
        """[I, B, N, T] in [0, 1]"""
        return self.visibility_logit.sigmoid()

    @property
    def confidence(self) -> Tensor:
        """[I, B, N, T] in [0, 1]"""
        return self.confidence_logit.sigmoid()

    def answer(self, points: int, clip: int = 0) -> Tensor:
        """[points, T, 4]: (x, y, visibility, confidence) of the first points of one of the clips,
        after the last iteration."""
        seen = self.visibility[-1, clip, ..., None], self.confidence[-1, clip, ..., None]
        return torch.cat([self.xy[-1, clip], *seen], -1)[:points]

    def of_points(self, points: int) -> Refinements:
        """With zeros for further points, so that there are so many."""
        missing = points - self.xy.shape[2]
        if not missing:
            return self
        return Refinements(
            F.pad(self.xy, (0, 0, 0, 0, 0, missing)),
            F.pad(self.visibility_logit, (0, 0, 0, missing)),
            F.pad(self.confidence_logit, (0, 0, 0, missing)),
            self.first_frame,
        )

    def placed(self, first_frame: int, frames: int) -> Refinements:
        """The first `frames` of these frames, as frames of the clip from `first_frame` on."""
        return Refinements(
            self.xy[..., :frames, :],
            self.visibility_logit[..., :frames],
            self.confidence_logit[..., :frames],
            first_frame,
        )
