"""The verifier of Track-On-R: which of the positions that several teachers give is the right one?

Paper    arXiv 2603.12217 (CVPR 2026), sections 4.2 to 4.5. Written from the paper and from facts
         about the published network; the parity tests show equal outputs.
Weights  `verifier.pt` at gorkaydemir/track_on_r. No licence of them is stated, and they hold the
         encoder of CoTracker3, CC-BY-NC 4.0: the file is non-commercial. Names of attributes are
         its keys.
Raster   x' = 2 x / W - 1, so -1 is the CORNER of the top-left pixel; positions are taken as they
         come, whether their teachers mean corners or centres. Frames are resized to
         `config.resolution`, whatever their aspect.

Every position is described by what deformable attention finds around it, when it looks for the
appearance of the QUERY, and by its distance from the query. A token for each query and frame then
attends to the positions in its frame, and to its own past and future; the logit of a position is
the cosine of token and position.

So the order of the teachers does not matter, and none is known by name; the answer for a query does
not depend on other queries. Only differences between the positions of one query and frame mean
anything: no logit is absolute, and the network cannot say "none of them".

Cost: 24 frames, 256 queries, and 6 teachers take 40 s of a CPU core, three quarters of it in the
encoder, which sees neither queries nor teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.attention import AttentionSizes
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.layers.pyramid import MINI_PYRAMID, PyramidSizes, ResidualEncoder

STRIDE = 4
HIGHEST_FREQUENCY = 32
"""The highest in the displacement code, in half waves per learnt unit of displacement."""
QUERY, CANDIDATE = 0, 1
"""Rows of `candidate_emb`."""
COSINE_EPS = 1e-12
SHARPEST = 20.0
"""The largest factor of a cosine."""
PLACES_PER_BLOCK = 65536
"""How many positions (of a teacher, for a query in a frame) go through the transformer together."""


@dataclass(frozen=True, kw_only=True)
class VerifierConfig(PyramidSizes, AttentionSizes):
    """Sizes of the network. The defaults are the published one's: 11.3 M parameters, 2.6 M of them
    the encoder of CoTracker3 offline."""

    resolution: tuple[int, int] = (384, 512)
    """(H, W) px that frames are resized to. No weight depends on it."""
    window: int = 24
    """Frames that the time table is learnt for; it is resized for other lengths."""
    width: int = 256
    """Channels of everything after the encoder."""
    layers: int = 6
    """Layers of the transformer over candidates and frames."""
    heads: int = 4
    """Heads of every attention."""
    points: int = 4
    """Cells that a head of the deformable attention samples at each level."""
    local_layers: int = 3
    """Layers of deformable attention."""
    frequencies: int = 8
    """How many sines, and how many cosines, encode a displacement in x, and likewise in y."""
    identity_channels: int = 32
    """Channels that tell a query from a candidate."""
    dropout: float = 0.1
    """Dropout, in training only."""

    @classmethod
    def mini(cls) -> VerifierConfig:
        """0.4 M parameters, on frames of 192 x 256 px; trains on a CPU core."""
        sizes = {"width": 64, "layers": 3, "local_layers": 2, "mlp_ratio": 2}
        return cls(resolution=(192, 256), identity_channels=8, **(MINI_PYRAMID | sizes))

    @property
    def descriptor_channels(self) -> int:
        return self.width + 4 * self.frequencies + 2 + self.identity_channels


class DeformableAttention(nn.Module):
    """Each position attends to some cells around it at every level of a pyramid; its feature
    decides which.

    The input is added to the answer already here, as in the published network, and once more by the
    block around it.
    """

    def __init__(self, config: VerifierConfig) -> None:
        super().__init__()
        self.shape = (config.heads, config.levels, config.points)
        samples = math.prod(self.shape)
        self.sampling_offsets = nn.Linear(config.width, 2 * samples)
        self.attention_weights = nn.Linear(config.width, samples)
        self.value_proj = nn.Linear(config.width, config.width)
        self.output_proj = nn.Linear(config.width, config.width)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        with torch.no_grad():  # when untrained, each head looks in a direction of its own
            self.sampling_offsets.bias.copy_(self._rays().to(self.sampling_offsets.bias))

    def _rays(self) -> Tensor:  # [2 * samples]
        """Offsets in cells: head k looks k-th of the way around, point p at a distance of p + 1."""
        heads, levels, points = self.shape
        angle = torch.arange(heads) * (2 * math.pi / heads)
        ray = torch.stack([angle.cos(), angle.sin()], -1)[:, None, None]
        return (ray * torch.arange(1, points + 1)[:, None]).expand(-1, levels, -1, -1).flatten()

    def forward(
        self,
        h: Tensor,  # [P, width]
        reference: Tensor,  # [P, 2] (x, y) in the unit square
        pyramid: Sequence[Tensor],  # per level [rows, columns, width]
    ) -> Tensor:  # [P, width]
        heads, levels, points = self.shape
        offsets = self.sampling_offsets(h).view(-1, heads, levels, points, 2)
        weights = self.attention_weights(h).view(-1, heads, levels * points).softmax(-1)
        weights = weights.view(-1, 1, heads, levels, points).transpose(0, 2)  # [heads, 1, P, ...]
        found = h.new_zeros(())
        for level, cells in enumerate(pyramid):
            rows, columns = cells.shape[:2]
            values = self.value_proj(cells).unflatten(-1, (heads, -1)).permute(2, 3, 0, 1)
            cell = 1 / reference.new_tensor([columns, rows])
            at = reference[:, None, None] + offsets[:, :, level] * cell
            grid = (2 * at - 1).transpose(0, 1)  # [heads, P, points, 2]
            samples = F.grid_sample(values, grid, padding_mode="zeros", align_corners=False)
            found = found + (samples * weights[:, :, :, level]).sum(-1)  # [heads, width / heads, P]
        return h + self.output_proj(found.flatten(0, 1).T)


class LocalBlock(nn.Module):
    """Gathers what is around each position into its feature."""

    def __init__(self, config: VerifierConfig) -> None:
        super().__init__()
        self.mha = DeformableAttention(config)
        self.linear1 = nn.Linear(config.width, config.mlp_ratio * config.width)
        self.linear2 = nn.Linear(config.mlp_ratio * config.width, config.width)
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, h: Tensor, reference: Tensor, values: Sequence[Tensor]
    ) -> Tensor:  # as for `mha`
        h = self.norm1(h + self.dropout(self.mha(h, reference, values)))
        return self.norm2(h + self.dropout(self.linear2(self.dropout(self.linear1(h).relu()))))


class TokenBlock(nn.Module):
    """The token of a query attends to the positions in its frame, then to its own tokens in other
    frames."""

    def __init__(self, config: VerifierConfig) -> None:
        super().__init__()
        self.mha1 = nn.MultiheadAttention(
            config.width, config.heads, config.dropout, batch_first=True
        )
        self.mha2 = nn.MultiheadAttention(
            config.width, config.heads, config.dropout, batch_first=True
        )
        self.linear1 = nn.Linear(config.width, config.mlp_ratio * config.width)
        self.linear2 = nn.Linear(config.mlp_ratio * config.width, config.width)
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.norm3 = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,  # [N, T, width] tokens
        positions: Tensor,  # [N, T, K, width]
        time: Tensor,  # [1, T, width]
        no_place: Tensor,  # bool [N, T, K], True where not to look; somewhere False over K
        no_frame: Tensor,  # bool [N, T], True where not to look; somewhere False over T
    ) -> Tensor:  # [N, T, width]
        token, keys = x.flatten(0, 1)[:, None], positions.flatten(0, 1)
        seen, _ = self.mha1(
            token, keys, keys, key_padding_mask=no_place.flatten(0, 1), need_weights=False
        )
        x = self.norm1(x + self.dropout(seen.view_as(x)))
        at = x + time
        seen, _ = self.mha2(at, at, x, key_padding_mask=no_frame, need_weights=False)
        x = self.norm2(x + self.dropout(seen))
        hidden = F.gelu(self.linear1(x), approximate="tanh")
        return self.norm3(x + self.dropout(self.linear2(self.dropout(hidden))))


class VerifierNetwork(nn.Module):
    """The network. Runs on the device and in the precision of its weights; its input must be on
    that device."""

    def __init__(self, config: VerifierConfig) -> None:
        super().__init__()
        self.config = config
        self.time_emb = nn.Parameter(torch.randn(1, config.window, config.width) * 0.02)
        self.displacement_scale = nn.Parameter(torch.tensor(16.0))
        self.sim_scale_raw = nn.Parameter(torch.tensor(10.0))
        self.cnn_encoder = ResidualEncoder(config.stages, config.channels, STRIDE)
        self.backbone_projection = nn.Conv2d(config.channels, config.width, 1)
        self.local_encoder = nn.ModuleList(LocalBlock(config) for _ in range(config.local_layers))
        self.candidate_emb = nn.Embedding(2, config.identity_channels)
        self.local_projection = nn.Sequential(
            nn.LayerNorm(config.descriptor_channels),
            nn.Linear(config.descriptor_channels, config.width),
        )
        self.layers = nn.ModuleList(TokenBlock(config) for _ in range(config.layers))
        self.q_projection = nn.Linear(config.width, config.width, bias=False)
        self.f_projection = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self,
        frames: Tensor,  # [T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [N, 3] (t, x, y), px of the frames
        candidates: Tensor,  # [K, N, T, 2] px of the frames; NaN where a teacher has no position
        memory: Memory = DEFAULT_MEMORY,
    ) -> Tensor:  # [K, N, T]
        """Logits; their softmax over K says how much to rely on each teacher.

        A position that is NaN counts as if its teacher were not there, and has the logit NaN. All
        logits of a query are NaN if no teacher has a position from its frame on, or if it comes
        after the last frame (t > T - 1, so also T - 0.5).
        """
        return self.judge(self.encode(frames, memory), frames.shape[-2:], queries, candidates)

    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> Tensor:
        """[T, 3, H, W] in 0..255, of any size, to the encoder's features [T, channels, h, w]."""
        blocks = frames.split(memory.frames(frames.device))
        return torch.cat([memory.run(self.cnn_encoder, self._resized(block)) for block in blocks])

    def _resized(self, frames: Tensor) -> Tensor:  # 0..255 -> -1..1
        frames = 2 * (frames.to(self.cnn_encoder.conv1.weight.dtype) / 255) - 1
        return F.interpolate(frames, self.config.resolution, mode="bilinear", align_corners=False)

    def judge(
        self,
        features: Tensor,  # [T, channels, h, w] of `encode`
        size: Sequence[int],  # (H, W) px of the frames
        queries: Tensor,  # [N, 3]
        candidates: Tensor,  # [K, N, T, 2]
    ) -> Tensor:  # [K, N, T]
        """`forward` for frames that are encoded already."""
        height, width = size
        scale = queries.new_tensor([2 / width, 2 / height])
        start, at = queries[:, 1:] * scale - 1, candidates * scale - 1
        missing = ~candidates.isfinite().all(-1).permute(1, 2, 0)  # [N, T, K]
        at = at.permute(1, 2, 0, 3).masked_fill(missing[..., None], 0)
        when = queries[:, 0].long()
        looks = self._query_features(features, when, start)
        query, positions = self._describe(features, when, start, looks, at)
        early = torch.arange(len(features), device=queries.device) < queries[:, :1]
        per_block = max(1, PLACES_PER_BLOCK // math.prod(at.shape[1:3]))
        blocks = (part.split(per_block) for part in (query, positions, missing, early))
        logits = torch.cat([self._logits(*block) for block in zip(*blocks, strict=True)])
        return logits.permute(2, 0, 1)

    def _logits(
        self,
        query: Tensor,  # [N, width]
        positions: Tensor,  # [N, T, K, width]
        missing: Tensor,  # bool [N, T, K]
        early: Tensor,  # bool [N, T], frames before the query
    ) -> Tensor:  # [N, T, K]
        nobody = missing.all(-1)
        no_frame = early | nobody
        unknown = no_frame.all(-1)
        # Attention to nothing is NaN, and so is then the gradient of every weight: where there is
        # nothing to look at, look at zeros, and forget the answer.
        tokens = self._tokens(
            query, positions, missing & ~nobody[..., None], no_frame & ~unknown[:, None]
        )
        cosine = F.cosine_similarity(
            self.q_projection(tokens)[:, :, None],
            self.f_projection(positions),
            dim=-1,
            eps=COSINE_EPS,
        )
        sharpness = (F.softplus(self.sim_scale_raw) + 1).clamp(1, SHARPEST)
        return (sharpness * cosine).masked_fill(missing | unknown[:, None, None], math.nan)

    def _query_features(
        self,
        features: Tensor,  # [T, channels, h, w]
        when: Tensor,  # [N] frames
        start: Tensor,  # [N, 2] in -1..1, may lie outside
    ) -> Tensor:  # [N, width]
        """The feature at each query in its frame; zero for one whose frame is not there."""
        looks = start.new_zeros(len(start), self.config.width)
        for t in range(len(features)):
            here = (when == t).nonzero()[:, 0]
            if len(here):
                cells, at = self.backbone_projection(features[t, None]), start[here][None, None]
                found = F.grid_sample(cells, at, padding_mode="border", align_corners=False)
                looks = looks.index_copy(0, here, found[0, :, 0].T)
        return looks

    def _describe(
        self,
        features: Tensor,  # [T, channels, h, w]
        when: Tensor,  # [N]
        start: Tensor,  # [N, 2]
        looks: Tensor,  # [N, width]
        at: Tensor,  # [N, T, K, 2] in -1..1, may lie outside
    ) -> tuple[Tensor, Tensor]:  # [N, width], [N, T, K, width]
        """Descriptors of the queries in their own frames, and of the candidates in all."""
        teachers = at.shape[2]
        move = at - start[:, None, None]
        queries, candidates = torch.zeros_like(looks), []
        for t, frame in enumerate(features):
            here = (when == t).nonzero()[:, 0]
            asked = torch.cat([looks[here], looks.repeat_interleave(teachers, 0)])
            positions = torch.cat([start[here], at[:, t].flatten(0, 1)])
            moves = torch.cat([torch.zeros_like(start[here]), move[:, t].flatten(0, 1)])
            identity = torch.full((len(asked),), CANDIDATE, device=at.device)
            identity[: len(here)] = QUERY
            described = self._descriptors(self._pyramid(frame), asked, positions, moves, identity)
            queries = queries.index_copy(0, here, described[: len(here)])
            candidates.append(described[len(here) :].unflatten(0, (-1, teachers)))
        return queries, torch.stack(candidates, 1)

    def _pyramid(
        self, frame: Tensor
    ) -> list[Tensor]:  # [channels, h, w] -> per level [h, w, width]
        maps = [self.backbone_projection(frame[None])]
        for _ in range(self.config.levels - 1):
            maps.append(F.avg_pool2d(maps[-1], 2))
        return [level[0].permute(1, 2, 0) for level in maps]

    def _descriptors(
        self,
        pyramid: list[Tensor],
        h: Tensor,  # [P, width] looks of the queries that are asked for
        at: Tensor,  # [P, 2]
        move: Tensor,  # [P, 2] from the query
        identity: Tensor,  # [P] rows of `candidate_emb`
    ) -> Tensor:  # [P, width]
        reference = ((at + 1) / 2).clamp(0, 1)
        for block in self.local_encoder:
            h = block(h, reference, pyramid)
        parts = [h, self._displacement_code(move), self.candidate_emb(identity)]
        return self.local_projection(torch.cat(parts, -1))

    def _displacement_code(self, move: Tensor) -> Tensor:  # [P, 2] -> [P, 4 frequencies + 2]
        """Sines and cosines of x, those of y, x, y; frequencies from 1 to 32 in equal ratios."""
        move = move * self.displacement_scale
        steps = torch.linspace(0, 1, self.config.frequencies, dtype=move.dtype, device=move.device)
        angles = move[..., None] * (math.pi * HIGHEST_FREQUENCY**steps)  # [P, 2, frequencies]
        return torch.cat([torch.cat([angles.sin(), angles.cos()], -1).flatten(1), move], -1)

    def _tokens(
        self, query: Tensor, positions: Tensor, no_place: Tensor, no_frame: Tensor
    ) -> Tensor:
        """[N, T, width]; arguments as for `_logits` and `TokenBlock`."""
        frames, time = positions.shape[1], self.time_emb.transpose(1, 2)
        if frames != self.config.window:
            time = F.interpolate(time, frames, mode="linear", align_corners=False)
        time, x = time.transpose(1, 2), query[:, None].expand(-1, frames, -1)
        for layer in self.layers:
            x = layer(x, positions, time, no_place, no_frame)
        return x
