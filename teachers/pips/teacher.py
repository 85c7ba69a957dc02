"""PIPs and PIPs++ as teachers: networks that go forward from a query's frame, each point for
itself.

    frames --padded--> features, window by window --> pass from each query's frame on
        --> [pass over the reversed clip]

| mode | frames before a query |
|---|---|
| `predictor` | NaN: the official models know no way back |
| `label` | from a pass over the reversed clip |
| `recipe`, `benchmark` | as `label`: no recipe has them; strided TAP-Vid asks for every frame |

In every mode frames keep their size. Sides that leave less than two cells at the coarsest level of
the network's pyramid (where the official code gives NaN) are continued by the last row and column.
So are those that are no multiple of its stride, but in `predictor`: the official code squeezes such
a frame into the cells that are whole, by up to a cell. A track goes through its query exactly.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.checkpoints.files import (
    LICENCE,
    load_weights,
    no_weights,
    read_metadata,
    stored_config,
)
from teachers.errors import ConfigError
from teachers.finite import require_finite
from teachers.interface import Mode, Teacher, TeacherInfo
from teachers.layers.clip_features import ClipFeatures
from teachers.layers.device import compute_in_bf16, pick_device
from teachers.layers.memory import DEFAULT_MEMORY, Memory
from teachers.pips.pips import PIPS_PRESETS, Pips
from teachers.pips.pips2 import PIPS2_PRESETS, Pips2
from teachers.settings import require_switch, require_whole
from teachers.tracks import Tracks, VisibleRule

Preset = Literal["official", "mini"]


class ForwardTeacher(Teacher):
    """A subclass says which network, and how it goes through a clip.

    Settings:
        preset: "official" or "mini", which network; a checkpoint that says so itself needs none.
        iterations: refinements in each window.
        backward: take the frames before a query from a pass over the reversed clip; None is what
            the mode does.
        memory: see `Memory`.
        bf16: see `compute_in_bf16`.
    """

    architecture: ClassVar[str]
    weights_at: ClassVar[str]
    presets: ClassVar[Mapping[str, Callable[[], Any]]]
    """Configs of the network by name; each has `stride` and `levels`."""
    network: ClassVar[type[Any]]
    """Class of the network; made from a config."""
    rule: ClassVar[VisibleRule]

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None,
        device: str,
        mode: Mode,
        preset: Preset,
        iterations: int,
        backward: bool | None,
        max_frames: int,
        memory: Memory,
        bf16: bool,
        settings: dict[str, Any],
    ) -> None:
        """Args: max_frames: longest clip whose features are all held, so that a pass back need not
        encode them again. settings: of the subclass.
        """
        if checkpoint is None:
            raise no_weights(name, self.weights_at, "MIT")
        if preset not in self.presets:
            raise ConfigError(f"preset = {preset!r}: there are {', '.join(self.presets)}.")
        require_whole(1, iterations=iterations)
        self.config = stored_config(checkpoint, self.presets[preset]())
        self.iterations, self.max_frames, self.memory = iterations, max_frames, memory
        self.backward = mode != "predictor" if backward is None else backward
        require_switch(backward=self.backward, bf16=bf16)
        self.device = pick_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = self.network(self.config).eval().requires_grad_(False)
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        official = self.config == self.presets["official"]()
        self.info = TeacherInfo(
            name=name,
            architecture=self.architecture
            if official
            else f"{self.architecture}, {millions:.1f} M parameters",
            mode=mode,
            visible_rule=str(self.rule),
            licence=read_metadata(checkpoint).get(LICENCE, "MIT"),
            checkpoint_sha256="random"
            if checkpoint == "random"
            else load_weights(self.model, checkpoint, name),
            settings={"iterations": iterations, "backward": self.backward, "bf16": bf16} | settings,
        )
        self.model.to(self.device)
        if bf16:
            compute_in_bf16(self.model)

    @abc.abstractmethod
    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:  # [N, 3] -> [N, T, 3]
        """(x, y, visibility) from each query's frame on; NaN before it."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            features, points = (
                ClipFeatures(self._encode, frames),
                torch.from_numpy(queries).to(self.device),
            )
            if len(frames) <= self.max_frames:
                features.window(0, len(frames))
            tracks = self._pass(features, points)
            before = torch.arange(len(frames), device=self.device) < points[:, :1]  # [N, T]
            if self.backward and before.any():
                back = self._pass(
                    features.reversed(),
                    torch.cat([len(frames) - 1 - points[:, :1], points[:, 1:]], 1),
                )
                tracks = torch.where(before[..., None], back.flip(1), tracks)
            known = tracks if self.rule.quantity == "v" else tracks[..., :2]
            require_finite(known if self.backward else known[~before], self.info.name)
        xy, visibility = (part.cpu().numpy() for part in tracks.split((2, 1), -1))
        return Tracks(xy, visibility[..., 0], np.full(xy.shape[:2], np.nan, np.float32))

    def _encode(
        self, frames: np.ndarray
    ) -> list[Tensor]:  # [t, H, W, 3] -> per level [1, t, h, w, C]
        # torch warns of read-only arrays: Ray's are
        video = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)
        stride, least = self.config.stride, self.config.stride * 2**self.config.levels
        multiple = 1 if self.info.mode == "predictor" else stride
        below, right = (max(least, side + -side % multiple) - side for side in video.shape[-2:])
        if below or right:
            video = F.pad(video.float(), (0, right, 0, below), mode="replicate")
        return self.model.encode(video[None], self.memory)


def next_start(visibility: Tensor) -> Tensor:  # [P, S] in [0, 1] -> [P] in 2..S - 1
    """The frame of a window in which the next begins: the last one seen with more than 0.9, or
    0.88, or 0.86, and so on."""
    # the last is below 0
    thresholds = 0.9 - 0.02 * torch.arange(47, dtype=torch.float64, device=visibility.device)
    seen = visibility[:, 2:, None].double() > thresholds  # [P, S - 2, thresholds]
    highest = seen.any(1).int().argmax(1)  # [P] the first threshold that a frame exceeds
    seen = seen[torch.arange(len(seen)), :, highest]
    return visibility.shape[1] - 1 - seen.flip(1).int().argmax(1)


class PipsTeacher(ForwardTeacher):
    """PIPs over a clip of any length, chained as the paper does: each window begins in the last
    frame where the one before saw the point, and replaces what that one said of later frames. The
    last frame is repeated where a clip ends inside a window.

    Settings, beside those of `ForwardTeacher`:
        max_frames: how many frames are held as features at once, 8.4 MB each for frames of 384 x
            512 px. No track depends on it.
    """

    architecture = "PIPs"
    weights_at = "https://github.com/aharley/pips (`get_reference_model.sh`)"
    presets = PIPS_PRESETS
    network = Pips
    rule = VisibleRule("v", 0.5)

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        iterations: int = 6,
        backward: bool | None = None,
        max_frames: int = 96,
        memory: Memory = DEFAULT_MEMORY,
        bf16: bool = False,
    ) -> None:
        require_whole(1, max_frames=max_frames)
        super().__init__(
            name=name,
            checkpoint=checkpoint,
            device=device,
            mode=mode,
            preset=preset,
            iterations=iterations,
            backward=backward,
            max_frames=max_frames,
            memory=memory,
            bf16=bf16,
            settings={},
        )
        if max_frames < self.config.window:
            raise ConfigError(
                f"max_frames = {max_frames}: a window has {self.config.window} frames."
            )

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
class Walk:
    """Points of one query frame on their way through a clip."""

    rows: Tensor
    start: int
    """Where the next window begins."""
    templates: Tensor | None = None
    """Of the last window."""


class Pips2Teacher(ForwardTeacher):
    """PIPs++ over a clip of any length, in windows of `window` frames.

    A window begins in the last frame of the one before, with that position as its query, but keeps
    the template of the query's frame and begins with the other templates of the last window. The
    last window is moved back to end with the clip; where it meets frames that are tracked already,
    it improves them.

    Settings, beside those of `ForwardTeacher`:
        window: frames that are refined together; also how many are held as features, 2.1 MB each
            for frames of 384 x 512 px.
        beautify: see `Pips2.refine`.
    """

    architecture = "PIPs++"
    weights_at = "https://github.com/aharley/pips2 (`get_reference_model.sh`)"
    presets = PIPS2_PRESETS
    network = Pips2
    rule = VisibleRule("none")

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | None = None,
        device: str = "auto",
        mode: Mode = "predictor",
        preset: Preset = "official",
        iterations: int = 16,
        backward: bool | None = None,
        window: int = 128,
        beautify: bool = True,
        memory: Memory = DEFAULT_MEMORY,
        bf16: bool = False,
    ) -> None:
        require_whole(2, window=window)
        require_switch(beautify=beautify)
        super().__init__(
            name=name,
            checkpoint=checkpoint,
            device=device,
            mode=mode,
            preset=preset,
            iterations=iterations,
            backward=backward,
            max_frames=window,
            memory=memory,
            bf16=bf16,
            settings={"window": window, "beautify": beautify},
        )
        self.beautify = beautify

    def _pass(self, features: ClipFeatures, queries: Tensor) -> Tensor:
        end = len(features)
        frame = torch.arange(end, device=self.device)
        # [N, T, 2], at rest
        xy = torch.where((frame >= queries[:, :1])[..., None], queries[:, None, 1:], torch.nan)
        walks = self._walks(queries[:, 0].long(), end)
        while walks:
            walk = min(walks, key=lambda walk: walk.start)  # so that each frame is encoded once
            last = min(walk.start + self.max_frames, end)
            pyramid = features.window(walk.start, last - walk.start)
            start = xy[None, walk.rows, walk.start : last]
            if walk.templates is None:
                walk.templates = self.model.first_templates(pyramid, start)
            window = self.model.refine(
                pyramid, start, walk.templates, self.iterations, self.beautify
            )
            xy[walk.rows, walk.start : last] = window.xy[0]
            xy[walk.rows, last:] = window.xy[0, :, -1:]
            walk.start, walk.templates = min(last - 1, end - self.max_frames), window.templates
            if last == end:
                walks.remove(walk)
        return torch.cat([xy, torch.full_like(xy[..., :1], torch.nan)], -1)

    def _walks(self, query_frame: Tensor, end: int) -> list[Walk]:
        """In blocks that fit the memory; points whose query is in the last frame stay at home."""
        walks = []
        for start in range(end - 1):
            block = max(1, self.memory.points(self.device) // min(self.max_frames, end - start))
            rows = torch.nonzero(query_frame == start)[:, 0]
            walks += [Walk(part, start) for part in rows.split(block) if len(part)]
        return walks
