"""Long clips: a tracker made for whole clips goes through a longer one in overlapping windows.

Windows       All have the same length and are spread evenly, so that neighbours share at least
              `overlap` frames.
Entering      A query enters the last window that holds its frame.
Handing over  In the overlap with the next window, a point is handed over at the frame in which it
              is seen most surely; of equally sure ones, at that nearest to the middle. There, where
              it has been tracked to, it is a query of the next window. Up to that frame the track
              of the old window counts, from then on that of the new one.
Hidden        A point that is not seen in the whole overlap is handed over at its last frame. What
              it looks like is not read there, where something covers it, but kept from its last
              query; so it can be found again.
Backwards     The frames before a query are those of the same walk through the reversed clip.

A tracker that makes no mistakes loses nothing by this. One that does starts again from its own
mistake at each handover, at most once in `window - overlap` frames. Memory holds one window, and
the tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from teachers.errors import ConfigError
from teachers.layers.device import constant, sent
from teachers.network_teacher import with_backward_pass


@dataclass(frozen=True)
class WindowEntry:
    """The points of a window, and how they enter it."""

    queries: Tensor
    """[n, 3] (t, x, y); t counts from the window's first frame."""
    hidden: Tensor
    """[n] bool: something covers the point there, so its appearance is taken from `looks`."""
    looks: list[Tensor]
    """[n, ...] each: what the points looked like where they were last seen; empty where none was in
    a window before."""


class WindowTracker(Protocol):
    """Tracks points in the `window` frames from `first` on."""

    def __call__(self, first: int, entry: WindowEntry) -> tuple[Tensor, list[Tensor]]:
        """Tracks [n, window, C], of which the first two channels are x and y, and the appearance of
        the points, [n, ...] each."""


def walk_both_ways(
    ahead: WindowTracker,
    back: WindowTracker,  # of the reversed clip
    certainty: Callable[[Tensor], Tensor],
    queries: Tensor,
    frames: int,
    window: int,
    overlap: int,
    query_frame: np.ndarray | None = None,
) -> Tensor:
    """Tracks [N, T, C] over all frames; arguments as for `walk`."""
    if query_frame is None:
        query_frame = queries[:, 0].long().cpu().numpy()
    asked = query_frame
    tracks = walk(ahead, certainty, queries, frames, window, overlap, asked)

    def backward(reversed_queries: Tensor) -> Tensor:
        before = frames - 1 - asked
        return walk(back, certainty, reversed_queries, frames, window, overlap, before)

    return with_backward_pass(tracks, queries, backward, bool((asked > 0).any()))


def walk(
    track: WindowTracker,
    # [n, t, C] -> [n, t] how surely a point is seen, 0 where it isn't
    certainty: Callable[[Tensor], Tensor],
    queries: Tensor,  # [N, 3] (t, x, y)
    frames: int,  # more than `window`
    window: int,
    overlap: int,  # 1 .. window - 1
    query_frame: np.ndarray,  # [N] integer, as in `queries`, known without asking a GPU
) -> Tensor:  # [N, T, C]
    """Tracks from each query's frame on; NaN before it."""
    starts = window_starts(frames, window, overlap).tolist()
    entered_in = np.searchsorted(starts, query_frame, side="right") - 1
    home = sent(torch.from_numpy(entered_in), queries.device)
    at = queries.clone()  # where each point entered the last window
    hidden = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    looks: list[Tensor] = []
    tracks: Tensor | None = None
    for index, first in enumerate(starts):
        inside = np.flatnonzero(entered_in <= index)
        if not len(inside):
            continue
        rows = sent(torch.from_numpy(inside), queries.device)
        kept = [part[rows] for part in looks]
        entry = WindowEntry(at[rows] - constant(at, first, 0, 0), hidden[rows], kept)
        found, seen = track(first, entry)
        if tracks is None:
            tracks = found.new_full((len(queries), frames, found.shape[-1]), torch.nan)
            looks = [part.new_zeros(len(queries), *part.shape[1:]) for part in seen]
        frame = torch.arange(first, first + window, device=queries.device)
        counts = (frame > at[rows, :1]) | (home[rows, None] == index) & (frame == at[rows, :1])
        tracks[rows, first : first + window] = torch.where(
            counts[..., None], found, tracks[rows, first : first + window]
        )
        if index + 1 < len(starts):
            at[rows], hidden[rows] = _hand_over(
                found, certainty(found), first, starts[index + 1], at[rows, 0]
            )
            for all_looks, new in zip(looks, seen, strict=True):
                all_looks[rows] = new
    if tracks is None:
        raise ConfigError("long clips need at least one query.")
    return tracks


def window_starts(frames: int, window: int, overlap: int) -> Tensor:  # [number of windows]
    """The first frame of each window: as few as cover the clip, spread evenly."""
    step = window - overlap
    count = 1 + max(0, -(-(frames - window) // step))
    return torch.linspace(0, frames - window, count, dtype=torch.float64).round().long()


def _hand_over(
    found: Tensor, sure: Tensor, first: int, next_first: int, entered: Tensor
) -> tuple[Tensor, Tensor]:
    """Where each point enters the next window, [n, 3] (t, x, y) in the clip, and whether it is
    hidden there, [n].

    Args:
        entered: [n] the frame where each point entered this window; it is handed over there or
            later.
    """
    shared = torch.arange(next_first, first + found.shape[1], device=found.device)
    sure = torch.where(shared >= entered[:, None], sure[:, next_first - first :], -1.0)
    from_middle = (shared - shared.double().mean()).abs().argsort(stable=True)
    best = from_middle[sure[:, from_middle].argmax(1)]  # of equal values, argmax takes the first
    hidden = sure.amax(1) <= 0
    best = torch.where(hidden, len(shared) - 1, best)
    position = found[torch.arange(len(found), device=found.device), best + (next_first - first), :2]
    return torch.cat([shared[best, None].to(found.dtype), position], 1), hidden
