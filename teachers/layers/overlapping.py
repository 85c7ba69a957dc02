"""Overlapping windows: run a network that sees a whole clip at once over a clip that is too long
for it."""

from __future__ import annotations

from collections.abc import Iterator


def overlapping(frames: int, window: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Windows over a long clip, and the frames for which each window answers (counted within the
    window).

    Where the clip goes on beyond a window, the window does not answer for the frames within `reach`
    of that end, nor, if that is more, for the quarter of it at that end. So the answer is that of
    the whole clip if `window` is at least four times `reach`, and a network sees no farther than
    that.
    """
    margin = min(reach, window // 4)
    first = 0
    while first < frames:
        begin = max(0, min(first - margin, frames - window))
        end = begin + window if begin + window >= frames else begin + window - margin
        yield slice(begin, begin + window), slice(first - begin, end - begin)
        first = end
