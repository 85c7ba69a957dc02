"""Overlay: the picture of a clip with its tracks, frame by frame, one panel for each tracker.

    overlay = Overlay(queries, ["cotracker3-online", "lk"], size)
    picture = overlay.draw(frame, xy, visible)          # once for each frame, in order

It remembers the last positions of the points and nothing else, so a stream is drawn in the same way
as a clip. A point that has not been visible yet is not drawn. Panels have titles if there are
several.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from labeler.show.draw import draw_picture, enlargement, rainbow, side_by_side

TRAIL_FRAMES = 18
WIDEST_PX = 1920
"""Frames are not enlarged if all panels together would be wider than this."""
LEAST_RADIUS, GREATEST_RADIUS = 2.0, 4.5


class Overlay:
    """Draws the frames of one clip."""

    def __init__(
        self,
        queries: np.ndarray,  # [N, 3]
        titles: Sequence[str],  # [K]
        size: tuple[int, int],  # (H, W) px of the frames
    ) -> None:
        height, width = size
        self._titles = titles
        self._colours = rainbow(queries)
        self._scale = max(1, min(enlargement(height, width), WIDEST_PX // (width * len(titles))))
        spacing = self._scale * math.sqrt(height * width / max(1, len(queries)))
        self._radius = min(max(spacing / 7, LEAST_RADIUS), GREATEST_RADIUS)
        self._xy: deque[np.ndarray] = deque(maxlen=TRAIL_FRAMES + 1)
        self._visible: deque[np.ndarray] = deque(maxlen=TRAIL_FRAMES + 1)
        self._seen = np.zeros((len(titles), len(queries)), bool)

    def draw(
        self,
        frame: np.ndarray,  # uint8 [H, W, 3] RGB
        xy: np.ndarray,  # [K, N, 2]   px of the frame, NaN where not tracked
        visible: np.ndarray,  # [K, N]      bool
    ) -> np.ndarray:  # uint8 [h, w, 3]
        """The picture of the next frame."""
        self._seen |= visible
        self._xy.append(np.where(self._seen[..., None], xy, np.nan))
        self._visible.append(visible)
        ways, seen = np.stack(self._xy, 2), np.stack(self._visible, 2)  # [K, N, S, 2], [K, N, S]
        panels = [
            draw_picture(
                frame,
                ways[k],
                seen[k],
                self._colours,
                trail_frames=TRAIL_FRAMES,
                point_radius=self._radius,
                scale=self._scale,
            )
            for k in range(len(self._titles))
        ]
        if len(panels) == 1:
            return panels[0]
        return side_by_side(
            [(title, panel[None]) for title, panel in zip(self._titles, panels, strict=True)]
        )[0]
