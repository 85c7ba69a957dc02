"""Track transformer: tokens of all tracks in all frames look at each other, along time and, through virtual tracks, across tracks.

Tracks see each other only through a few learnt virtual tracks, so the cost grows with N, not N squared (CoTracker, arXiv 2307.07635,
section 3). Attribute names are the keys of the official checkpoints, "virual" included.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from teachers.attention import CrossAttentionBlock, SelfAttentionBlock


class TransformerSizes(Protocol):
    """What the transformer reads of a network's config."""

    @property
    def token_channels(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def mlp_ratio(self) -> int: ...
    @property
    def virtual_tracks(self) -> int: ...


class TrackTransformer(nn.Module):
    """`attend` mixes the tokens; a network adds the heads that read them."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        width, heads, ratio, layers = sizes.width, sizes.heads, sizes.mlp_ratio, sizes.layers
        self.input_transform = nn.Linear(sizes.token_channels, width)
        self.virual_tracks = nn.Parameter(torch.randn(1, sizes.virtual_tracks, 1, width))
        self.time_blocks = nn.ModuleList(SelfAttentionBlock(width, heads, ratio) for _ in range(layers))
        self.space_virtual2point_blocks = nn.ModuleList(CrossAttentionBlock(width, heads, ratio) for _ in range(layers))
        self.space_virtual_blocks = nn.ModuleList(SelfAttentionBlock(width, heads, ratio) for _ in range(layers))
        self.space_point2virtual_blocks = nn.ModuleList(CrossAttentionBlock(width, heads, ratio) for _ in range(layers))

    def attend(
        self,
        tokens: Tensor,  # [B, N, T, token_channels]
        unseen: Tensor | None = None,  # [B, N] bool: tracks that the others must not look at, nor they at the others
    ) -> Tensor:  # [B, N, T, width]
        batch, points, frames, _ = tokens.shape
        virtual = self.virual_tracks.expand(batch, -1, frames, -1)
        x = torch.cat([self.input_transform(tokens), virtual], 1)  # [B, N + V, T, width]
        from_points = to_points = None
        if unseen is not None and unseen.any():
            refused = x.new_zeros(batch, points).masked_fill(unseen, torch.finfo(x.dtype).min).repeat_interleave(frames, 0)
            from_points, to_points = refused[:, None, None, :], refused[:, None, :, None]  # [B * T, heads, asking, asked]
        layers = zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        )
        for over_time, virtual_from_points, among_virtual, points_from_virtual in layers:
            x = over_time(x.flatten(0, 1)).unflatten(0, (batch, -1))
            x = x.transpose(1, 2).flatten(0, 1)  # [B * T, N + V, width]
            point, virtual = x[:, :points], x[:, points:]
            virtual = among_virtual(virtual_from_points(virtual, point, from_points))
            point = points_from_virtual(point, virtual, to_points)
            x = torch.cat([point, virtual], 1).unflatten(0, (batch, frames)).transpose(1, 2)
        return x[:, :points]
