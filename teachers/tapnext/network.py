"""TAPNext: tracking as the prediction of the next tokens, frame by frame, with a state.

Paper    Zholus et al. 2025, arXiv 2504.05579, section 3; TAPNext++ (arXiv 2604.10582) is the same
         network, trained on longer clips.
Weights  Apache-2.0. This file is written from the papers and facts of the released network; the
         parity tests show equal outputs.
Raster   inside: 256 x 256 units at EVERY size of the frames, (0, 0) is the CORNER of the frame.
         Only the teacher knows.

    frame --patches of 8 x 8-----------------> P image tokens
    point --unknown, its query, or masked----> N point tokens
    [B, T, P + N, C] --12 x (each token over time, then all tokens of a frame)--> heads

The network is causal and has no window: a clip, parts of it, and single frames give the same
answers, if the state of each call goes into the next. All points see each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.errors import ConfigError
from teachers.layers.branch import for_gpu
from teachers.tapnext.recurrence import Carry, RecurrentBranch

PATCH = 8
UNITS = 256
"""Units along a side of the raster; the coordinate head has one bin for each."""
WINDOW = 20
"""A coordinate is the mean over this many bins on each side of the best one."""
TEMPERATURE = 0.5
HIDDEN = 256
"""Width inside the heads."""
BLOCK_EPS, HEAD_EPS = 1e-6, 1e-5
BF16_PARTS = (
    "ssm_block.recurrent_block.linear_x",
    "ssm_block.recurrent_block.linear_y",
    "ssm_block.recurrent_block.linear_out",
    "ssm_block.mlp_block",
    "vit_block.self_attention",
    "vit_block.mlp",
)
"""The parts of each block that multiply matrices."""
RADIUS = 8
"""Radius in units within which the certainty of a point is summed."""


@dataclass(frozen=True, kw_only=True)
class TapNextConfig:
    """Sizes of the network. The defaults are those of TAPNext-B, 194 M parameters, which every
    published file has."""

    raster: int = 256
    """Side of the square that frames are resized to, px; no weight depends on it."""
    width: int = 768
    depth: int = 12
    heads: int = 12
    table: int = 32
    """Cells along a side of the learnt table of positions."""
    numerics: Literal["torch", "jax"] = "torch"
    """Which release is followed where they differ: the JAX one, in which TAPNext and BootsTAPNext
    were trained, has the tanh GELU and eps = 1e-6 everywhere, and a query's code does not fade at
    the border. On random weights they differ by less than 0.01 px."""
    official_quirks: bool = False
    """Repeat what the torch release gets wrong: the table of positions is cut, not resized, where
    another grid has as many cells; a query at a fractional frame is never asked; the disc of the
    certainty is transposed."""

    def __post_init__(self) -> None:
        if self.numerics not in ("torch", "jax"):
            raise ConfigError(f"numerics = {self.numerics!r}: there are 'torch' and 'jax'.")
        if self.raster < PATCH or self.raster % PATCH:
            raise ConfigError(
                f"raster = {self.raster}: must be a multiple of {PATCH}, at least {PATCH}."
            )

    @classmethod
    def mini(cls, **changes: Any) -> TapNextConfig:
        """0.3 M parameters, on frames of a quarter of the size, for tests."""
        raster = changes.pop("raster", 256) // 4
        return cls(raster=raster, width=64, depth=2, heads=2, table=8, **changes)


PRESETS: dict[str, Callable[..., TapNextConfig]] = {
    "official": TapNextConfig,
    "mini": TapNextConfig.mini,
}


@dataclass(frozen=True)
class State:
    """What a stream carries from call to call: always 4 C numbers for each token and block."""

    frames: int
    """How many frames have been seen."""
    blocks: tuple[Carry, ...]


@dataclass(frozen=True)
class Answer:
    """The network's output for N points in T frames. Before the query of a point, it means
    nothing."""

    xy: Tensor
    """[B, N, T, 2] in 0.5..255.5."""
    visible: Tensor
    """[B, N, T] logit."""
    logits: Tensor
    """[B, N, T, 512] of the bins: 256 of y, then 256 of x."""


class TapNext(nn.Module):
    """Frames and queries to tracks."""

    waves: Tensor
    """[256, C / 2] of `position_waves`."""

    def __init__(self, config: TapNextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        jax = config.numerics == "jax"
        gelu = "tanh" if jax else "none"
        self.mask_token = nn.Parameter(torch.randn(1, 1, 1, width))
        self.unknown_token = nn.Parameter(torch.randn(1, 1, width))
        self.point_query_token = nn.Parameter(torch.randn(1, 1, 1, width))
        self.image_pos_emb = nn.Parameter(torch.randn(1, config.table**2, width))
        self.lin_proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.blocks = nn.ModuleList(Block(width, config.heads, gelu) for _ in range(config.depth))
        eps = BLOCK_EPS if jax else HEAD_EPS
        self.encoder_norm = nn.LayerNorm(width, eps=eps)
        self.visible_head = head(width, 1, gelu, eps)
        self.coordinate_head = head(width, 2 * UNITS, gelu, eps)
        self.register_buffer("waves", position_waves(width // 2), persistent=False)

    @property
    def BF16_PARTS(self) -> tuple[str, ...]:
        """See `compute_in_bf16`. Gates, recurrence, norms, tokens, and heads stay float32."""
        return tuple(f"blocks.{i}.{part}" for i in range(self.config.depth) for part in BF16_PARTS)

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] RGB in -1..1
        queries: Tensor,  # [B, N, 3] (t, x, y) in units; t counts from the start of the stream
        state: State | None = None,  # what the call before returned
    ) -> tuple[Answer, State]:
        """Answers in these frames, and the state after them.

        The queries must be the same in every call of a stream.
        """
        seen = 0 if state is None else state.frames
        image = self.image_tokens(frames)
        points = self.point_tokens(queries, seen, frames.shape[1])
        x, cells, pasts = torch.cat([image, points], 2), image.shape[2], []
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x, past = block(x, None if state is None else state.blocks[i], cells if last else 0)
            pasts.append(past)
        x = self.encoder_norm(x).transpose(1, 2)  # [B, N, T, C]
        logits = self.coordinate_head(x)
        answer = Answer(coordinates(logits), self.visible_head(x)[..., 0], logits)
        return answer, State(seen + frames.shape[1], tuple(pasts))

    def image_tokens(self, frames: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, T, P, C]
        """One token for each patch, row by row; incomplete patches at the right and the bottom are
        dropped."""
        patches = self.lin_proj(frames.flatten(0, 1))  # [B T, C, h, w]
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2).unflatten(0, frames.shape[:2])
        return tokens + self.position_table(rows, columns)

    def position_table(self, rows: int, columns: int) -> Tensor:  # [1, P, C]
        """The learnt table, resized to the grid of patches."""
        side = self.config.table
        same = (rows, columns) == (side, side)
        if same or (self.config.official_quirks and rows * columns == side * side):
            return self.image_pos_emb
        table = self.image_pos_emb.transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(table, (rows, columns), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)

    def point_tokens(self, queries: Tensor, seen: int, frames: int) -> Tensor:
        """[B, T, N, C] for queries [B, N, 3]: "unknown" before the frame of a query, then the
        query, then "masked"."""
        asked = queries[..., 0] if self.config.official_quirks else queries[..., 0].trunc()
        times = torch.arange(seen, seen + frames, device=queries.device)[None, :, None]  # [1, T, 1]
        asked = asked[:, None, :].to(times.device)  # [B, 1, N]
        tokens = torch.where(
            (times < asked)[..., None], self.unknown_token[:, :, None], self.mask_token
        )
        here = times == asked
        if for_gpu(here) or here.any():  # to ask a GPU would be to wait for it
            query = self.point_query_token[0] + self.position_code(queries[..., 1:])  # [B, N, C]
            tokens = torch.where(here[..., None], query[:, None], tokens)
        return tokens

    def position_code(self, xy: Tensor) -> Tensor:  # [B, N, 2] -> [B, N, C]
        """Waves of x, then of y, sampled bilinearly between the centres of units.

        It is 0 outside, and so fades over the outermost half unit.
        """
        if self.config.numerics == "jax":
            xy = xy.clamp(0.5, UNITS - 0.5)
        place = (xy - 0.5).to(self.waves.dtype)
        left = place.floor()
        right_share = place - left
        codes, inside = [], []
        for axis in (0, 1):
            code, weight = self.waves.new_zeros(()), self.waves.new_zeros(())
            for step, share in ((0, 1 - right_share), (1, right_share)):
                unit = left[..., axis] + step
                share = share[..., axis] * ((unit >= 0) & (unit < UNITS))
                code = code + share[..., None] * self.waves[unit.clamp(0, UNITS - 1).long()]
                weight = weight + share
            codes.append(code)
            inside.append(weight[..., None])
        return torch.cat([codes[0] * inside[1], codes[1] * inside[0]], -1)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (scale + 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # on a CPU this takes a quarter less time than F.rms_norm
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
        return (x * (square + BLOCK_EPS).rsqrt()).mul_(self.scale + 1)


class GatedUp(nn.Module):
    """Weights of the first layer of `GatedMlp`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, width, hidden) / width**0.5)
        self.b = nn.Parameter(torch.zeros(2, 1, 1, hidden))


class GatedMlp(nn.Module):
    """C -> 4 C -> C, with one half of the hidden values as gates for the other half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffw_up = GatedUp(width, 4 * width)
        self.ffw_down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        gate, value = (
            torch.addmm(b.flatten(), rows, w)
            for w, b in zip(self.ffw_up.w, self.ffw_up.b, strict=True)
        )
        return self.ffw_down(F.gelu(gate, approximate="tanh").mul_(value)).view(x.shape)


class TemporalHalf(nn.Module):
    """Mixes every token by itself, over time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.temporal_pre_norm = RmsNorm(width)
        self.recurrent_block = RecurrentBranch(width, heads)
        self.channel_pre_norm = RmsNorm(width)
        self.mlp_block = GatedMlp(width)

    def forward(self, x: Tensor, past: Carry | None) -> tuple[Tensor, Carry]:  # [B, T, L, C]
        change, past = self.recurrent_block(self.temporal_pre_norm(x), past)
        x = change.add_(x)
        return self.mlp_block(self.channel_pre_norm(x)).add_(x), past


class SelfAttention(nn.Module):
    """The tokens of one frame attend to each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) / width**0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:  # [F, L, C] -> [F, L - first, C]
        """What the tokens from `first` on take from all tokens."""
        width = x.shape[-1]
        if first:
            q = F.linear(x[:, first:], self.in_proj_weight[:width], self.in_proj_bias[:width])
            kv = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
            k, v = kv.chunk(2, -1)
        else:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous() for part in (q, k, v)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SpatialHalf(nn.Module):
    """Every frame for itself, its tokens together: a block of a vision transformer."""

    def __init__(self, width: int, heads: int, gelu: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.self_attention = SelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(gelu), nn.Identity(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, first: int = 0) -> Tensor:  # [F, L, C] -> [F, L - first, C]
        x = self.self_attention(self.ln_1(x), first).add_(x[:, first:])
        return self.mlp(self.ln_2(x)).add_(x)


class Block(nn.Module):
    """Over time, then over the frame."""

    def __init__(self, width: int, heads: int, gelu: str) -> None:
        super().__init__()
        self.ssm_block = TemporalHalf(width, heads)
        self.vit_block = SpatialHalf(width, heads, gelu)

    def forward(self, x: Tensor, past: Carry | None, first: int = 0) -> tuple[Tensor, Carry]:
        """The tokens from `first` on, [B, T, L, C], after the block: after the last one, only
        points are needed."""
        x, past = self.ssm_block(x, past)
        return self.vit_block(x.flatten(0, 1), first).unflatten(0, x.shape[:2]), past


def head(width: int, out: int, gelu: str, eps: float) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.LayerNorm(HIDDEN, eps=eps), nn.GELU(gelu),
        nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN, eps=eps), nn.GELU(gelu),
        nn.Linear(HIDDEN, out),
    )  # fmt: skip


def position_waves(width: int) -> Tensor:  # [256, width]
    """sin(x w), cos(x w) of x = 0..255; w falls from 1 to 1/10000."""
    k = torch.arange(width // 2, dtype=torch.float64, device="cpu")
    frequencies = 10000.0 ** (-k / (width // 2 - 1))
    angles = torch.arange(UNITS, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def coordinates(logits: Tensor) -> Tensor:  # [..., 512] -> [..., 2]
    """(x, y): of each axis the mean over the bins near the best one."""
    bins = torch.arange(UNITS, device=logits.device)
    yx = logits.unflatten(-1, (2, UNITS))
    near = (bins - yx.argmax(-1, keepdim=True)).abs() <= WINDOW
    share = torch.where(near, (TEMPERATURE * yx).softmax(-1), 0)
    return ((share * bins).sum(-1) / share.sum(-1) + 0.5).flip(-1)


def certainty(
    xy: Tensor, logits: Tensor, *, official_quirks: bool = False, radius: int = RADIUS
) -> Tensor:
    """[...] in 0..1: the probability that the bins give to the disc of `radius` units around xy
    [..., 2].

    Logits are [..., 512]. `official_quirks` transposes the disc against the bins, as the torch
    release does.
    """
    yx = xy.flip(-1)[..., None]  # [..., 2, 1]
    first = (yx - radius - 0.5).floor().clamp(0, UNITS - 2 * radius - 1)
    first = first.nan_to_num()  # an index; NaN stays in the squares
    bins = first + torch.arange(2 * radius + 1, device=xy.device)  # [..., 2, 17]
    probability = logits.unflatten(-1, (2, UNITS)).softmax(-1).gather(-1, bins.long())
    squares = (bins + 0.5 - yx).square()
    if official_quirks:
        squares = squares.flip(-2)
    inside = squares[..., 0, :, None] + squares[..., 1, None, :] <= radius**2
    both = probability[..., 0, :, None] * probability[..., 1, None, :]
    return torch.where(inside, both, 0).sum((-2, -1))
