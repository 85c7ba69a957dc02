"""Clip features: the feature maps of a clip of any length, some frames at a time.

This is for networks that go through a clip window by window. Frames are encoded when a window first
needs them, and dropped once the windows have passed them, so a forward pass encodes every frame
once and holds no more than one window, however long the clip is. A window as long as the clip keeps
all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class ClipFeatures:
    """The feature maps of a clip."""

    def __init__(
        self,
        # uint8 [t, H, W, 3] -> per level [1, t, h, w, C]
        encode: Callable[[np.ndarray], list[Tensor]],
        frames: np.ndarray,  # uint8 [T, H, W, 3]
    ) -> None:
        self._encode, self._frames = encode, frames
        self._first = 0
        self._maps: list[Tensor] = []
        """Maps of the frames from `_first` on."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in px."""
        return self._frames.shape[1], self._frames.shape[2]

    def window(self, first: int, frames: int) -> list[Tensor]:  # per level [1, frames, h, w, C]
        """Maps of `frames` frames from `first` on, fewer only at the clip's end."""
        last, held = min(first + frames, len(self)), self._first + self._held
        if not self._first <= first < held:
            self._first, self._maps = first, self._encode(self._frames[first:last])
        elif last > held:
            kept = [grid[:, first - self._first :] for grid in self._maps]
            new = self._encode(self._frames[held:last])
            self._first, self._maps = (
                first,
                [together(grids) for grids in zip(kept, new, strict=True)],
            )
        return [grid[:, first - self._first : last - self._first] for grid in self._maps]

    def reversed(self) -> ClipFeatures:
        """The features of the reversed clip; nothing is encoded again if this holds the whole
        clip."""
        back = ClipFeatures(self._encode, self._frames[::-1])
        if self._held == len(self):
            back._maps = [grid.flip(1) for grid in self._maps]
        return back

    @property
    def _held(self) -> int:
        return self._maps[0].shape[1] if self._maps else 0


def together(maps: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Maps in one, along clips (0) or frames (1), in the order of dimensions in which the first of
    them lies in memory: on a GPU that is not the order in which they are named, and `torch.cat`
    would change it."""
    first = maps[0]
    order = sorted(range(first.ndim), key=first.stride, reverse=True)
    joined = torch.cat([each.permute(order) for each in maps], order.index(axis))
    return joined.permute([order.index(place) for place in range(first.ndim)])
