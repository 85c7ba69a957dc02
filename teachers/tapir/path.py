"""Paths: where a point is in every frame, chosen for all frames together.

Matched in each frame alone, a point jumps to whatever looks like it there. Here its position is the
hidden state of a Markov model: in each frame, the likelihood of a cell is the softmax of the cost
map, and from frame to frame a point walks at random, or jumps, which is unlikely. The path of the
largest probability is found by passing messages (max-product, which on a chain is exact). Ours, not
TAPIR's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from teachers.layers.branch import for_gpu

STEP = 0.1
"""Cost of a step of one cell between two frames, in nats; it grows with the square of the step, so
steps are normal with a deviation of 2.2 cells, 18 px of the 256 raster."""
JUMP = 12.0
"""Cost of a jump to anywhere, in nats."""
FARTHEST = math.floor(math.sqrt(JUMP / STEP))
"""Steps of more cells than this, along an axis, cost more than a jump."""


def at_once(like: Tensor) -> int:
    """How many points' paths are found together: on a CPU, so many that a message stays in the
    cache of a core; on a GPU, as many as keep it busy through some eighty small operations a
    frame."""
    return 1024 if for_gpu(like) else 64


def likeliest_path(likelihood: Tensor, before: Tensor | None = None) -> Tensor:
    """The path of the largest probability.

    Args:
        likelihood: [P, T, h, w], log likelihood of each cell, up to a constant for each map.
        before: [P, h, w], the `message_of` the frames before these; None if there are none.

    Returns:
        [P, T] int64: the cell of each frame, counted row after row.
    """
    frames, cells = likelihood.unbind(1), []
    future = torch.zeros_like(frames[0])
    for frame, past in zip(reversed(frames), reversed(_messages(frames, before)), strict=True):
        belief = frame + future
        cells.append((belief + past).flatten(1).argmax(1))
        future = message(belief)
    return torch.stack(cells[::-1], 1)


def message_of(likelihood: Tensor, before: Tensor | None = None) -> Tensor:
    """What all frames [P, T, h, w], and those `before` them, say of the cells of the one after
    them: see `message`."""
    frames = likelihood.unbind(1)
    return message(frames[-1] + _messages(frames, before)[-1])


def message(belief: Tensor) -> Tensor:
    """What a frame says of the cells of the next one.

    Args:
        belief: [P, h, w], log probability of the likeliest path to each cell, up to a constant.

    Returns:
        [P, h, w]: the same for each cell of the next frame, before that frame is looked at; 0 at
        the likeliest cell, and -`JUMP` wherever a jump is likelier than steps.
    """
    belief = belief - belief.flatten(1).amax(1)[:, None, None]
    return _walked(_walked(belief, 1), 2).clamp_(min=-JUMP)


def _messages(frames: Sequence[Tensor], before: Tensor | None) -> list[Tensor]:  # [P, h, w] each
    """What the frames before each one say of its cells."""
    messages = [torch.zeros_like(frames[0]) if before is None else before]
    for frame in frames[:-1]:
        messages.append(message(frame + messages[-1]))
    return messages


def _walked(belief: Tensor, axis: int) -> Tensor:
    """The best of all steps along one axis."""
    best, side = belief.clone(), belief.shape[axis]
    for step in range(1, min(FARTHEST, side - 1) + 1):
        cost, rest = STEP * step**2, side - step
        for start, end in ((0, step), (step, 0)):
            there = best.narrow(axis, end, rest)
            torch.maximum(there, belief.narrow(axis, start, rest) - cost, out=there)
    return best
