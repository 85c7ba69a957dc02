"""Windows: a network made for a few frames follows points through a clip of any length.

Windows of S frames overlap by half. A window starts from the answer of the one before in the
overlap, and replaces it there. A clip that ends inside a window is continued by repeating its last
frame, and the answer is cut, so that every length works, one frame included. What is kept between
windows does not grow with the clip (CoTracker, arXiv 2307.07635, section 3).
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teachers.cotracker.refinements import Refinements
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.layers.resolutions import Size


@dataclass(frozen=True)
class WindowStart:
    """What is known about the points when a window begins."""

    first_frame: int
    query_frame: Tensor
    """[B, N] integer: the frame of each query, in the clip."""
    appearance: list[Tensor]
    """[B, N, ...] each: the appearance of the queries; zero where the frame of a query has not come
    yet."""
    xy: Tensor
    """[B, N, S, 2] px"""
    logits: Tensor
    """[B, N, S, 2] visibility, confidence"""
    factors: Sequence[float]
    """See `WindowNetwork.factors`."""


class WindowNetwork(nn.Module, abc.ABC):
    """A network that goes window by window."""

    config: Any
    first_visibility: float
    """Visibility logit of a point that no window has seen yet."""
    hides_unseen: bool = False
    """Whether points whose query's frame no window has reached change nothing for the others."""

    @abc.abstractmethod
    def factors(self, size: Size) -> list[float]:
        """The sizes of the frames on which tracks are refined, one after the other, relative to
        frames of `size` (H, W) that go in."""

    @abc.abstractmethod
    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of features, per level [B, T, h, w, C]; see
        `encode_pyramid`. With several `factors`, one pyramid for each, in a row."""

    @abc.abstractmethod
    def appearance(
        self, pyramid: list[Tensor], queries: Tensor, factors: Sequence[float]
    ) -> list[Tensor]:
        """The appearance of each query in its frame, [B, N, ...]: one for each level of each of the
        factors, or one in all."""

    @abc.abstractmethod
    def refine_window(
        self, pyramid: list[Tensor], start: WindowStart, iterations: int, memory: Memory
    ) -> list[Refinements]:
        """Improve the tracks in the S frames of the pyramid: once for each of the factors; the last
        is the answer."""

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [B, N, 3] (t, x, y), px of the frames; t is cut to an integer
        iterations: int = 4,
        memory: Memory = DEFAULT_MEMORY,
    ) -> list[Refinements]:
        """Tracks in every window, by each of its passes; windows overlap by half, and in the
        overlap the later one counts, of a window its last pass. Sizes are as for `encode`."""
        size = frames.shape[-2], frames.shape[-1]
        chain = WindowChain(self, queries, size, iterations, memory)
        parts = windows(self.encode(frames, memory), self.config.window)
        return [found for part in parts for found in chain.passes(part)]


class WindowChain:
    """Tracks of some queries, window by window: `advance` with the next S frames, each time S / 2
    further."""

    def __init__(
        self,
        network: WindowNetwork,
        queries: Tensor,  # [B, N, 3]
        size: Size,
        iterations: int,
        memory: Memory,
        counts: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            size: (H, W) of the frames.
            counts: for each window of how many of the first points there are tracks, more and more;
                those of the others are 0. They must be such as the network hides from the rest.
        """
        self.counts = None if counts is None else iter(counts)
        self.factors = network.factors(size)
        self.network, self.iterations, self.memory = network, iterations, memory
        self.window: int = network.config.window
        self.query_frame, self.query_xy = queries[..., 0].long(), queries[..., 1:]
        self.first_frame = 0
        self.appearance: list[Tensor] = []
        self.last: Refinements | None = None

    def advance(self, pyramid: list[Tensor]) -> Refinements:  # per level [B, 1..S, h, w, C]
        """Tracks in these frames, which begin in the middle of those before; fewer than S only at
        the clip's end."""
        return self.passes(pyramid)[-1]

    def passes(self, pyramid: list[Tensor]) -> list[Refinements]:
        """`advance`, with the tracks of each pass."""
        frames = pyramid[0].shape[1]
        pyramid = [_continued(grid, self.window) for grid in pyramid]
        self._look_at_queries(pyramid)
        xy, logits = self._start()
        parts = [self.query_frame, *self.appearance, xy, logits]
        if self.counts is not None:
            count = next(self.counts)
            parts = [part[:, :count] for part in parts]
        query_frame, *appearance, xy, logits = parts
        start = WindowStart(self.first_frame, query_frame, appearance, xy, logits, self.factors)
        found = [
            each.of_points(self.query_frame.shape[1])
            for each in self.network.refine_window(pyramid, start, self.iterations, self.memory)
        ]
        self.last = found[-1]
        first, self.first_frame = self.first_frame, self.first_frame + self.window // 2
        return [each.placed(first, frames) for each in found]

    def _look_at_queries(self, pyramid: list[Tensor]) -> None:
        """Store the appearance of the queries in these frames. (In the overlap, it is what it was
        before.)"""
        frame = self.query_frame - self.first_frame
        here = (frame >= 0) & (frame < self.window)
        inside = frame.clamp(0, self.window - 1)[..., None]
        seen = self.network.appearance(
            pyramid, torch.cat([inside.to(self.query_xy.dtype), self.query_xy], -1), self.factors
        )
        before = self.appearance or [torch.zeros_like(part) for part in seen]
        self.appearance = [_where(here, new, old) for new, old in zip(seen, before, strict=True)]

    def _start(self) -> tuple[Tensor, Tensor]:
        """Positions [B, N, S, 2] and logits [B, N, S, 2] to start from: those of the query, or
        those that the last window hands over."""
        xy = self.query_xy[:, :, None].expand(-1, -1, self.window, -1)
        logits = torch.zeros_like(xy)
        logits[..., 0] = self.network.first_visibility
        if self.last is None:
            return xy, logits
        known = self.query_frame - self.first_frame < self.window // 2
        last = torch.stack([self.last.visibility_logit[-1], self.last.confidence_logit[-1]], -1)
        return _where(known, self._handed_over(self.last.xy[-1]), xy), _where(
            known, self._handed_over(last), logits
        )

    def _handed_over(self, values: Tensor) -> Tensor:  # [B, N, S, ...] -> [B, N, S, ...]
        """The values of the last window in the frames that this one shares with it; all further
        frames get the last of them."""
        half = self.window // 2
        return torch.cat([values[:, :, half:], values[:, :, -1:].expand(-1, -1, half, -1)], 2)


def windows(pyramid: list[Tensor], window: int) -> Iterator[list[Tensor]]:
    """The frames of every window: as many windows as cover the clip, at least one."""
    for first in first_frames(pyramid[0].shape[1], window):
        yield [grid[:, first : first + window] for grid in pyramid]


def first_frames(frames: int, window: int) -> range:
    """The first frames of the windows of a clip."""
    half = window // 2
    return range(0, max(1, frames - half), half)


def joined(parts: list[Tensor], window: int) -> Tensor:  # [N, S, ...] each -> [N, T, ...]
    """One track from the tracks of all windows; where two overlap, the later counts."""
    return torch.cat([*(part[:, : window // 2] for part in parts[:-1]), parts[-1]], 1)


def _continued(grid: Tensor, frames: int) -> Tensor:  # [B, t, ...] -> [B, frames, ...]
    missing = frames - grid.shape[1]
    return torch.cat([grid, grid[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else grid


def _where(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:  # [B, N], [B, N, ...], [B, N, ...]
    return torch.where(which.view(*which.shape, *[1] * (yes.ndim - 2)), yes, no)
