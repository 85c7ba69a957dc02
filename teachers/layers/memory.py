"""Memory: how much a tracker computes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from teachers.layers.branch import for_gpu


@dataclass(frozen=True)
class Memory:
    """How much is computed at once. It changes memory and speed, never the result.

    0 takes what is fast for the teacher. For CoTracker and PIPs: on a CPU, blocks that stay in its
    cache (2 frames, 512 points); on a GPU, blocks that keep it busy (16 frames, 65536 points).
    """

    frames_per_block: int = 0
    """Frames that go through the encoder together."""
    points_per_block: int = 0
    """Points (a query in a frame) that are correlated together; each holds about 60 KiB in the
    official CoTracker3, on a GPU 40 KiB."""
    recompute: bool = True
    """In training, encode and correlate again in the backward pass, instead of keeping the
    encoder's maps of all frames, and those 60 KiB for every point, level, and iteration."""

    def filled(self, other: Memory) -> Memory:
        """This one, with the values of `other` where it has 0."""
        return replace(
            self,
            frames_per_block=self.frames_per_block or other.frames_per_block,
            points_per_block=self.points_per_block or other.points_per_block,
        )

    def frames(self, device: torch.device) -> int:
        """Frames to encode together on that device."""
        return self.frames_per_block or (2 if device.type == "cpu" else 16)

    def points(self, device: torch.device) -> int:
        """Points to correlate together on that device."""
        return self.points_per_block or (512 if device.type == "cpu" else 65536)

    def in_blocks(
        self, compute: Callable[..., Tensor], *per_query: Tensor, points_per_query: int
    ) -> Tensor:
        """`compute(*per_query)` for tensors [B, N, ...] whose queries are independent of each
        other, one block of queries at a time."""
        queries = max(1, self.points(per_query[0].device) // points_per_query)
        if for_gpu(per_query[0]):  # blocks of about one size, up to half as much again as asked for
            count = per_query[0].shape[1]
            queries = -(-count // max(1, round(count / queries)))
        if for_gpu(per_query[0]) and queries >= per_query[0].shape[1]:
            return self.run(compute, *per_query)
        blocks = zip(*(tensor.split(queries, 1) for tensor in per_query), strict=True)
        return torch.cat([self.run(compute, *block) for block in blocks], 1)

    def run(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`compute(*inputs)`, which must not draw anything at random; in training, its activations
        are kept or computed again, as `recompute` says."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
        return compute(*inputs)


def cached_blocks(points: int, at_once: int, like: Tensor) -> list[slice]:
    """Points that do not see each other, in blocks of which everything that is computed stays in a
    CPU's cache. All together on a GPU, and where gradients flow."""
    if for_gpu(like) or torch.is_grad_enabled():
        at_once = max(points, 1)
    return [slice(first, first + at_once) for first in range(0, max(points, 1), at_once)]


DEFAULT_MEMORY = Memory()
