"""Refinements: the tracks of one run of frames as an iterative tracker leaves them after each
iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

    def answer(self, points: int) -> Tensor:
        """[points, T, 4]: (x, y, visibility, confidence) of the first points of a single clip,
        after the last iteration."""
        parts = self.xy[-1, 0], self.visibility[-1, 0, ..., None], self.confidence[-1, 0, ..., None]
        return torch.cat(parts, -1)[:points]

    def placed(self, first_frame: int, frames: int) -> Refinements:
        """The first `frames` of these frames, as frames of the clip from `first_frame` on."""
        return Refinements(
            self.xy[..., :frames, :],
            self.visibility_logit[..., :frames],
            self.confidence_logit[..., :frames],
            first_frame,
        )
