"""Lucas-Kanade: step from frame to frame, then check against the query's own patch.

Step     pyramidal Lucas-Kanade there and back (OpenCV); a step that does not come back to where it
         started is not believed.
Check    the patch of the query is aligned at the position stepped to (`patches.py`). That takes the
         drift out of the chain, and a point whose patch looks different has gone behind something
         (Shi and Tomasi 1994).
Lost     a lost point goes on with its last velocity, damped, not with the steps: those follow what
         covers it. It is visible again as soon as its patch is found where it has come to. It may
         wander out of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from teachers.classical.bidirectional import (
    PATCH_ALIGNMENT,
    VELOCITY_KEPT,
    ClassicalTeacher,
    from_query_frame,
)
from teachers.classical.patches import AlignmentSettings, Templates, smooth
from teachers.classical.visibility import graded, inside
from teachers.errors import ConfigError
from teachers.tracks import Tracks


@dataclass(frozen=True, kw_only=True)
class LucasKanadeSettings(AlignmentSettings):
    """How Lucas-Kanade steps, and when a point is seen.

    Attributes:
        window_px: side of the window that a step looks at.
        levels: how often the frame is halved for a step.
        error_px: a step there and back must end nearer than this to its start.
        found_again: instead of `similar` for a point that was not seen a frame ago, or whose step
            is not believed.
    """

    patch_radius_px: int = 5
    iterations: int = 5
    similar: float = 0.5
    window_px: int = 21
    levels: int = 4
    error_px: float = 1.0
    found_again: float = 0.85

    correlations = ("similar", "found_again")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_px < 3:
            raise ConfigError(f"window_px = {self.window_px}: must be at least 3.")


class LucasKanadeTeacher(ClassicalTeacher):
    """The teacher `lk`. Visibility is 1 for a patch that looks as in the query's frame, 1/2 at the
    least correlation asked for."""

    architecture = "pyramidal Lucas-Kanade, forward-backward check, patch alignment"
    evidence = PATCH_ALIGNMENT
    settings_type = LucasKanadeSettings
    settings: LucasKanadeSettings

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        settings = self.settings
        n, (t, height, width, _) = len(queries), frames.shape
        frames = np.ascontiguousarray(frames)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        templates = Templates(frames, queries, settings.patch_radius_px)

        query_t, everyone = queries[:, 0].astype(int), np.arange(n)
        xy, velocity = np.zeros((n, t, 2)), np.zeros((n, t, 2))
        affine, visibility = np.tile(np.eye(2), (n, t, 1, 1)), np.zeros((n, t))
        xy[everyone, query_t], visibility[everyone, query_t] = queries[:, 1:], 1

        for before, now, rows in from_query_frame(query_t, t):
            start, speed = xy[rows, before], velocity[rows, before]
            seen = visibility[rows, before] > 0.5
            stepped, error_px = self._step(grey[before], grey[now], start)
            believed = seen & (error_px < settings.error_px) & inside(stepped, height, width)
            guess = np.where(believed[:, None], stepped, start + speed)

            found = templates.align(
                smooth(frames[now]), rows, guess, affine[rows, before], settings.iterations
            )
            near = np.linalg.norm(found.xy - guess, axis=1) < settings.anchor_px
            least = np.where(believed, settings.similar, settings.found_again)
            visibility[rows, now] = graded(1 - found.similarity, 1 - least) * (
                near & inside(found.xy, height, width)
            )

            anchored = visibility[rows, now] > 0.5
            xy[rows, now] = np.where(anchored[:, None], found.xy, guess)
            affine[rows, now] = np.where(
                anchored[:, None, None], found.affine, affine[rows, before]
            )
            velocity[rows, now] = np.where(
                (seen & anchored)[:, None], xy[rows, now] - start, speed * VELOCITY_KEPT
            )
        return Tracks(xy, visibility, np.full((n, t), np.nan))

    def _step(
        self, before: np.ndarray, now: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where points [n, 2] go between two grey frames, and how far from `start` the way back
        ends; inf where it is lost."""
        settings = {
            "winSize": (self.settings.window_px, self.settings.window_px),
            "maxLevel": self.settings.levels,
        }
        points = start.astype(np.float32)[:, None]
        there, ok_there, _ = cv2.calcOpticalFlowPyrLK(before, now, points, None, **settings)  # type: ignore[call-overload]
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, **settings)  # type: ignore[call-overload]
        error_px = np.linalg.norm(back[:, 0] - points[:, 0], axis=1)
        return there[:, 0].astype(np.float64), np.where(
            ((ok_there & ok_back) == 1)[:, 0], error_px, np.inf
        )
