"""CoTracker3: refine all tracks of a clip together, from correlation with what each point looked like in its query frame.

Paper    Karaev et al. 2024, arXiv 2410.11831; the transformer with virtual tracks is that of CoTracker, arXiv 2307.07635.
Weights  facebook/cotracker3, `scaled_offline.pth` and `baseline_offline.pth`, CC-BY-NC 4.0. This file is written from the papers;
         the parity tests show equal outputs. Attribute names are the keys of those files, "virual" included.
Raster   px of the frames that go in, an integer is a pixel centre. Inside, coordinates are in cells: px / 4, without a half-pixel
         shift, and again half of that at each coarser level of the pyramid.

One pass: encode every frame, build a pyramid, cut a window of features around each query in its frame. Then refine `iterations`
times: correlate those windows with windows around the present positions, and let a transformer, which attends over time and
between tracks, correct positions, visibility, and confidence. `refine` works on any run of frames from any start, so a model
that goes window by window is the same network called several times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.attention import Mlp
from teachers.checkpoints import stored_config
from teachers.clip_features import ClipFeatures
from teachers.cotracker_teacher import MAX_FRAMES, STRIDE, Call, CoTrackerTeacher, Group, Preset
from teachers.encoder import ResidualEncoder
from teachers.errors import ConfigError
from teachers.interface import Mode, VisibleRule
from teachers.long_clips import Entry, walk_both_ways
from teachers.memory import DEFAULT_MEMORY, Memory
from teachers.pyramid import encode_pyramid
from teachers.refinements import Refinements
from teachers.sampling import blend_cells, gather_cells, sample_windows
from teachers.settings import require_whole
from teachers.track_transformer import TrackTransformer

WEIGHTS_AT = "https://huggingface.co/facebook/cotracker3"
MOTION_FREQUENCIES = 10
MOTION_CHANNELS = 4 * (1 + 2 * MOTION_FREQUENCIES)
"""Steps to the next and from the last frame (x, y each), with their sines and cosines."""


@dataclass(frozen=True, kw_only=True)
class CoTracker3Config:
    """Sizes of the network. The defaults are the official model's."""

    window: int = 60
    """Frames that the time embedding is made for; other lengths resize it."""
    resolution: tuple[int, int] = (384, 512)
    """(H, W) px of the frames that the network is meant for. It sets the scale of the motion input, whatever size they have."""
    stages: tuple[int, int, int, int] = (64, 96, 128, 128)
    """Channels of the encoder's stages."""
    channels: int = 128
    """Channels of a feature."""
    levels: int = 4
    """Levels of the pyramid, each half as large as the one before."""
    radius: int = 3
    """Windows are (2 radius + 1)**2 cells."""
    correlation_hidden: int = 384
    correlation_channels: int = 256
    """What the (2 radius + 1)**4 products of one level are reduced to, and the layer on the way there."""
    width: int = 384
    """Channels of a token of the transformer."""
    heads: int = 8
    layers: int = 3
    mlp_ratio: int = 4
    virtual_tracks: int = 64
    """Learnt tokens through which the tracks exchange what they know."""

    @classmethod
    def official(cls) -> CoTracker3Config:
        """25.5 M parameters, as in `scaled_offline.pth` and `baseline_offline.pth`."""
        return cls()

    @classmethod
    def mini(cls) -> CoTracker3Config:
        """1.3 M parameters; trains on a CPU core."""
        return cls(
            window=24, resolution=(256, 256), stages=(16, 24, 32, 32), channels=32, radius=2, correlation_hidden=96,
            correlation_channels=48, width=128, heads=4, layers=2, mlp_ratio=2, virtual_tracks=16,
        )  # fmt: skip

    @property
    def token_channels(self) -> int:
        return 2 + self.levels * self.correlation_channels + MOTION_CHANNELS


PRESETS = {"official": CoTracker3Config.official, "mini": CoTracker3Config.mini}


def config_of_file(path: str | Path, preset: Preset) -> CoTracker3Config:
    """Sizes of the network whose weights are in a file: what its metadata says, or else the preset's.

    Raises:
        CheckpointError: the metadata is of another architecture or version.
    """
    return stored_config(path, PRESETS[preset]())


class UpdateTransformer(TrackTransformer):
    """Tokens of all tracks in all frames to corrections of position, visibility, and confidence."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__(config)
        self.flow_head = nn.Linear(config.width, 2)
        self.vis_conf_head = nn.Linear(config.width, 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # [B, N, T, token_channels] -> [B, N, T, 2], [B, N, T, 2]
        x = self.attend(tokens)
        return self.flow_head(x), self.vis_conf_head(x)


class CoTracker3Network(nn.Module):
    """What the offline and the online model have in common. Runs on the device of its weights; its input must be there too."""

    BF16_PARTS = ("fnet", "updateformer", "corr_mlp")
    time_emb: Tensor  # [1, window, token_channels]

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.config = config
        samples = (2 * config.radius + 1) ** 2
        self.register_buffer("time_emb", time_embedding(config.window, config.token_channels))
        self.fnet = ResidualEncoder(config.stages, config.channels, STRIDE)
        self.updateformer = UpdateTransformer(config)
        self.corr_mlp = Mlp(samples * samples, config.correlation_hidden, config.correlation_channels, "none")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head in (self.updateformer.flow_head, self.updateformer.vis_conf_head):
            nn.init.normal_(head.weight, std=1e-3)  # an untrained network leaves the points where they are

    def encode(self, frames: Tensor, memory: Memory = DEFAULT_MEMORY) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of unit-length features, per level [B, T, h, w, C]; see `encode_pyramid`."""
        return encode_pyramid(self.fnet, frames, self.config.levels, memory, unit_length=True)

    def query_windows(self, pyramid: list[Tensor], queries: Tensor) -> list[Tensor]:  # [B, N, 3] -> per level [B, N, W, C]
        """What each query looks like in its frame; W = (2 radius + 1)**2."""
        frame = queries[..., :1].long()
        xy = queries[..., None, 1:] / STRIDE
        return [sample_windows(grid, frame, xy / 2**level, self.config.radius)[:, :, 0] for level, grid in enumerate(pyramid)]

    def refine(
        self,
        pyramid: list[Tensor],  # per level [B, T, h, w, C]
        query_windows: list[Tensor],  # per level [B, N, W, C]
        xy: Tensor,  # [B, N, T, 2] px, where to start
        visibility: Tensor,  # [B, N, T] logits to start from
        confidence: Tensor,  # [B, N, T] logits to start from
        iterations: int,
        memory: Memory = DEFAULT_MEMORY,
    ) -> Refinements:
        """Improve tracks over the frames of the pyramid.

        No gradient flows through positions from one iteration to the one before; it does through the logits, which are running
        sums.
        """
        time = self._time_embedding(xy.shape[2])
        xy = xy / STRIDE
        steps = []
        for _ in range(iterations):
            xy = xy.detach()
            correlation = self.correlation(pyramid, query_windows, xy, memory)
            tokens = torch.cat([visibility[..., None], confidence[..., None], correlation, self._motion(xy)], -1) + time
            move, logits = self.updateformer(tokens)
            xy = xy + move
            visibility = visibility + logits[..., 0]
            confidence = confidence + logits[..., 1]
            steps.append((xy * STRIDE, visibility, confidence))
        every_xy, every_visibility, every_confidence = (torch.stack(values) for values in zip(*steps, strict=True))
        return Refinements(every_xy, every_visibility, every_confidence)

    def correlation(
        self,
        pyramid: list[Tensor],
        query_windows: list[Tensor],
        xy: Tensor,  # [B, N, T, 2] cells of level 0
        memory: Memory = DEFAULT_MEMORY,
    ) -> Tensor:  # [B, N, T, levels * correlation_channels]
        """Products of every cell around a query with every cell around its present position, reduced by one MLP (section 3.2)."""

        def block(xy: Tensor, *query_windows: Tensor) -> Tensor:
            return self._correlation(pyramid, query_windows, xy)

        return memory.in_blocks(block, xy, *query_windows, points_per_query=len(xy) * xy.shape[2])

    def _correlation(self, pyramid: list[Tensor], query_windows: Sequence[Tensor], xy: Tensor) -> Tensor:
        frame = torch.arange(xy.shape[2], device=xy.device)[None, None]
        reduced = []
        for level, (grid, query) in enumerate(zip(pyramid, query_windows, strict=True)):
            at = xy / 2**level
            cells = gather_cells(grid, frame, at, self.config.radius)  # [B, N, T, (2 radius + 2)**2, C]
            products = cells.flatten(2, 3) @ query.transpose(2, 3)  # one matrix product a query, over all frames
            products = blend_cells(products.unflatten(2, cells.shape[2:4]), at, self.config.radius)  # [B, N, T, W, W]
            reduced.append(self.corr_mlp(products.flatten(3)))
        return torch.cat(reduced, -1)

    def _motion(self, xy: Tensor) -> Tensor:  # [B, N, T, 2] cells -> [B, N, T, MOTION_CHANNELS]
        height, width = self.config.resolution
        step = (xy[:, :, 1:] - xy[:, :, :-1]) / (xy.new_tensor([width, height]) / STRIDE)
        to_next, from_last = F.pad(-step, (0, 0, 0, 1)), F.pad(step, (0, 0, 1, 0))
        motion = torch.cat([to_next, from_last], -1)
        angles = (motion[..., None, :] * 2 ** torch.arange(MOTION_FREQUENCIES, device=xy.device)[:, None]).flatten(3)
        return torch.cat([motion, angles.sin(), (angles + math.pi / 2).sin()], -1)

    def _time_embedding(self, frames: int) -> Tensor:  # [1, T, token_channels]
        if frames == self.config.window:
            return self.time_emb
        return F.interpolate(self.time_emb.transpose(1, 2), frames, mode="linear", align_corners=False).transpose(1, 2)


class CoTracker3(CoTracker3Network):
    """The offline model: one pass over all frames."""

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [B, N, 3] (t, x, y), px of the frames; t is cut to an integer
        iterations: int = 4,
        memory: Memory = DEFAULT_MEMORY,
    ) -> Refinements:
        """Tracks over all T frames, those before the query included. Sizes that `encode` refuses are a ConfigError."""
        return self.track(self.encode(frames, memory), queries, iterations, memory)

    def track(
        self,
        pyramid: list[Tensor],  # per level [B, T, h, w, C]
        queries: Tensor,  # [B, N, 3]
        iterations: int,
        memory: Memory = DEFAULT_MEMORY,
        looks: list[Tensor] | None = None,  # per level [B, N, W, C]
    ) -> Refinements:
        """`forward` for frames that are encoded already, and perhaps for queries whose looks are known from elsewhere."""
        frames = pyramid[0].shape[1]
        xy = queries[:, :, None, 1:].expand(-1, -1, frames, -1)
        unknown = torch.zeros_like(xy[..., 0])
        looks = self.query_windows(pyramid, queries) if looks is None else looks
        return self.refine(pyramid, looks, xy, unknown, unknown, iterations, memory)


def time_embedding(frames: int, channels: int) -> Tensor:  # [1, frames, channels]
    """Sines, then cosines, of t * 10000**(-2 i / channels)."""
    half = channels // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], 1)[None].float()


class CoTracker3OfflineTeacher(CoTrackerTeacher):
    """CoTracker3 over a whole clip at once.

    The time embedding is made for 60 frames and is stretched to other numbers, as the official code does. A clip of more than
    `max_frames` goes in overlapping windows, as `long_clips.py` says; how surely a point is seen is visibility x confidence, 0 where it
    is not visible by the mode's rule. Each window has support points of its own, in every mode anew for the reversed clip.

    Settings, beside those of `CoTrackerTeacher`:
        max_frames: the longest clip that is tracked at once.
        overlap: frames that neighbouring windows share at least; None is half a window.
    """

    architecture = "CoTracker3 offline"
    weights_at = WEIGHTS_AT
    presets = PRESETS
    network = CoTracker3

    def __init__(self, *, max_frames: int = MAX_FRAMES, overlap: int | None = None, **settings: Any) -> None:
        super().__init__(max_frames=max_frames, **settings)
        self.overlap = max_frames // 2 if overlap is None else overlap
        require_whole(1, overlap=self.overlap)
        if self.overlap >= max_frames:
            raise ConfigError(f"overlap = {self.overlap}: must be in 1..{max_frames - 1}, as a window has {max_frames} frames.")
        self.info = replace(self.info, settings=self.info.settings | {"max_frames": max_frames, "overlap": self.overlap})

    def _published_call(self, mode: Mode, resolution: tuple[int, int]) -> Call:
        """`label` is the recipe's call, because that already covers the frames before a query."""
        if mode == "predictor":
            return Call(iterations=6, resolution=resolution, support_grid=6, backward=True)
        if mode == "benchmark":
            return Call(iterations=6, resolution=resolution, support_grid=5)
        return Call(iterations=4, resolution=None, support_grid=0, support_points=100)

    def _rule(self, mode: Mode) -> VisibleRule:
        return VisibleRule("v*c", 0.6) if mode == "benchmark" else VisibleRule("v", 0.9)

    def _clip(self, features: ClipFeatures, own: Tensor, seed: int) -> Tensor:
        if len(features) <= self.max_frames:
            return super()._clip(features, own, seed)
        ahead, back = (partial(self._window, clip, seed) for clip in (features, features.reversed()))
        return walk_both_ways(ahead, back, self._sureness, own, len(features), self.max_frames, self.overlap)

    def _window(self, features: ClipFeatures, seed: int, first: int, entry: Entry) -> tuple[Tensor, list[Tensor]]:
        pyramid = features.window(first, self.max_frames)
        looks = self.model.query_windows(pyramid, entry.queries[None])
        if entry.hidden.any():
            for new, kept in zip(looks, entry.looks, strict=True):
                new[0, entry.hidden] = kept
        tracks, start = [], 0
        for group in self._groups(entry.queries, self.max_frames, features.size, seed):
            own = slice(start, start + len(group.own))
            tracks.append(self._together(pyramid, group, [level[:, own] for level in looks]))
            start = own.stop
        return torch.cat(tracks), [level[0] for level in looks]

    def _pass(self, features: ClipFeatures, groups: list[Group]) -> Tensor:
        pyramid = features.window(0, len(features))
        return torch.cat([self._together(pyramid, group, self.model.query_windows(pyramid, group.own[None])) for group in groups])

    def _together(self, pyramid: list[Tensor], group: Group, looks: list[Tensor]) -> Tensor:  # -> [n, T, 4]
        """Tracks of a group's own points, which look like `looks`, per level [1, n, W, C]."""
        support = self.model.query_windows(pyramid, group.support[None])
        every = [torch.cat(levels, 1) for levels in zip(looks, support, strict=True)]
        return self.model.track(pyramid, group.points, self.call.iterations, self.memory, every).answer(len(group.own))

    def _sureness(self, tracks: Tensor) -> Tensor:  # [n, t, 4] -> [n, t]
        rule, sure = self._rule(self.info.mode), tracks[..., 2] * tracks[..., 3]
        return torch.where((sure if rule.quantity == "v*c" else tracks[..., 2]) > rule.threshold, sure, 0.0)
