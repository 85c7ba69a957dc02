"""Track transformer: tokens of all tracks in all frames attend to each other, along time and,
through virtual tracks, across tracks.

Tracks see each other only through a few learnt virtual tracks, so the cost grows with N, not N
squared (CoTracker, arXiv 2307.07635, section 3). Attribute names are the keys of the official
checkpoints, "virual" included. The blocks are the pre-norm transformer blocks of the CoTrackers.

Attention is never split over tokens to save memory: every token that is passed in sees every other
one.

Speed: an MLP takes tokens in blocks, because its hidden layer, four times as wide, then stays in
the cache of a CPU."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.attention import Attention, AttentionSizes
from teachers.layers.branch import for_gpu_inference
from teachers.layers.fast import added, linear_gelu, tanh_gelu
from teachers.layers.pyramid import MINI_PYRAMID, PyramidSizes

NORM_EPS = 1e-6

TOKENS_PER_BLOCK = 1024
"""Tokens that go through an MLP together on a CPU; measured."""


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, exact ("none") or approximated by "tanh"."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, approximate: Literal["none", "tanh"]
    ) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:  # [..., inputs] -> [..., outputs]
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self._layers(x)
        blocks = x.flatten(0, -2).split(TOKENS_PER_BLOCK)
        return torch.cat([self._layers(block) for block in blocks]).view(*x.shape[:-1], -1)

    def _layers(self, x: Tensor) -> Tensor:
        if self.approximate == "tanh" and for_gpu_inference(x):
            return self.fc2(linear_gelu(self.fc1, x))
        hidden = self.fc1(x)
        return self.fc2(tanh_gelu(hidden) if self.approximate == "tanh" else F.gelu(hidden))


class SelfAttentionBlock(nn.Module):
    """A block in which the tokens of a set attend to each other."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, mlp_ratio * width, width, "tanh")

    def forward(self, x: Tensor) -> Tensor:  # [G, n, width]
        normed = _norm(x)
        x = added(x, self.attn(normed, normed))
        return added(x, self.mlp(_norm(x)))


class CrossAttentionBlock(nn.Module):
    """A block in which the tokens of a set attend to those of another set, the context."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_context = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads)
        self.mlp = Mlp(width, mlp_ratio * width, width, "tanh")

    def forward(
        self, x: Tensor, context: Tensor, bias: Tensor | None = None
    ) -> Tensor:  # as for `Attention`
        x = added(x, self.cross_attn(_norm(x), self.norm_context(context), bias))
        return added(x, self.mlp(_norm(x)))


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class CoTrackerSizes(PyramidSizes, AttentionSizes, abc.ABC):
    """The sizes that both networks have, as in the official models."""

    width: int = 384
    """Channels of a token of the transformer."""
    layers: int
    virtual_tracks: int = 64
    """Learnt tokens through which the tracks exchange information."""

    @property
    @abc.abstractmethod
    def token_channels(self) -> int:
        """How many numbers make a token."""


MINI_SIZES: Mapping[str, Any] = {
    **MINI_PYRAMID,
    "heads": 4,
    "layers": 2,
    "mlp_ratio": 2,
    "virtual_tracks": 16,
}
"""Sizes of both small networks."""


class TrackTransformer(nn.Module):
    """The transformer: `attend` mixes the tokens; a network adds the heads that read them."""

    def __init__(self, sizes: CoTrackerSizes) -> None:
        super().__init__()
        width, heads, ratio, layers = sizes.width, sizes.heads, sizes.mlp_ratio, sizes.layers
        self.input_transform = nn.Linear(sizes.token_channels, width)
        self.virual_tracks = nn.Parameter(torch.randn(1, sizes.virtual_tracks, 1, width))
        self.time_blocks = nn.ModuleList(
            SelfAttentionBlock(width, heads, ratio) for _ in range(layers)
        )
        self.space_virtual2point_blocks = nn.ModuleList(
            CrossAttentionBlock(width, heads, ratio) for _ in range(layers)
        )
        self.space_virtual_blocks = nn.ModuleList(
            SelfAttentionBlock(width, heads, ratio) for _ in range(layers)
        )
        self.space_point2virtual_blocks = nn.ModuleList(
            CrossAttentionBlock(width, heads, ratio) for _ in range(layers)
        )

    def attend(
        self,
        tokens: Tensor,  # [B, N, T, token_channels]
        # [B, N] bool: tracks that the others must not look at, nor they at the others
        unseen: Tensor | None = None,
    ) -> Tensor:  # [B, N, T, width]
        batch, points, frames, _ = tokens.shape
        virtual = self.virual_tracks.expand(batch, -1, frames, -1)
        x = torch.cat([self.input_transform(tokens), virtual], 1)  # [B, N + V, T, width]
        from_points = to_points = None
        # a GPU masks without asking whether there is anything to mask, because asking would wait
        if unseen is not None and (unseen.is_cuda or unseen.any()):
            refused = (
                x.new_zeros(batch, points)
                .masked_fill(unseen, torch.finfo(x.dtype).min)
                .repeat_interleave(frames, 0)
            )
            # [B * T, heads, asking, asked]
            from_points, to_points = refused[:, None, None, :], refused[:, None, :, None]
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
            parts = (part.unflatten(0, (batch, frames)) for part in (point, virtual))
            x = torch.cat([part.transpose(1, 2) for part in parts], 1)
        return x[:, :points]
