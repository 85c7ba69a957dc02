"""Multi-head attention; its layers have the names of the checkpoints of the CoTrackers and of
AllTracker."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AttentionSizes:
    """Sizes of the blocks of a transformer."""

    heads: int = 8
    mlp_ratio: int = 4
    """How many times as wide as its input the hidden layer of a block is."""


class Attention(nn.Module):
    """Multi-head attention from x to a context of the same width; keys and values share one layer,
    keys first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,  # [G, n, width]
        context: Tensor,  # [G, m, width]
        # [G, 1 or heads, 1 or n, 1 or m], added to how much x attends to the context
        bias: Tensor | None = None,
    ) -> Tensor:  # [G, n, width]
        key, value = self.to_kv(context).chunk(2, -1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), key, value)
        )
        if bias is not None:
            bias = bias.expand(-1, -1, query.shape[2], key.shape[2])
        # [G, heads, n, width / heads]
        mixed = F.scaled_dot_product_attention(query, key, value, bias)
        return self.to_out(mixed.transpose(1, 2).flatten(2))
