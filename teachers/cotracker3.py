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
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from teachers.attention import CrossAttentionBlock, Mlp, SelfAttentionBlock
from teachers.checkpoints import load_weights
from teachers.device import pick_device
from teachers.encoder import ResidualEncoder
from teachers.errors import CheckpointError, ConfigError
from teachers.interface import Mode, Teacher, TeacherInfo, Tracks, VisibleRule
from teachers.sampling import blend_cells, gather_cells, sample_windows
from teachers.support import frame_grid, grid_points, random_points

STRIDE = 4
MOTION_FREQUENCIES = 10
MOTION_CHANNELS = 4 * (1 + 2 * MOTION_FREQUENCIES)
"""Steps to the next and from the last frame (x, y each), with their sines and cosines."""

Preset = Literal["official", "mini"]


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
        """0.9 M parameters; trains on two CPU cores."""
        return cls(
            window=24, resolution=(192, 256), stages=(16, 24, 32, 32), channels=32, levels=3, correlation_hidden=64,
            correlation_channels=32, width=96, heads=4, layers=2, mlp_ratio=2, virtual_tracks=16,
        )  # fmt: skip

    @property
    def token_channels(self) -> int:
        return 2 + self.levels * self.correlation_channels + MOTION_CHANNELS


PRESETS = {"official": CoTracker3Config.official, "mini": CoTracker3Config.mini}


@dataclass(frozen=True)
class Memory:
    """How much is computed at once. It changes memory and speed, never the result."""

    frames_per_block: int = 8
    """Frames that go through the encoder together."""
    points_per_block: int = 2048
    """Points (a query in a frame) that are correlated together; each holds about 60 KiB in the official model."""
    recompute: bool = True
    """In training, correlate again on the way back instead of keeping those 60 KiB for every point, level, and iteration."""


@dataclass(frozen=True)
class Refinements:
    """The tracks of one run of frames after each of I iterations; the last is the answer, all of them enter the loss."""

    xy: Tensor
    """[I, B, N, T, 2] px of the frames."""
    visibility_logit: Tensor
    """[I, B, N, T]"""
    confidence_logit: Tensor
    """[I, B, N, T]"""
    first_frame: int = 0
    """Where in the clip these T frames begin."""

    @property
    def visibility(self) -> Tensor:
        """[I, B, N, T] in [0, 1]"""
        return self.visibility_logit.sigmoid()

    @property
    def confidence(self) -> Tensor:
        """[I, B, N, T] in [0, 1]"""
        return self.confidence_logit.sigmoid()


class TrackTransformer(nn.Module):
    """Tokens of all tracks in all frames to corrections of position, visibility, and confidence.

    Tracks see each other only through the virtual tracks, so the cost grows with N, not N squared (CoTracker, section 3).
    """

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        width, heads, ratio = config.width, config.heads, config.mlp_ratio
        self.input_transform = nn.Linear(config.token_channels, width)
        self.virual_tracks = nn.Parameter(torch.randn(1, config.virtual_tracks, 1, width))
        self.time_blocks = nn.ModuleList(SelfAttentionBlock(width, heads, ratio) for _ in range(config.layers))
        self.space_virtual2point_blocks = nn.ModuleList(CrossAttentionBlock(width, heads, ratio) for _ in range(config.layers))
        self.space_virtual_blocks = nn.ModuleList(SelfAttentionBlock(width, heads, ratio) for _ in range(config.layers))
        self.space_point2virtual_blocks = nn.ModuleList(CrossAttentionBlock(width, heads, ratio) for _ in range(config.layers))
        self.flow_head = nn.Linear(width, 2)
        self.vis_conf_head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # [B, N, T, token_channels] -> [B, N, T, 2], [B, N, T, 2]
        batch, points, frames, _ = tokens.shape
        virtual = self.virual_tracks.expand(batch, -1, frames, -1)
        x = torch.cat([self.input_transform(tokens), virtual], 1)  # [B, N + V, T, width]
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
            virtual = among_virtual(virtual_from_points(virtual, point))
            point = points_from_virtual(point, virtual)
            x = torch.cat([point, virtual], 1).unflatten(0, (batch, frames)).transpose(1, 2)
        x = x[:, :points]
        return self.flow_head(x), self.vis_conf_head(x)


class CoTracker3(nn.Module):
    """The network. Runs on the device of its weights; frames and queries must be there too."""

    time_emb: Tensor  # [1, window, token_channels]

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.config = config
        samples = (2 * config.radius + 1) ** 2
        self.register_buffer("time_emb", time_embedding(config.window, config.token_channels))
        self.fnet = ResidualEncoder(config.stages, config.channels, STRIDE)
        self.updateformer = TrackTransformer(config)
        self.corr_mlp = Mlp(samples * samples, config.correlation_hidden, config.correlation_channels, "none")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head in (self.updateformer.flow_head, self.updateformer.vis_conf_head):
            nn.init.normal_(head.weight, std=1e-3)  # an untrained network leaves the points where they are

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [B, N, 3] (t, x, y), px of the frames; t is cut to an integer
        iterations: int = 4,
        memory: Memory = Memory(),
    ) -> Refinements:
        """Tracks over all T frames, those before the query included. Sizes that `encode` refuses are a ConfigError."""
        return self.track(self.encode(frames, memory), queries, iterations, memory)

    def encode(self, frames: Tensor, memory: Memory = Memory()) -> list[Tensor]:
        """[B, T, 3, H, W] in 0..255 to a pyramid of unit-length features: per level [B, T, h, w, C].

        Raises:
            ConfigError: H or W is not a multiple of 4, or too small for the pyramid.
        """
        batch, (height, width) = frames.shape[0], frames.shape[-2:]
        least = STRIDE * 2 ** (self.config.levels - 1)
        if height % STRIDE or width % STRIDE or min(height, width) < least:
            raise ConfigError(f"frames of {width} x {height} px: CoTracker3 needs multiples of {STRIDE}, at least {least} a side.")
        dtype = self.fnet.conv1.weight.dtype
        blocks = frames.flatten(0, 1).split(memory.frames_per_block)
        maps = torch.cat([F.normalize(self.fnet(2 * (block.to(dtype) / 255) - 1), dim=1, eps=1e-6) for block in blocks])
        pyramid = []
        for level in range(self.config.levels):
            maps = F.avg_pool2d(maps, 2) if level else maps
            pyramid.append(maps.permute(0, 2, 3, 1).contiguous().unflatten(0, (batch, -1)))
        return pyramid

    def track(self, pyramid: list[Tensor], queries: Tensor, iterations: int, memory: Memory = Memory()) -> Refinements:
        """`forward` for frames that are encoded already."""
        frames = pyramid[0].shape[1]
        xy = queries[:, :, None, 1:].expand(-1, -1, frames, -1)
        unknown = torch.zeros_like(xy[..., 0])
        return self.refine(pyramid, self.query_windows(pyramid, queries), xy, unknown, unknown, iterations, memory)

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
        memory: Memory = Memory(),
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
        memory: Memory = Memory(),
    ) -> Tensor:  # [B, N, T, levels * correlation_channels]
        """Products of every cell around a query with every cell around its present position, reduced by one MLP (section 3.2)."""
        batch, points, frames, _ = xy.shape
        queries_per_block = max(1, memory.points_per_block // (batch * frames))
        reduced = []
        for first in range(0, points, queries_per_block):
            n = slice(first, first + queries_per_block)
            block = pyramid, [window[:, n] for window in query_windows], xy[:, n]
            if memory.recompute and torch.is_grad_enabled():
                reduced.append(checkpoint(self._correlation, *block, use_reentrant=False, preserve_rng_state=False))
            else:
                reduced.append(self._correlation(*block))
        return torch.cat(reduced, 1)

    def _correlation(self, pyramid: list[Tensor], query_windows: list[Tensor], xy: Tensor) -> Tensor:
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


def time_embedding(frames: int, channels: int) -> Tensor:  # [1, frames, channels]
    """Sines, then cosines, of t * 10000**(-2 i / channels)."""
    half = channels // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], 1)[None].float()


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a mode calls the network."""

    iterations: int
    resolution: tuple[int, int] | None
    """(H, W) px that frames are resized to, multiples of 4; None keeps the clip's own size (sides that are no multiple of 4 are
    padded by their last row and column)."""
    support_grid: int
    """Support points a side, in a grid over frame 0."""
    support_points: int
    """Support points drawn over space and time."""
    backward: bool = False
    """Take the frames before a query from a pass over the reversed clip, and the query's own frame from the query."""
    single: bool = False
    """Track each query alone, with its own local support grid."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError(f"iterations = {self.iterations}: at least 1 is needed; the official predictor makes 6.")
        if self.support_grid < 0 or self.support_points < 0:
            raise ConfigError(
                f"support_grid = {self.support_grid}, support_points = {self.support_points}: neither can be negative."
            )
        if self.resolution and any(side % STRIDE for side in self.resolution):
            raise ConfigError(f"resolution = {self.resolution}: height and width must be multiples of {STRIDE}.")


LOCAL_GRID, LOCAL_EXTENT_PX = 8, 50.0
"""Support of a query that is tracked alone: points a side, and the square around it, always at frame 0."""
RULES: dict[Mode, VisibleRule] = {
    "predictor": VisibleRule("v", 0.9),
    "label": VisibleRule("v", 0.9),
    "recipe": VisibleRule("v", 0.9),
    "benchmark": VisibleRule("v*c", 0.6),
}


def call_of(mode: Mode, resolution: tuple[int, int]) -> Call:
    """The published call of each mode; `label` is the recipe's, because it already covers the frames before a query."""
    if mode == "predictor":
        return Call(iterations=6, resolution=resolution, support_grid=6, support_points=0, backward=True)
    if mode == "benchmark":
        return Call(iterations=6, resolution=resolution, support_grid=5, support_points=0)
    return Call(iterations=4, resolution=None, support_grid=0, support_points=100)


class CoTracker3OfflineTeacher(Teacher):
    """CoTracker3 over a whole clip at once.

    Any number of frames runs, with memory in proportion. The time embedding is made for 60 and is stretched to other lengths, so
    clips that are much longer are outside what the weights were trained for.

    Settings:
        preset: "official" or "mini", which network.
        iterations, support_grid, support_points, resolution: see `Call`; None keeps what the mode does.
        single: in mode "benchmark", track each query alone.
        memory: see `Memory`.
    """

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        iterations: int | None = None,
        support_grid: int | None = None,
        support_points: int | None = None,
        resolution: tuple[int, int] | None = None,
        single: bool = False,
        memory: Memory = Memory(),
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(PRESETS)}.")
        if single and mode != "benchmark":
            raise ConfigError(f"single tracking belongs to mode 'benchmark', not to {mode!r}.")
        config = PRESETS[preset]()
        given = {"iterations": iterations, "support_grid": support_grid, "support_points": support_points, "resolution": resolution}
        changed = {key: value for key, value in given.items() if value is not None}
        self.call: Call = replace(call_of(mode, config.resolution), single=single, **changed)  # type: ignore[arg-type]
        self.device = pick_device(device)
        self.memory = memory
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = CoTracker3(config).eval().requires_grad_(False)
        self.info = TeacherInfo(
            name=name,
            architecture="CoTracker3 offline" if preset == "official" else f"CoTracker3 offline, {preset}",
            mode=mode,
            visible_rule=str(RULES[mode]),
            licence="CC-BY-NC 4.0 (official weights)" if preset == "official" else "Apache-2.0",
            checkpoint_sha256=_load(self.model, checkpoint, name),
            settings=asdict(self.call),
        )
        self.model.to(self.device)

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            video, scale = self._to_raster(frames)
            height, width = video.shape[-2:]
            own = torch.from_numpy(queries) * torch.tensor([1.0, *scale])
            grid = frame_grid(self.call.support_grid, height, width)
            drawn = random_points(self.call.support_points, len(frames), height, width, seed)
            support = torch.cat([grid, drawn])
            pyramid = self.model.encode(video[None], self.memory)
            if self.call.single:
                tracks = torch.cat([self._pass(pyramid, query, torch.cat([_local_grid(query), support])) for query in own.split(1)])
            else:
                tracks = self._pass(pyramid, own, support)
            if self.call.backward:
                tracks = self._with_backward_pass(tracks, pyramid, own, support)
        xy, visibility, confidence = (part.cpu().numpy() for part in tracks.split((2, 1, 1), -1))
        xy = xy / np.array(scale, np.float32)
        if self.call.backward:
            xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return Tracks(xy, visibility[..., 0], confidence[..., 0])

    def _pass(self, pyramid: list[Tensor], own: Tensor, support: Tensor) -> Tensor:  # [N, 3], [M, 3] -> [N, T, 4]
        """(x, y, visibility, confidence) of the own queries, which are tracked together with the support points."""
        queries = torch.cat([own, support])[None].to(self.device)
        result = self.model.track(pyramid, queries, self.call.iterations, self.memory)
        values = torch.cat([result.xy[-1], result.visibility[-1][..., None], result.confidence[-1][..., None]], -1)
        return values[0, : len(own)]

    def _with_backward_pass(self, tracks: Tensor, pyramid: list[Tensor], own: Tensor, support: Tensor) -> Tensor:
        """[N, T, 4] `tracks`, with the frames before each query from the reversed clip, and visible in the query's own frame."""
        frames = tracks.shape[1]
        frame, query_frame = torch.arange(frames, device=self.device), own[:, :1].to(self.device)
        if (query_frame > 0).any():
            back = self._pass([grid.flip(1) for grid in pyramid], _reversed(own, frames), _reversed(support, frames))
            tracks = torch.where((frame < query_frame)[..., None], back.flip(1), tracks)
        tracks[..., 2] = torch.where(frame == query_frame, 1.0, tracks[..., 2])
        return tracks

    def _to_raster(self, frames: np.ndarray) -> tuple[Tensor, tuple[float, float]]:
        """[T, 3, h, w] in 0..255 as the network takes them, and the factors (x, y) from px of the clip to px of these."""
        video = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)  # torch warns of read-only arrays: Ray's are
        height, width = video.shape[-2:]
        if self.call.resolution is None:
            rest = (0, -width % STRIDE, 0, -height % STRIDE)
            return (F.pad(video.float(), rest, mode="replicate") if any(rest) else video), (1.0, 1.0)
        rows, columns = self.call.resolution
        scale = (columns - 1) / max(1, width - 1), (rows - 1) / max(1, height - 1)
        return F.interpolate(video.float(), (rows, columns), mode="bilinear", align_corners=True), scale


def _local_grid(query: Tensor) -> Tensor:  # [1, 3] -> [LOCAL_GRID**2, 3]
    x, y = query[0, 1:].tolist()
    return grid_points(LOCAL_GRID, (LOCAL_EXTENT_PX, LOCAL_EXTENT_PX), (x, y))


def _reversed(points: Tensor, frames: int) -> Tensor:  # [N, 3] -> [N, 3]
    """Queries of a clip as queries of the reversed clip."""
    return torch.cat([frames - 1 - points[:, :1], points[:, 1:]], 1)


def _load(model: CoTracker3, checkpoint: str | None, name: str) -> str:
    """sha256 of the weights that went into `model`, or "random"."""
    if checkpoint is None:
        raise CheckpointError(
            f"teacher {name!r} has no weights: get its file from https://huggingface.co/facebook/cotracker3 (CC-BY-NC 4.0) and give "
            "it as `--checkpoint FILE`. `--checkpoint random` takes untrained weights, for tests only."
        )
    return "random" if checkpoint == "random" else load_weights(model, checkpoint, name)
