"""PIPs++: follow each point, alone, through the whole clip at once, comparing it with what it
looked like a few frames ago.

Paper    Zheng et al. 2023, "PointOdyssey", arXiv 2307.15055, section 4. Names below are the
         paper's.
Weights  the reference model of aharley/pips2, MIT. This file is written from the paper; the parity
         tests show equal outputs. Attribute names are the keys of that file, `norm` included, which
         nothing uses.
Raster   px of the frames that go in, an integer is a pixel centre. Inside, coordinates are in
         cells: px / 8, without a half-pixel shift, and again half of that at each coarser level of
         the pyramid.

The point starts at rest. Then, `iterations` times, three templates of the point, from its first
frame and from the track 2 and 4 frames back, are correlated with the cells around its position in
each frame, and a convolutional network over time corrects the positions. PIPs++ has no visibility.
`Pips2Teacher` chains windows over long clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.layers.correlation import correlate_templates
from teachers.layers.memory import DEFAULT_MEMORY, Memory, cached_blocks
from teachers.layers.over_time import TimeConvolution, TrackLengths, norm_over_time
from teachers.layers.pyramid import MINI_PYRAMID
from teachers.layers.sampling import sample_windows
from teachers.pips.encoder import PipsNetwork, PipsSizes

FRAMES_BACK = (2, 4)
"""How far back on the track the templates are taken, besides the one from the first frame."""
TEMPLATES = 1 + len(FRAMES_BACK)
TOGETHER = 32
"""Points that are refined together on a CPU; measured with 24 frames."""


@dataclass(frozen=True, kw_only=True)
class Pips2Config(PipsSizes):
    """Sizes of the network. The defaults are the reference model's, 17.6 M parameters."""

    stride: int = 8
    motion_frequencies: int = 32
    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512, 1024, 1024)
    """Channels of each residual block over time; the first convolution has as many as the first
    block."""

    @classmethod
    def mini(cls) -> Pips2Config:
        """0.4 M parameters; trains on two CPU cores."""
        widths = (48, 48, 96, 96)
        return cls(stride=4, levels=3, motion_frequencies=8, widths=widths, **MINI_PYRAMID)

    @property
    def token_channels(self) -> int:
        return (
            TEMPLATES * self.levels * (2 * self.radius + 1) ** 2 + 4 * self.motion_frequencies + 2
        )


PIPS2_PRESETS = {"official": Pips2Config, "mini": Pips2Config.mini}


class TimeBlock(nn.Module):
    """Twice: norm over time, ReLU, convolution, with a shortcut around them. In the shortcut,
    channels that are added are zero, half of them on each side."""

    def __init__(self, inputs: int, outputs: int, activated: bool) -> None:
        super().__init__()
        self.activated = activated
        self.gained = outputs - inputs
        self.conv1 = TimeConvolution(inputs, outputs)
        self.conv2 = TimeConvolution(outputs, outputs)

    def forward(
        self,
        x: Tensor,  # [P, S, inputs]; with `lengths`, 0 beyond the ends if it is `activated`
        kernel1: Tensor,
        kernel2: Tensor,
        lengths: TrackLengths | None = None,
    ) -> Tensor:  # [P, S, outputs]
        y = x if self.activated else norm_over_time(x, lengths).relu()
        y = self.conv2(norm_over_time(self.conv1(y, kernel1), lengths).relu(), kernel2)
        if torch.is_grad_enabled():
            return y + F.pad(x, (self.gained // 2, self.gained - self.gained // 2))
        y.narrow(2, self.gained // 2, x.shape[2]).add_(x)
        return y


class ConvolutionDeltaBlock(nn.Module):
    """Turns the tokens of a point over time into corrections of its positions."""

    def __init__(self, config: Pips2Config) -> None:
        super().__init__()
        self.first_block_conv = TimeConvolution(config.token_channels, config.widths[0])
        widths = (config.widths[0], *config.widths)
        self.basicblock_list = nn.ModuleList(
            TimeBlock(inputs, outputs, activated=index == 0)
            for index, (inputs, outputs) in enumerate(pairwise(widths))
        )
        self.dense = nn.Linear(config.widths[-1], 2)
        # an untrained network leaves the points where they are
        nn.init.normal_(self.dense.weight, std=1e-3)

    def kernels(self) -> list[Tensor]:
        """The kernels of all convolutions, in the order of the forward pass; they are valid as long
        as the weights stay the same."""
        return [module.kernel() for module in self.modules() if isinstance(module, TimeConvolution)]

    def forward(
        self,
        tokens: Tensor,  # [B, N, S, token_channels]
        kernels: list[Tensor],
        lengths: TrackLengths | None = None,
    ) -> Tensor:  # [B, N, S, 2]
        first, *rest = kernels
        x = tokens.flatten(0, 1)
        x = self.first_block_conv(x if lengths is None else lengths.only(x), first).relu()
        x = x if lengths is None else lengths.only(x)
        for block, kernel1, kernel2 in zip(
            self.basicblock_list, rest[::2], rest[1::2], strict=True
        ):
            x = block(x, kernel1, kernel2, lengths)
        return self.dense(x.relu()).view(*tokens.shape[:3], 2)


@dataclass(frozen=True)
class Window:
    """Tracks of N points in one window."""

    steps: Tensor
    """[B, N, iterations, S, 2] px: the positions after each iteration, in the first frame too."""
    xy: Tensor
    """[B, N, S, 2] px: the last of these, with the first position as it was given."""
    templates: Tensor
    """[B, N, S, TEMPLATES, C]: those of the last iteration, with which the next window begins."""


class Pips2(PipsNetwork[Pips2Config]):
    """The network."""

    def __init__(self, config: Pips2Config) -> None:
        super().__init__(config)
        self.delta_block = ConvolutionDeltaBlock(config)

    def forward(
        self,
        frames: Tensor,  # [B, S, 3, H, W] 0..255, any dtype
        start: Tensor,  # [B, N, S, 2] px, where to start; frame 0 is the query
        iterations: int = 16,
        beautify: bool = True,
        memory: Memory = DEFAULT_MEMORY,
    ) -> Window:
        """Track in one window. A ConfigError for sizes that `encode` refuses."""
        pyramid = self.encode(frames, memory)
        return self.refine(
            pyramid, start, self.first_templates(pyramid, start), iterations, beautify
        )

    def first_templates(
        self,
        pyramid: list[Tensor],
        start: Tensor,  # [B, N, S, 2] px
        frame: Tensor | None = None,  # as for `refine`
    ) -> Tensor:  # [B, N, S, TEMPLATES, C]
        """The features at the queries, used for all templates."""
        if frame is None:
            frame = _all_frames(start)
        first = self._features(pyramid, frame[..., :1], start[:, :, :1] / self.config.stride)
        return first[:, :, :, None].expand(-1, -1, start.shape[2], TEMPLATES, -1)

    def refine(
        self,
        pyramid: list[Tensor],  # per level [B, T, h, w, C]
        start: Tensor,  # [B, N, S, 2] px; the first position stays
        templates: Tensor,  # [B, N, S, TEMPLATES, C] to begin with
        iterations: int,
        beautify: bool,
        frame: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Window:
        """Improve the tracks of one window. As in RAFT, no gradient flows through positions.

        Args:
            beautify: halve the moves of the last iterations, about a quarter of them.
            frame: [B or 1, N or 1, S] which of the T frames each point's window has; None: all.
            lengths: [B, N] how many frames of the window there are for each point, 2 at least; what
                is said of the others means nothing. None: all, for every point.
        """
        frame = _all_frames(start) if frame is None else frame
        kernels = self.delta_block.kernels()
        parts = [
            self._refine(
                pyramid,
                start[:, some],
                templates[:, some],
                kernels,
                iterations,
                beautify,
                frame[:, some] if frame.shape[1] > 1 else frame,
                None if lengths is None else lengths[:, some],
            )
            for some in cached_blocks(start.shape[1], TOGETHER, start)
        ]
        if len(parts) == 1:
            return parts[0]
        return Window(
            torch.cat([part.steps for part in parts], 1),
            torch.cat([part.xy for part in parts], 1),
            torch.cat([part.templates for part in parts], 1),
        )

    def _refine(
        self,
        pyramid: list[Tensor],
        start: Tensor,
        templates: Tensor,
        kernels: list[Tensor],
        iterations: int,
        beautify: bool,
        frame: Tensor,
        lengths: Tensor | None,
    ) -> Window:
        """`refine` of some points; `kernels` are those of the network over time."""
        xy = start / self.config.stride
        first = xy[:, :, :1]
        last = None if lengths is None else lengths - 1
        tracks = (
            None if lengths is None else TrackLengths.of(lengths.flatten(), start.shape[2], start)
        )
        steps = []
        for iteration in range(iterations):
            xy = xy.detach()
            if iteration:
                templates = torch.cat(
                    [templates[..., :1, :], self._recent_templates(pyramid, frame, xy)], -2
                )
            tokens = torch.cat(
                [
                    self._correlation(pyramid, frame, xy, templates),
                    motion(xy, self.config.motion_frequencies, last),
                ],
                -1,
            )
            share = 0.5 if beautify and iteration > 3 * iterations // 4 else 1.0
            xy = xy + share * self.delta_block(tokens, kernels, tracks)
            steps.append(xy * self.config.stride)
            xy = torch.cat([first, xy[:, :, 1:]], 2)
        return Window(torch.stack(steps, 2), xy * self.config.stride, templates)

    def _recent_templates(
        self, pyramid: list[Tensor], frame: Tensor, xy: Tensor
    ) -> Tensor:  # [B or 1, N or 1, S], [B, N, S, 2] cells -> [B, N, S, 2, C]
        """The features on the track a few frames back; in the first frames, those of the first
        frame."""
        features = self._features(pyramid, frame, xy)
        step = torch.arange(xy.shape[2], device=xy.device)
        return torch.stack([features[:, :, (step - back).clamp(min=0)] for back in FRAMES_BACK], -2)

    def _features(
        self, pyramid: list[Tensor], frame: Tensor, xy: Tensor
    ) -> Tensor:  # [B or 1, N or 1, S], [B, N, S, 2] cells -> [B, N, S, C]
        return sample_windows(pyramid[0], frame, xy, 0)[..., 0, :]

    def _correlation(
        self, pyramid: list[Tensor], frame: Tensor, xy: Tensor, templates: Tensor
    ) -> Tensor:
        """[B, N, S, TEMPLATES * levels * (2 radius + 1)**2], template by template."""
        templates = templates / math.sqrt(self.config.channels)
        levels = [
            correlate_templates(grid, templates, frame, xy / 2**level, self.config.radius)
            for level, grid in enumerate(pyramid)
        ]
        return torch.cat(levels, -1).flatten(3)


def _all_frames(start: Tensor) -> Tensor:  # [B, N, S, 2] -> [1, 1, S]
    return torch.arange(start.shape[2], device=start.device)[None, None]


def motion(
    xy: Tensor,  # [B, N, S, 2] cells
    frequencies: int,
    last: Tensor | None = None,  # [B, N] the last step of each track, 1 at least; None: S - 1
) -> Tensor:  # [B, N, S, 4 * frequencies + 2]
    """Sines, then cosines, of the step to the next frame, in x, then y; then the step itself. The
    last step is repeated."""
    step = xy[:, :, 1:] - xy[:, :, :-1]
    step = torch.cat([step, step[:, :, -1:]], 2)
    if last is not None:
        index = torch.arange(xy.shape[2], device=xy.device).minimum(last[..., None] - 1)
        step = step.gather(2, index[..., None].expand(-1, -1, -1, 2))
    omega = 10000.0 ** (
        -torch.arange(frequencies, dtype=xy.dtype, device=xy.device) / (frequencies - 1)
    )
    angles = step[..., None] * omega
    return torch.cat([torch.cat([angles.sin(), angles.cos()], -1).flatten(3), step], -1)
