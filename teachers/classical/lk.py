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

from collections import deque
from dataclasses import dataclass, fields
from itertools import pairwise

import cv2
import numpy as np

from teachers.classical.bidirectional import (
    PATCH_ALIGNMENT,
    VELOCITY_KEPT,
    ClassicalTeacher,
    from_query_frame,
)
from teachers.classical.patches import AlignmentSettings, Templates, smooth
from teachers.classical.visibility import graded, in_frame
from teachers.errors import ConfigError
from teachers.stream import RECENT_FRAMES, Stream, stayed
from teachers.tracks import Tracks


@dataclass(frozen=True, kw_only=True)
class LucasKanadeSettings(AlignmentSettings):
    """How Lucas-Kanade steps, and when a point counts as visible.

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


@dataclass(frozen=True)
class Followed:
    """The state of n points in one frame."""

    xy: np.ndarray
    """float64 [n, 2] px"""
    velocity: np.ndarray
    """[n, 2] px a frame"""
    affine: np.ndarray
    """[n, 2, 2]: see `Alignment`."""
    visibility: np.ndarray
    """[n]"""

    def joined(self, more: Followed) -> Followed:
        return Followed(
            *(
                np.concatenate([getattr(self, part.name), getattr(more, part.name)])
                for part in fields(self)
            )
        )

    def taken(self, rows: np.ndarray) -> Followed:
        return Followed(*(getattr(self, part.name)[rows] for part in fields(self)))


class LucasKanadeTeacher(ClassicalTeacher):
    """The teacher `lk`. Visibility is 1 for a patch that looks as it does in the query's frame, and
    1/2 at the least correlation that is allowed."""

    architecture = "pyramidal Lucas-Kanade, forward-backward check, patch alignment"
    evidence = PATCH_ALIGNMENT
    settings_type = LucasKanadeSettings
    settings: LucasKanadeSettings
    streams = True

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        n, t = len(queries), len(frames)
        frames = np.ascontiguousarray(frames)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        templates = Templates(frames, queries, self.settings.patch_radius_px)

        query_t, everyone = queries[:, 0].astype(int), np.arange(n)
        xy, velocity = np.zeros((n, t, 2)), np.zeros((n, t, 2))
        affine, visibility = np.tile(np.eye(2), (n, t, 1, 1)), np.zeros((n, t))
        xy[everyone, query_t], visibility[everyone, query_t] = queries[:, 1:], 1

        for before, now, rows in from_query_frame(query_t, t):
            state = Followed(
                xy[rows, before],
                velocity[rows, before],
                affine[rows, before],
                visibility[rows, before],
            )
            new = self.followed(state, templates, rows, grey[before], grey[now], frames[now])
            xy[rows, now], velocity[rows, now] = new.xy, new.velocity
            affine[rows, now], visibility[rows, now] = new.affine, new.visibility
        return Tracks(xy, visibility, np.full((n, t), np.nan))

    def stream(self, queries: np.ndarray) -> LucasKanadeStream:
        """See `Teacher.stream`; from the frame of a point's query on, the tracks are those of
        `track`, and before it NaN."""
        return LucasKanadeStream(self, queries)

    def followed(
        self,
        state: Followed,
        templates: Templates,
        rows: np.ndarray,  # int [n]: the templates of these points
        grey_before: np.ndarray,  # uint8 [H, W]
        grey_now: np.ndarray,
        frame_now: np.ndarray,  # uint8 [H, W, 3] RGB
    ) -> Followed:
        """The points in a frame, from their state in a neighbouring frame."""
        settings, (height, width) = self.settings, grey_now.shape
        start, speed, seen = state.xy, state.velocity, state.visibility > 0.5
        stepped, error_px = self._step(grey_before, grey_now, start)
        believed = seen & (error_px < settings.error_px) & in_frame(stepped, height, width)
        guess = np.where(believed[:, None], stepped, start + speed)

        found = templates.align(smooth(frame_now), rows, guess, state.affine, settings.iterations)
        near = np.linalg.norm(found.xy - guess, axis=1) < settings.anchor_px
        least = np.where(believed, settings.similar, settings.found_again)
        visibility = graded(1 - found.similarity, 1 - least) * (
            near & in_frame(found.xy, height, width)
        )

        anchored = visibility > 0.5
        xy = np.where(anchored[:, None], found.xy, guess)
        affine = np.where(anchored[:, None, None], found.affine, state.affine)
        velocity = np.where((seen & anchored)[:, None], xy - start, speed * VELOCITY_KEPT)
        return Followed(xy, velocity, affine, visibility)

    def _step(
        self, before: np.ndarray, now: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where points [n, 2] move to between two grey frames, and how far from `start` the way
        back ends; inf for a point that is lost."""
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


class LucasKanadeStream(Stream):
    """A stream of `lk`. Frames are final at once. Before its own frame, the track of a point is
    NaN."""

    grows = True

    def __init__(self, teacher: LucasKanadeTeacher, queries: np.ndarray) -> None:
        super().__init__(queries, teacher)
        self._teacher = teacher
        self._points = np.zeros(0, int)
        """Rows of the queries whose frame has come; `_state` and `_templates` are about these."""
        self._state: Followed | None = None
        self._templates: Templates | None = None
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=RECENT_FRAMES)
        """The last frames, in colour and in grey."""

    def _advance(self, frames: np.ndarray) -> Tracks:
        result = Tracks.nan(len(self._queries), len(frames))
        for t, frame in enumerate(frames):
            frame, grey = frame.copy(), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if self._state is not None and self._templates is not None:
                self._state = self._teacher.followed(
                    self._state,
                    self._templates,
                    np.arange(len(self._points)),
                    self._recent[-1][1],
                    grey,
                    frame,
                )
            self._recent.append((frame, grey))
            number = self._frames + t
            self._take(np.flatnonzero(self._queries[:, 0] == number), number)
            if self._state is not None:
                result.xy[self._points, t] = self._state.xy
                result.visibility[self._points, t] = self._state.visibility
        return result

    def _rest(self) -> Tracks:
        return Tracks.nan(len(self._queries), 0)  # every frame has had its answer

    def _take(self, rows: np.ndarray, newest: int) -> None:
        """Rows whose frames are among the recent ones, the last of which is `newest`."""
        oldest = newest + 1 - len(self._recent)
        for number in np.unique(self._queries[rows, 0]).astype(int):
            here = rows[self._queries[rows, 0] == number]
            queries = self._queries[here] - np.array([number, 0, 0], np.float32)
            later = list(self._recent)[number - oldest :]
            templates = Templates(
                later[0][0][None], queries, self._teacher.settings.patch_radius_px
            )
            n = len(here)
            state = Followed(
                queries[:, 1:].astype(float),
                np.zeros((n, 2)),
                np.tile(np.eye(2), (n, 1, 1)),
                np.ones(n),
            )
            for (_, before), (frame, now) in pairwise(later):
                state = self._teacher.followed(state, templates, np.arange(n), before, now, frame)
            self._points = np.concatenate([self._points, here])
            self._state = state if self._state is None else self._state.joined(state)
            self._templates = (
                templates if self._templates is None else self._templates.joined(templates)
            )

    def _take_held(self, rows: np.ndarray) -> None:
        self._take(rows, self._frames - 1)

    def _keep_rows(self, rows: np.ndarray) -> None:
        stay, self._points = stayed(self._points, rows)
        if self._state is not None and self._templates is not None:
            self._state = self._state.taken(stay) if len(stay) else None
            self._templates = self._templates.taken(stay) if len(stay) else None
