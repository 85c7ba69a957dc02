"""Rate: frames per second of a file, by its header if that is plausible, and by the times of the
frames."""

from __future__ import annotations

from fractions import Fraction

import av

MOST_FPS, NEAR_FPS = 1000.0, 0.02
"""A header that states more than this is not believed, nor one that differs more than this from the
frames' own times."""
ASSUMED_FPS = 25.0
"""Of a file that tells no rate."""


def header_fps(stream: av.VideoStream) -> float:
    """The average rate in the header, if it is plausible; otherwise libav's guess, unless that is
    the clock of the container; 0 if there is none."""
    average, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or 0)
    if not average:
        return guessed if guessed < MOST_FPS else 0.0
    return guessed if average > MOST_FPS and 0 < guessed < average else average


def own_fps(pts: list[int], time_base: Fraction, header: float) -> float:
    """Frames per second by the frames' own times; the rate in the header if that is about the same,
    because times may be rounded."""
    own = _average_fps(pts, time_base)
    return header if header and (not own or abs(own / header - 1) < NEAR_FPS) else own


def _average_fps(pts: list[int], time_base: Fraction) -> float:
    seconds = float((pts[-1] - pts[0]) * time_base)
    return (len(pts) - 1) / seconds if seconds > 0 else 0.0
