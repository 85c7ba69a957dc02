"""AllTracker as a teacher: passes from each query frame, modes, and dense flow.

A pass follows every pixel of ONE frame, so queries are grouped by their frame. However many queries
it has, a group costs one pass over the frames from there on and, where the mode asks for earlier
frames, another one over the reversed frames before it. Queries in 24 different frames cost 24 times
as much as queries in one.

| mode | frames | of two windows that see a frame counts | beside that |
|---|---|---|---|
| `predictor` | own size, at most 1024 px | the first, as in the official demo | |
| `label` | own size, at most 1024 px | as in the evaluation | a track goes through its query |
| `recipe` | as `label` | as `label` | no published recipe has this teacher |
| `benchmark` | 384 x 512 px | as `label` | |

Every mode goes both ways. The official evaluation only goes forwards (`backward=False`), but
strided TAP-Vid asks for every frame. In that evaluation, the second of two windows counts, and in
clips of more than 128 frames the first.

With `official_quirks`, queries are treated as in that evaluation: they are rounded to whole pixels,
and their fraction is lost; before its own frame a point stays where it is, hidden, and so does one
whose query is in the last frame; one whose query is in the frame before moves as if that were the
last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.alltracker.config import PRESETS
from teachers.alltracker.network import CPU_MEMORY, GPU_MEMORY, TINY, AllTracker, Padding, Size
from teachers.errors import ConfigError
from teachers.info import Mode
from teachers.layers.clip_features import ClipFeatures
from teachers.layers.device import constant, sent
from teachers.network_teacher import NetworkTeacher, require_finite
from teachers.published import PUBLISHED
from teachers.settings import checked_size, overridden, require_switch, require_whole
from teachers.tracks import DenseFlow, Tracks, VisibleRule, checked_frames

Counts = Literal["first", "last", "evaluation"]
"""Which of the windows that see a frame answers for it: the first, the last, or, as in the official
evaluation, the last in clips of at most `SHORT` frames and the first in longer ones."""
COUNTS: tuple[Counts, ...] = ("first", "last", "evaluation")
SHORT = 128
LONGEST_SIDE = 1024
"""Longest side in px of a frame that is not made smaller."""
RULE = VisibleRule("v*c", 0.6)


@dataclass(frozen=True, kw_only=True)
class AllTrackerModeSettings:
    """How the network is called in a mode."""

    resolution: Size | None
    """(H, W) px that frames are resized to; None keeps the clip's own size up to `LONGEST_SIDE`."""
    counts: Counts
    """See `Counts`."""
    backward: bool = True
    """Take the frames before a query from a pass over the reversed clip."""
    through_query: bool = False
    """Make each track go through its query, as a label should."""
    official_quirks: bool = False
    """See the module's docstring; then no pass goes backwards."""

    def __post_init__(self) -> None:
        require_switch(
            backward=self.backward,
            through_query=self.through_query,
            official_quirks=self.official_quirks,
        )
        if self.counts not in COUNTS:
            raise ConfigError(f"counts = {self.counts!r}: there are {', '.join(COUNTS)}.")


def mode_settings_of(mode: Mode) -> AllTrackerModeSettings:
    """The published call of each mode."""
    if mode == "predictor":
        return AllTrackerModeSettings(resolution=None, counts="first")
    size = (384, 512) if mode == "benchmark" else None
    return AllTrackerModeSettings(
        resolution=size, counts="evaluation", through_query=mode == "label"
    )


@dataclass(frozen=True, kw_only=True)
class AllTrackerSettings:
    """Settings of this teacher; None keeps what the mode does."""

    resolution: Size | Literal["own"] | None = None
    """See `AllTrackerModeSettings`; "own" is the clip's own size."""
    counts: Counts | None = None
    backward: bool | None = None
    through_query: bool | None = None
    official_quirks: bool = False
    """See `AllTrackerModeSettings` for these four."""
    window: int | None = None
    """Frames in a window, an even number; None is 16."""
    stride: int | None = None
    """Frames from one window to the next, at most half a window; None is half."""
    max_frames: int = 128
    """How many frames are held as features at once, 3 MB each for frames of 384 x 512 px."""

    def __post_init__(self) -> None:
        require_whole(1, max_frames=self.max_frames)
        if self.resolution not in (None, "own"):
            size = checked_size("resolution", self.resolution)
            object.__setattr__(self, "resolution", size)


class AllTrackerTeacher(NetworkTeacher):
    """AllTracker, from the frame of every query on."""

    architecture = "AllTracker"
    evidence = "network:alltracker"
    knows_hidden_points = True
    weights = PUBLISHED["alltracker"]
    presets = PRESETS
    network = AllTracker
    rule = RULE
    settings_type = AllTrackerSettings
    settings: AllTrackerSettings
    memory_format = torch.channels_last
    cpu_memory, gpu_memory = CPU_MEMORY, GPU_MEMORY

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        given = self.settings
        self.mode_settings = overridden(mode_settings_of(mode), given)
        if given.resolution == "own":
            self.mode_settings = replace(self.mode_settings, resolution=None)
        self.window = self.config.window if given.window is None else given.window
        self.stride = self.window // 2 if given.stride is None else given.stride
        require_whole(2, window=self.window)
        require_whole(1, stride=self.stride)
        if self.window % 2 or self.stride > self.window // 2:
            raise ConfigError(
                f"window = {self.window}, stride = {self.stride}: a window must be even, and a "
                "stride at most half."
            )
        self.max_frames = given.max_frames
        return asdict(self.mode_settings) | {
            "window": self.window,
            "stride": self.stride,
            "bf16": self.bf16,
        }

    def flow(self, frames: np.ndarray, t: int) -> DenseFlow:
        """See `Teacher.flow`; frames before `t` come from a pass over the reversed clip."""
        frames = checked_frames(frames)
        if t not in range(len(frames)):
            raise ConfigError(f"t = {t}: must be a frame of the clip, 0..{len(frames) - 1}.")
        size = (frames.shape[1], frames.shape[2])
        values = np.zeros((len(frames), *size, 4), np.float32)
        values[t, ..., 2:] = 1
        with self.computing(), torch.inference_mode():
            for index, maps in self._maps(self._clip(frames), t, backward=True):
                resized = maps.permute(2, 0, 1)[None]
                if maps.shape[:2] != size:
                    resized = F.interpolate(resized, size, mode="bilinear", align_corners=False)
                values[index] = resized[0].permute(1, 2, 0).cpu().numpy()
        values[..., :2] /= self._ratio(size)
        require_finite(torch.from_numpy(values.reshape(-1, 4)), self.info.name)
        return DenseFlow(values[..., :2], values[..., 2], values[..., 3])

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        count, size = len(frames), (frames.shape[1], frames.shape[2])
        ratio, quirks = self._ratio(size), self.mode_settings.official_quirks
        own = (queries[:, 1:] + np.float32(0.5)) * ratio - np.float32(0.5)
        own = np.rint(own) if quirks else own
        values = np.zeros((len(queries), count, 4), np.float32)
        values[..., :2] = own[:, None]
        if not quirks:
            values[np.arange(len(queries)), queries[:, 0].astype(int), 2:] = 1
        clip = self._clip(frames)
        answered: list[tuple[int, int]] = []  # query frame, frame
        answers: list[Tensor] = []
        with torch.inference_mode():
            for t in np.unique(queries[:, 0]).astype(int).tolist():
                places = sent(torch.from_numpy(own[queries[:, 0] == t]), self.device)
                for index, maps in self._maps(clip, t, self.mode_settings.backward and not quirks):
                    answered.append((t, index))
                    answers.append(read(maps, places))
            # in one piece: the only wait
            sizes = [len(each) for each in answers]
            every = torch.cat(answers).cpu().split(sizes) if answers else ()
        for (t, index), answer in zip(answered, every, strict=True):
            rows, seen = queries[:, 0] == t, answer.numpy()
            seen[:, :2] += own[rows]
            values[rows, index] = seen
            if quirks and t == count - 2:
                values[rows, t] = seen
        known = (np.arange(count) >= queries[:, :1]) | self.mode_settings.backward | quirks
        require_finite(torch.from_numpy(values[known]), self.info.name)
        values[~known] = np.nan
        xy = (values[..., :2] + np.float32(0.5)) / ratio - np.float32(0.5)
        if self.mode_settings.through_query:
            xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return Tracks(xy, values[..., 2], values[..., 3])

    def _maps(self, clip: ClipFeatures, t: int, backward: bool) -> Iterator[tuple[int, Tensor]]:
        """Each frame that the network answers for, and its maps [H, W, 4] in the raster: flow in
        px, visibility, and confidence. The query frame is not among them where the clip has fewer
        than two frames after it."""
        counts = self.mode_settings.counts
        if counts == "evaluation":
            counts = "last" if len(clip) <= SHORT else "first"
        for index, maps in self._pass(clip, t, counts):
            yield t + index, maps
        if backward:
            back = clip.reversed()
            for index, maps in self._pass(back, len(clip) - 1 - t, counts):
                if index:
                    yield t - index, maps

    def _pass(self, clip: ClipFeatures, t: int, counts: Counts) -> Iterator[tuple[int, Tensor]]:
        """Frames counted from t on."""
        count, answered = len(clip) - t, 0
        if count < 2:
            return
        padding = self._padding(clip.size)

        def features(first: int, frames: int) -> Tensor:
            return clip.window(t + first, frames)[0][0]

        for window in self.model.windows(features, count, self.window, self.stride, self.memory):
            end = window.first + window.frames
            first = max(window.first, answered) if counts == "first" else window.first
            last = end if counts == "first" or end == count else window.first + self.stride
            answered = end
            step = self.memory.frames_per_block
            for start in range(first, last, step):
                stop = min(start + step, last)
                maps = self.model.upsample(
                    window.state, slice(start - window.first, stop - window.first)
                )
                maps = padding.cut(maps)
                for index, (flow, logits) in enumerate(
                    zip(maps[..., :2], maps[..., 2:], strict=True)
                ):
                    yield start + index, torch.cat([flow, logits.sigmoid()], -1)

    def _clip(self, frames: np.ndarray) -> ClipFeatures:
        clip = ClipFeatures(self._encode, frames)
        if 1 < len(frames) <= self.max_frames:
            with torch.inference_mode():
                clip.window(0, len(frames))  # held from now on, so no pass need encode them again
        return clip

    def _encode(self, frames: np.ndarray) -> list[Tensor]:  # uint8 [t, H, W, 3] -> [1, t, h, w, C]
        video = self._video(frames)
        size = (video.shape[-2], video.shape[-1])
        raster, padding = self._raster(size), self._padding(size)
        parts = []
        for part in video.split(self.memory.frames_per_block):
            if raster != size:
                part = F.interpolate(part.float(), raster, mode="bilinear", align_corners=False)
            parts.append(self.model.encode(part, padding, self.memory))
        return [torch.cat(parts)[None]]

    def _padding(self, size: Size) -> Padding:
        return Padding.of(self._raster(size), self.model.config.least_side)

    def _raster(self, size: Size) -> Size:
        """(H, W) px of the frames as the network takes them, without their padding."""
        if self.mode_settings.resolution:
            return self.mode_settings.resolution
        share = min(1.0, LONGEST_SIDE / max(size))
        return max(1, round(size[0] * share)), max(1, round(size[1] * share))

    def _ratio(self, size: Size) -> np.ndarray:  # [2] (x, y)
        """From px of frames of that size to px of the raster."""
        height, width = self._raster(size)
        return np.array([width / size[1], height / size[0]], np.float32)


class AllTrackerTinyTeacher(AllTrackerTeacher):
    """The tiny AllTracker."""

    architecture = "AllTracker-Tiny"
    variant = TINY
    weights = PUBLISHED["alltracker-tiny"]


def read(maps: Tensor, xy: Tensor) -> Tensor:  # [H, W, 4], [N, 2] -> [N, 4]
    """Flow between pixels bilinearly, visibility and confidence at the nearest pixel; the nearest
    pixel of the frame outside."""
    height, width = maps.shape[:2]
    largest = constant(xy, width - 1, height - 1)
    xy = xy.clamp(xy.new_zeros(2), largest)
    low = xy.floor()
    share, low = (xy - low)[..., None], low.long()
    high = (low + 1).minimum(largest.long())
    (left, top), (right, bottom) = low.T, high.T
    above = torch.lerp(maps[top, left, :2], maps[top, right, :2], share[:, 0])
    below = torch.lerp(maps[bottom, left, :2], maps[bottom, right, :2], share[:, 0])
    column, row = xy.round().long().T
    return torch.cat([torch.lerp(above, below, share[:, 1]), maps[row, column, 2:]], 1)
