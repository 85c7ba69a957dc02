"""PIPs: follow each point through eight frames at a time, alone, behind occluders too.

Paper    Harley et al. 2022, "Particle Video Revisited", arXiv 2204.04153, section 3. Names below
         are the paper's.
Weights  the reference model of aharley/pips, MIT. This file is written from the paper; the parity
         tests show equal outputs. Attribute names are the keys of that file.
Raster   px of the frames that go in, an integer is a pixel centre. Inside, coordinates are in
         cells: px / 4, without a half-pixel shift, and again half of that at each coarser level of
         the pyramid.

In a window, the query's feature is sampled in the first frame, and the point starts at rest. Then,
`iterations` times, the point's feature in each frame is correlated with the cells around its
position there, and an MLP-mixer over the eight frames corrects positions and features. Visibility
is read from the features. `PipsTeacher` chains windows: each begins where the last one was sure to
see the point, and keeps the feature of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teachers.layers.correlation import correlate_templates
from teachers.layers.memory import DEFAULT_MEMORY, Memory, cached_blocks
from teachers.layers.pyramid import MINI_PYRAMID
from teachers.layers.sampling import sample_windows
from teachers.pips.encoder import PipsNetwork, PipsSizes


@dataclass(frozen=True, kw_only=True)
class PipsConfig(PipsSizes):
    """Sizes of the network. The defaults are the reference model's, 28.7 M parameters.

    Attributes:
        window: frames that are refined together; the mixer has weights for each.
        code_channels: sines and cosines of each of x, y, and t.
        width: channels of a token of the mixer.
        blocks, mlp_ratio: blocks of the mixer, and how many times as wide its hidden layers are.
    """

    window: int = 8
    stride: int = 4
    code_channels: int = 64
    width: int = 512
    blocks: int = 12
    mlp_ratio: int = 4

    @classmethod
    def mini(cls) -> PipsConfig:
        """0.5 M parameters; trains on two CPU cores."""
        return cls(levels=3, code_channels=16, width=96, blocks=4, **MINI_PYRAMID)

    @property
    def token_channels(self) -> int:
        return (
            self.channels + self.levels * (2 * self.radius + 1) ** 2 + 3 * (self.code_channels + 1)
        )


TOGETHER = 64
"""Points that are refined together on a CPU; measured with the window of 8 frames."""
PIPS_PRESETS = {"official": PipsConfig, "mini": PipsConfig.mini}


def mlp(up: nn.Module, down: nn.Module) -> nn.Sequential:
    """Two layers with a GELU between them; the official file counts a dropout there, too."""
    return nn.Sequential(up, nn.GELU(), nn.Identity(), down)


class Residual(nn.Module):
    """A layer norm and a layer, with a shortcut around them."""

    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = layer

    def forward(self, x: Tensor) -> Tensor:  # [P, S, width] -> [P, S, width]
        return x + self.fn(self.norm(x))


class MeanOverFrames(nn.Module):
    """A layer without weights that has a number in the official file."""

    def forward(self, x: Tensor) -> Tensor:  # [P, S, width] -> [P, width]
        return x.mean(1)


class MixerDeltaBlock(nn.Module):
    """MLP-mixer: turns the tokens of a point in S frames into corrections of its positions and
    features."""

    def __init__(self, config: PipsConfig) -> None:
        super().__init__()
        frames, width, ratio = config.window, config.width, config.mlp_ratio

        def mixer_block() -> nn.Sequential:
            over_frames = mlp(
                nn.Conv1d(frames, ratio * frames, 1), nn.Conv1d(ratio * frames, frames, 1)
            )
            over_channels = mlp(nn.Linear(width, ratio * width), nn.Linear(ratio * width, width))
            return nn.Sequential(Residual(width, over_frames), Residual(width, over_channels))

        last = nn.Linear(width, frames * (2 + config.channels))
        # an untrained network leaves the points where they are
        nn.init.normal_(last.weight, std=1e-3)
        self.to_delta = nn.Sequential(
            nn.Linear(config.token_channels, width),
            *(mixer_block() for _ in range(config.blocks)),
            nn.LayerNorm(width),
            MeanOverFrames(),
            last,
        )

    def forward(
        self, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:  # [B, N, S, token_channels] -> [B, N, S, 2], [B, N, S, C]
        delta = self.to_delta(tokens.flatten(0, 1)).view(*tokens.shape[:3], -1)
        return delta[..., :2], delta[..., 2:]


class Pips(PipsNetwork[PipsConfig]):
    """The network."""

    def __init__(self, config: PipsConfig) -> None:
        super().__init__(config)
        self.delta_block = MixerDeltaBlock(config)
        self.ffeat_updater = nn.Sequential(nn.Linear(config.channels, config.channels), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(config.channels, 1))

    def forward(
        self,
        frames: Tensor,  # [B, S, 3, H, W] 0..255, any dtype
        start: Tensor,  # [B, N, S, 2] px, where to start; frame 0 is the query
        iterations: int = 6,
        memory: Memory = DEFAULT_MEMORY,
    ) -> Tensor:  # [B, N, iterations, S, 3]
        """(x, y, visibility logit) in one window, after every iteration. A ConfigError for sizes
        that `encode` refuses."""
        pyramid = self.encode(frames, memory)
        frame = torch.arange(self.config.window, device=start.device)[None, None]
        return self.refine(
            pyramid,
            frame,
            start,
            self.query_features(pyramid, frame[..., :1], start[:, :, 0]),
            iterations,
        )

    def query_features(self, pyramid: list[Tensor], frame: Tensor, xy: Tensor) -> Tensor:
        """From frames [B or 1, N or 1, 1] and px [B, N, 2] to [B, N, C]: the feature at each
        query."""
        return sample_windows(pyramid[0], frame, xy[:, :, None] / self.config.stride, 0)[:, :, 0, 0]

    def refine(
        self,
        pyramid: list[Tensor],  # per level [B, T, h, w, C]
        frame: Tensor,  # [B or 1, N or 1, S] which of its T frames each point's window has
        xy: Tensor,  # [B, N, S, 2] px, where to start
        query: Tensor,  # [B, N, C] what the point looks like
        iterations: int,
    ) -> Tensor:  # [B, N, iterations, S, 3]
        """Improve the tracks of one window; the first position stays as it is. As in RAFT, no
        gradient flows through positions."""
        parts = [
            self._refine(
                pyramid,
                frame[:, some] if frame.shape[1] > 1 else frame,
                xy[:, some],
                query[:, some],
                iterations,
            )
            for some in cached_blocks(xy.shape[1], TOGETHER, xy)
        ]
        return torch.cat(parts, 1)

    def _refine(
        self, pyramid: list[Tensor], frame: Tensor, xy: Tensor, query: Tensor, iterations: int
    ) -> Tensor:
        """`refine` of some points."""
        xy = xy / self.config.stride
        first = xy[:, :, :1]
        features = query[:, :, None].expand(-1, -1, self.config.window, -1)
        steps = []
        for _ in range(iterations):
            xy = xy.detach()
            code = position_code(xy - first, self.config.code_channels)
            move, change = self.delta_block(
                torch.cat([features, self._correlation(pyramid, frame, xy, features), code], -1)
            )
            xy = torch.cat([first, (xy + move)[:, :, 1:]], 2)
            features = features + self.ffeat_updater(self.norm(change))
            steps.append(torch.cat([xy * self.config.stride, self.vis_predictor(features)], -1))
        return torch.stack(steps, 2)

    def _correlation(
        self, pyramid: list[Tensor], frame: Tensor, xy: Tensor, features: Tensor
    ) -> Tensor:
        """[B, N, S, levels * (2 radius + 1)**2]"""
        templates, radius = (
            features[..., None, :] / math.sqrt(self.config.channels),
            self.config.radius,
        )
        levels = [
            correlate_templates(grid, templates, frame, xy / 2**level, radius).flatten(3)
            for level, grid in enumerate(pyramid)
        ]
        return torch.cat(levels, -1)


def position_code(
    xy: Tensor, channels: int
) -> Tensor:  # [B, N, S, 2] cells -> [B, N, S, 3 * (channels + 1)]
    """Sines and cosines, alternating, of x, of y, and of the time, then these three themselves.

    Time goes from 0 to S, both included, so that its steps are S / (S - 1).
    """
    frames = xy.shape[2]
    time = torch.linspace(0, frames, frames, dtype=xy.dtype, device=xy.device)[:, None].expand(
        *xy.shape[:3], 1
    )
    place = torch.cat([xy, time], -1)
    frequencies = torch.arange(0, channels, 2, dtype=xy.dtype, device=xy.device) * (1000 / channels)
    angles = place[..., None] * frequencies
    return torch.cat([torch.stack([angles.sin(), angles.cos()], -1).flatten(3), place], -1)
