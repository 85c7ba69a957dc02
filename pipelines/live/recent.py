"""Recent: what can be saved, which is the last frames of a session, with the tracks in them.

    excerpt = recent.excerpt()
    save_tracks_of(excerpt, title, info, path)      npz, as `tapdistill track` writes it
    save_overlay(excerpt, size, path)               mp4, every tracker beside the others

Frames are kept as JPEGs; after `KEPT_FRAMES`, the oldest is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from labeler.show import Overlay
from labeler.video import VideoWriter
from pipelines.live.following import NOWHERE, Positions
from pipelines.tracking.track_file import TrackFile, save_tracks
from teachers import ConfigError, Tracks

if TYPE_CHECKING:
    from pipelines.live.session import Point

KEPT_FRAMES = 1_200
"""Two minutes at ten frames per second: at most about 100 MB with 256 points and two trackers."""


@dataclass(frozen=True)
class Kept:
    """A frame."""

    frame: int
    """Its number in the session."""
    at_s: float
    """Time by a clock that only goes forward."""
    jpeg: bytes


@dataclass(frozen=True)
class Excerpt:
    """N points in the T frames that are kept."""

    kept: Sequence[Kept]
    queries: np.ndarray
    """float32 [N, 3] as (t, x, y); t counts from the first kept frame, and is negative for a point
    that was added before it."""
    tracks: Mapping[str, Tracks]
    """Tracks [N, T] by title; NaN where a tracker did not follow a point."""
    seen: Mapping[str, np.ndarray]
    """bool [N, T]"""

    @property
    def fps(self) -> float:
        """Frames per second as they came; pauses do not count."""
        times = [each.at_s for each in self.kept]
        steps = [after - before for before, after in pairwise(times)]
        return 1 / max(median(steps), 0.001) if steps else 1.0


class Recent:
    """The last frames, each with the positions in it."""

    def __init__(self, most: int = KEPT_FRAMES) -> None:
        self._rows: deque[tuple[Kept, Mapping[str, Positions]]] = deque(maxlen=most)
        self._points: dict[int, Point] = {}

    def keep(
        self, kept: Kept, positions: Mapping[str, Positions], points: Mapping[int, Point]
    ) -> None:
        """Add a frame."""
        self._rows.append((kept, dict(positions)))
        self._points.update(points)
        if len(self._points) > 4 * len(points) + 64:
            there = {i for _, each in self._rows for p in each.values() for i in p.ids.tolist()}
            self._points = {
                i: point for i, point in self._points.items() if i in there or i in points
            }

    def excerpt(self) -> Excerpt:
        """All of it.

        Raises:
            ConfigError: no point was followed in these frames.
        """
        rows = list(self._rows)
        titles = list(dict.fromkeys(title for _, each in rows for title in each))
        ids = sorted({i for _, each in rows for p in each.values() for i in p.ids.tolist()})
        if not ids:
            raise ConfigError("there is nothing to save yet: put a point first.")
        first, shape = rows[0][0].frame, (len(ids), len(rows))
        points = [self._points[i] for i in ids]
        tracks = {title: Tracks.nan(*shape) for title in titles}
        seen = {title: np.zeros(shape, bool) for title in titles}
        for t, (_, each) in enumerate(rows):
            for title in titles:
                positions = each.get(title, NOWHERE)
                at = np.searchsorted(ids, positions.ids)
                tracks[title].xy[at, t] = positions.xy
                tracks[title].visibility[at, t] = positions.visibility
                tracks[title].confidence[at, t] = positions.confidence
                seen[title][at, t] = positions.seen
        queries = np.array([[p.frame - first, p.x, p.y] for p in points], np.float32)
        return Excerpt([kept for kept, _ in rows], queries, tracks, seen)


def save_tracks_of(excerpt: Excerpt, title: str, info: Mapping[str, Any], path: Path) -> None:
    """Write the npz of one tracker, with `info` in it."""
    save_tracks(TrackFile(path, dict(info)), excerpt.queries, excerpt.tracks[title])


def save_overlay(excerpt: Excerpt, size: tuple[int, int], path: Path) -> None:
    """Write the mp4; `size` is (H, W) px of the frames."""
    overlay = Overlay(excerpt.queries, list(excerpt.tracks), size)
    with VideoWriter(path, excerpt.fps) as video:
        for t, kept in enumerate(excerpt.kept):
            frame: Any = cv2.imdecode(np.frombuffer(kept.jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
            xy = np.stack([tracks.xy[:, t] for tracks in excerpt.tracks.values()])
            seen = np.stack([each[:, t] for each in excerpt.seen.values()])
            video.write(overlay.draw(frame, xy, seen))
