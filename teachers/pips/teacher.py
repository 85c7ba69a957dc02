"""PIPs and PIPs++ as teachers: networks that go forward from the frame of a query, and track each
point by itself.

    frames --padded--> features, window by window --> pass from each query's frame on
        --> [pass over the reversed clip]

| mode | frames before a query |
|---|---|
| `predictor` | NaN: the official models cannot go backwards |
| `label` | from a pass over the reversed clip |
| `recipe`, `benchmark` | as `label`: no recipe has them; strided TAP-Vid asks for every frame |

In every mode, frames keep their size. Sides that would leave fewer than two cells at the coarsest
level of the network's pyramid (where the official code gives NaN) are extended by repeating the
last row and column. So are sides that are not multiples of its stride, except in `predictor`: the
official code squeezes such a frame into the cells that are whole, by up to a cell. A track goes
through its query exactly.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.errors import ConfigError
from teachers.info import Mode
from teachers.layers.clip_features import ClipFeatures
from teachers.layers.device import sent
from teachers.network_teacher import NetworkTeacher, require_finite, with_backward_pass
from teachers.pips.pips import PIPS_PRESETS, Pips
from teachers.pips.pips2 import PIPS2_PRESETS, Pips2
from teachers.published import PUBLISHED
from teachers.settings import require_switch, require_whole
from teachers.tracks import Tracks, VisibleRule


@dataclass(frozen=True, kw_only=True)
class ForwardSettings:
    """Settings of both."""

    iterations: int
    """Refinements in each window."""
    backward: bool | None = None
    """Take the frames before a query from a pass over the reversed clip; None is what the mode
    does."""

    def __post_init__(self) -> None:
        require_whole(1, iterations=self.iterations)
        if self.backward is not None:
            require_switch(backward=self.backward)


class ForwardTeacher(NetworkTeacher):
    """PIPs or PIPs++. A subclass says which network it is, and how it goes through a clip."""

    knows_hidden_points = True
    settings: ForwardSettings

    max_frames: int
    """The longest clip whose features are all held, so that a backward pass need not encode them
    again."""

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.iterations = self.settings.iterations
        given = self.settings.backward
        self.backward = mode != "predictor" if given is None else given
        return {"iterations": self.iterations, "backward": self.backward, "bf16": self.bf16}

    @abc.abstractmethod
    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:  # [N, 3] -> [N, T, 3]
        """(x, y, visibility) from each query's frame on; NaN before it."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            features, points = (
                ClipFeatures(self._encode, frames),
                sent(torch.from_numpy(queries), self.device),
            )
            if len(frames) <= self.max_frames:
                features.window(0, len(frames))
            tracks = self._pass(features, points)
            if self.backward:
                tracks = with_backward_pass(
                    tracks,
                    points,
                    lambda queries: self._pass(features.reversed(), queries),
                    bool((queries[:, 0] > 0).any()),
                )
            tracks = tracks.cpu()  # in one piece
            known = tracks if self.rule.quantity == "v" else tracks[..., :2]
            tracked = torch.arange(len(frames)) >= torch.from_numpy(queries[:, :1])  # [N, T]
            require_finite(known if self.backward else known[tracked], self.info.name)
        xy, visibility = (part.numpy() for part in tracks.split((2, 1), -1))
        return Tracks(xy, visibility[..., 0], np.full(xy.shape[:2], np.nan, np.float32))

    def _encode(
        self, frames: np.ndarray
    ) -> list[Tensor]:  # [t, H, W, 3] -> per level [1, t, h, w, C]
        video = self._video(frames)
        stride, least = self.config.stride, self.config.stride * 2**self.config.levels
        multiple = 1 if self.info.mode == "predictor" else stride
        below, right = (max(least, side + -side % multiple) - side for side in video.shape[-2:])
        if below or right:
            video = F.pad(video.float(), (0, right, 0, below), mode="replicate")
        return self.model.encode(video[None], self.memory)


def next_start(visibility: Tensor) -> Tensor:  # [P, S] in [0, 1] -> [P] in 2..S - 1
    """The frame of a window in which the next one begins: the last one in which visibility is above
    0.9, or else 0.88, or 0.86, and so on."""
    # the last is below 0
    thresholds = 0.9 - 0.02 * torch.arange(47, dtype=torch.float64, device=visibility.device)
    seen = visibility[:, 2:, None].double() > thresholds  # [P, S - 2, thresholds]
    highest = seen.any(1).int().argmax(1)  # [P] the first threshold that a frame exceeds
    seen = seen[torch.arange(len(seen)), :, highest]
    return visibility.shape[1] - 1 - seen.flip(1).int().argmax(1)


@dataclass(frozen=True, kw_only=True)
class PipsSettings(ForwardSettings):
    """Settings of PIPs."""

    iterations: int = 6
    max_frames: int = 96
    """How many frames are held as features at once, 8.4 MB each for frames of 384 x 512 px. No
    track depends on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(1, max_frames=self.max_frames)


class PipsTeacher(ForwardTeacher):
    """PIPs over a clip of any length, chained as in the paper: each window begins in the last frame
    in which the one before saw the point, and replaces its answer for later frames. The last frame
    is repeated where a clip ends inside a window."""

    architecture = "PIPs"
    evidence = "network:pips"
    weights = PUBLISHED["pips"]
    presets = PIPS_PRESETS
    network = Pips
    rule = VisibleRule("v", 0.5)
    settings_type = PipsSettings
    settings: PipsSettings

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.max_frames = self.settings.max_frames
        if self.max_frames < self.config.window:
            raise ConfigError(
                f"max_frames = {self.max_frames}: a window has {self.config.window} frames."
            )
        return super()._set_up(mode)

    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:
        end, block = len(features), max(1, self.memory.points(self.device) // self.config.window)
        query_frame = queries[:, 0].long()
        # where each point's next window begins
        now, xy = query_frame.clone(), queries[:, 1:].clone()
        looks = torch.zeros(len(queries), self.config.channels, device=self.device)
        tracks = torch.full((len(queries), end, 3), torch.nan, device=self.device)
        while (first := int(now.min())) < end:
            pyramid = features.window(first, self.max_frames)
            held = first + pyramid[0].shape[1]
            here = torch.nonzero((query_frame >= first) & (query_frame < held))[:, 0]
            looks[here] = self.model.query_features(
                pyramid, query_frame[None, here, None] - first, queries[None, here, 1:]
            )[0]
            # windows that begin earlier are held
            complete = end if held == end else held - self.config.window + 1
            while len(ready := torch.nonzero(now < complete)[:, 0]):
                for rows in ready.split(block):
                    # [P, S]
                    frame = now[rows, None] + torch.arange(self.config.window, device=self.device)
                    answer = self._window(
                        pyramid, frame.clamp(max=end - 1) - first, xy[rows], looks[rows]
                    )
                    inside = frame < end
                    tracks[rows[:, None].expand_as(frame)[inside], frame[inside]] = answer[inside]
                    step = next_start(answer[..., 2])
                    now[rows] += step
                    xy[rows] = answer[torch.arange(len(rows)), step, :2]
        return tracks

    def _window(self, pyramid: list[Tensor], frame: Tensor, xy: Tensor, looks: Tensor) -> Tensor:
        """Frames [P, S], queries [P, 2], and their features [P, C] to [P, S, 3], with
        visibilities."""
        start = xy[None, :, None].expand(-1, -1, self.config.window, -1)
        answer = self.model.refine(pyramid, frame[None], start, looks[None], self.iterations)[
            0, :, -1
        ]
        return torch.cat([answer[..., :2], answer[..., 2:].sigmoid()], -1)


@dataclass(eq=False)
class ChainedWindow:
    """Points of one query frame on their way through a clip."""

    rows: Tensor
    start: int
    """Where the next window begins."""
    templates: Tensor | None = None
    """The templates of the last window."""


@dataclass(frozen=True, kw_only=True)
class Pips2Settings(ForwardSettings):
    """Settings of PIPs++."""

    iterations: int = 16
    window: int = 128
    """Frames that are refined together; also how many are held as features, 2.1 MB each for frames
    of 384 x 512 px."""
    beautify: bool = True
    """See `Pips2.refine`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(2, window=self.window)
        require_switch(beautify=self.beautify)


class Pips2Teacher(ForwardTeacher):
    """PIPs++ over a clip of any length, in windows of `window` frames.

    A window begins in the last frame of the one before, with that position as its query, but keeps
    the template of the query's frame and begins with the other templates of the last window. The
    last window is moved back to end with the clip; where it meets frames that are tracked already,
    it improves them.
    """

    architecture = "PIPs++"
    evidence = "network:pips2"
    weights = PUBLISHED["pips2"]
    presets = PIPS2_PRESETS
    network = Pips2
    rule = VisibleRule("none")
    settings_type = Pips2Settings
    settings: Pips2Settings

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.max_frames, self.beautify = self.settings.window, self.settings.beautify
        return super()._set_up(mode) | {"window": self.max_frames, "beautify": self.beautify}

    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:
        end = len(features)
        frame = torch.arange(end, device=self.device)
        # [N, T, 2], at rest
        xy = torch.where((frame >= queries[:, :1])[..., None], queries[:, None, 1:], torch.nan)
        chains = self._chained_windows(queries[:, 0].long(), end)
        while chains:
            chain = min(chains, key=lambda chain: chain.start)  # so that each frame is encoded once
            last = min(chain.start + self.max_frames, end)
            pyramid = features.window(chain.start, last - chain.start)
            start = xy[None, chain.rows, chain.start : last]
            if chain.templates is None:
                chain.templates = self.model.first_templates(pyramid, start)
            window = self.model.refine(
                pyramid, start, chain.templates, self.iterations, self.beautify
            )
            xy[chain.rows, chain.start : last] = window.xy[0]
            xy[chain.rows, last:] = window.xy[0, :, -1:]
            chain.start, chain.templates = min(last - 1, end - self.max_frames), window.templates
            if last == end:
                chains.remove(chain)
        return torch.cat([xy, torch.full_like(xy[..., :1], torch.nan)], -1)

    def _chained_windows(self, query_frame: Tensor, end: int) -> list[ChainedWindow]:
        """Track in blocks that fit the memory; points whose query is in the last frame stay where
        they are."""
        chains = []
        for start in range(end - 1):
            block = max(1, self.memory.points(self.device) // min(self.max_frames, end - start))
            rows = torch.nonzero(query_frame == start)[:, 0]
            chains += [ChainedWindow(part, start) for part in rows.split(block) if len(part)]
        return chains
