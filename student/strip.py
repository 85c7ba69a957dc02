"""Strip: what a student is asked for and what it answers, as one strip of frames for TensorBoard.

The upper row has the labels, where they are used; the lower row the student's answer, after its last refinement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from labeler.draw import draw_frame, rainbow
from student.batch import Batch
from teachers.refinements import Refinements

FRAMES, POINTS = 4, 48
"""Most frames of a strip, and most points in it."""
LIKELY = 0.5
"""Visibility above which the student's point is drawn as visible."""


def strip(batch: Batch, windows: Sequence[Refinements]) -> np.ndarray:  # uint8 [2 H', frames * W', 3]
    """The first clip of a batch, at even distances in time."""
    frames, queries = batch.frames[0].cpu().numpy(), batch.queries[0, :POINTS].cpu().numpy()
    used = batch.used[0, :POINTS].cpu().numpy()
    labels = np.where(used[..., None], batch.xy[0, :POINTS].cpu().numpy(), np.nan)
    answers, visible = last_answers(windows, len(frames))
    rows = (labels, batch.visible[0, :POINTS].cpu().numpy() & used), (answers[:POINTS], visible[:POINTS])
    shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    return np.concatenate(
        [
            np.concatenate([draw_frame(frames, t, xy, seen, rainbow(queries), query_frames=queries[:, 0]) for t in shown], 1)
            for xy, seen in rows
        ]
    )


def last_answers(windows: Sequence[Refinements], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """xy [N, T, 2] and visible [N, T] of the first clip; where windows overlap, the later counts."""
    points = windows[0].xy.shape[2]
    xy, visible = np.full((points, frames, 2), np.nan, np.float32), np.zeros((points, frames), bool)
    with torch.no_grad():
        for window in windows:
            part = slice(window.first_frame, window.first_frame + window.xy.shape[3])
            xy[:, part] = window.xy[-1, 0].float().cpu().numpy()
            visible[:, part] = (window.visibility[-1, 0] > LIKELY).cpu().numpy()
    return xy, visible
