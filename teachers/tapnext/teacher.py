"""TAPNext, BootsTAPNext, TAPNext++ as teachers: one causal network, forwards and backwards.

    frames --resized to a square--> pass, a block of frames a call --> [pass over the reversed clip]

| mode | frames before a query | beside that |
|---|---|---|
| `predictor` | NaN: what the causal network says there means nothing | streams |
| `label` | from the reversed clip | a track goes through its query, as the network may not |
| `recipe`, `benchmark` | from the reversed clip | as the official demos do for TAP-Vid |

No published recipe has these teachers.

All points see each other, so the answer for a query depends on which others are asked; TAP-Vid asks
for all of a video at once. A clip of any length is computed in blocks, whose size grows neither
with the number of frames nor with their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.errors import TeacherError
from teachers.info import Mode
from teachers.layers.device import sent
from teachers.network_teacher import (
    NetworkTeacher,
    require_finite,
    reversed_queries,
    with_backward_pass,
)
from teachers.published import PUBLISHED
from teachers.settings import overridden, require_switch, require_whole
from teachers.tapnext.network import PATCH, PRESETS, UNITS, State, TapNext, certainty
from teachers.tapnext.stream import TapNextStream
from teachers.tapnext.support_points import around
from teachers.tracks import Tracks, VisibleRule

LARGEST_LAYER = {"cpu": 2**23, "cuda": 2**27}
"""Values of the widest layer in a call, by device: 2 frames of the published network on a CPU, 34
on a GPU."""
PIXELS_AT_ONCE = 2**24
"""How many frames are resized together."""


@dataclass(frozen=True, kw_only=True)
class TapNextModeSettings:
    """How the network is called in a mode."""

    backward: bool
    """Take the frames before a query from a pass over the reversed clip; else they are NaN."""
    through_query: bool
    """Make each track go through its query, as a label should."""
    support_points: int = 0
    """Points around each query that are tracked with it and then dropped; 64 as in the VOT entry of
    TAPNext++."""
    use_certainty: bool = False
    """Whether a point counts as visible where visibility times certainty is above 0.5, as in the
    JAX demo; otherwise, visibility alone counts."""

    def __post_init__(self) -> None:
        require_whole(0, support_points=self.support_points)
        require_switch(backward=self.backward, through_query=self.through_query)
        require_switch(use_certainty=self.use_certainty)


def mode_settings_of(mode: Mode) -> TapNextModeSettings:
    """See the table above."""
    return TapNextModeSettings(backward=mode != "predictor", through_query=mode == "label")


@dataclass(frozen=True, kw_only=True)
class TapNextSettings:
    """Settings of these teachers; None keeps what the mode does. Of `memory`, only the frames in a
    block matter; with `bf16`, gates, recurrence, and state stay float32."""

    backward: bool | None = None
    through_query: bool | None = None
    support_points: int | None = None
    use_certainty: bool | None = None
    """See `TapNextModeSettings` for these four."""
    numerics: Literal["torch", "jax"] = "torch"
    official_quirks: bool = False
    """See `TapNextConfig` for these two."""

    def __post_init__(self) -> None:
        require_switch(official_quirks=self.official_quirks)


class TapNextTeacher(NetworkTeacher):
    """TAPNext at 256 x 256 px."""

    architecture = "TAPNext"
    evidence = "network:tapnext"
    streams = True
    tracks_jointly = True
    weights = PUBLISHED["tapnext"]
    presets = PRESETS
    network = TapNext
    settings_type = TapNextSettings
    settings: TapNextSettings
    config_settings = ("numerics", "official_quirks")

    def _rule(self, mode: Mode) -> VisibleRule:
        return VisibleRule("v*c" if self.mode_settings.use_certainty else "v", 0.5)

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.mode_settings = overridden(mode_settings_of(mode), self.settings)
        return self._stored(self.mode_settings, "numerics", "official_quirks")

    def stream(self, queries: np.ndarray) -> TapNextStream:
        """See `Teacher.stream`."""
        self._require_forward(self.mode_settings.backward)
        return TapNextStream(self, queries)

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            answers = self._pass(frames, queries)
            before = np.arange(len(frames)) < queries[:, :1]  # [N, T]
            if self.mode_settings.backward:
                asked = torch.from_numpy(queries)
                back = reversed_queries(asked, len(frames)).numpy()
                answers = with_backward_pass(
                    answers,
                    sent(asked, self.device),
                    lambda _: self._pass(frames[::-1], back),
                    bool(before.any()),
                )
            tracks = self.to_tracks(
                answers, frames.shape[1:3], None if self.mode_settings.backward else before
            )
        if self.mode_settings.through_query:
            tracks.xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return tracks

    def _pass(
        self, frames: np.ndarray, queries: np.ndarray
    ) -> Tensor:  # [T, H, W, 3], [N, 3] -> [N, T, 4]
        points = self.to_units(queries, frames.shape[1:3])
        return self.advance(frames, points, len(queries), None)[0]

    def advance(
        self,
        frames: np.ndarray,  # uint8 [T, H, W, 3]
        points: Tensor,  # [1, M, 3] as `to_units` gives them
        kept: int,  # how many of them are queries
        state: State | None,  # after the frames before
    ) -> tuple[Tensor, State]:
        """[N, T, 4]: x, y in units, visibility, and certainty; and the state after these frames."""
        length, parts = self.frames_per_block(points.shape[1]), []
        for first in range(0, len(frames), length):
            answer, state = self.model(
                self.to_raster(frames[first : first + length]), points, state
            )
            xy, logits = answer.xy[0, :kept], answer.logits[0, :kept]
            sure = certainty(xy, logits, official_quirks=self.model.config.official_quirks)
            shares = torch.stack([answer.visible[0, :kept].sigmoid(), sure.clamp(0, 1)], -1)
            parts.append(torch.cat([xy, shares], -1))
        if state is None:
            raise TeacherError("no frame to track in.")
        return torch.cat(parts, 1), state

    def frames_per_block(self, points: int) -> int:
        """How many frames go through the network in one call."""
        config = self.model.config
        widest = ((config.raster // PATCH) ** 2 + points) * 4 * config.width
        largest = LARGEST_LAYER["cpu" if self.device.type == "cpu" else "cuda"]
        return self.memory.frames_per_block or max(1, largest // widest)

    def to_units(self, queries: np.ndarray, size: tuple[int, ...]) -> Tensor:  # [N, 3] -> [1, M, 3]
        """Queries from px of the frames, pixel centres, to units of the network, and their support
        points after them."""
        height, width = size
        points = queries + np.array([0, 0.5, 0.5])
        if self.mode_settings.support_points:
            points = np.concatenate(
                [points, around(points, self.mode_settings.support_points, (height, width))]
            )
        points = points * [1, UNITS / width, UNITS / height]
        return sent(torch.from_numpy(points.astype(np.float32))[None], self.device)

    def to_raster(self, frames: np.ndarray) -> Tensor:  # uint8 [T, H, W, 3] -> [1, T, 3, R, R]
        """Frames as the network takes them: a square, -1..1."""
        side = self.model.config.raster
        at_once, resized = max(1, PIXELS_AT_ONCE // frames[0].size), []
        for first in range(0, len(frames), at_once):
            part = self._video(frames[first : first + at_once]).float()
            resized.append(F.interpolate(part, (side, side), mode="bilinear", align_corners=False))
        return torch.cat(resized)[None] / 127.5 - 1

    def to_tracks(
        self, answers: Tensor, size: tuple[int, ...], unknown: np.ndarray | None
    ) -> Tracks:  # [N, T, 4]
        """Answers as tracks in px of frames of `size`, pixel centres, NaN where `unknown` [N,
        T]."""
        height, width = size
        answers = answers.cpu()  # in one piece: the only wait
        values = answers.numpy()
        known = answers if unknown is None else answers[torch.from_numpy(~unknown)]
        require_finite(known, self.info.name)
        xy = values[..., :2] * np.array([width / UNITS, height / UNITS], np.float32) - np.float32(
            0.5
        )
        tracks = Tracks(xy, values[..., 2].copy(), values[..., 3].copy())
        if unknown is not None:
            for value in (tracks.xy, tracks.visibility, tracks.confidence):
                value[unknown] = np.nan
        return tracks


class TapNext512Teacher(TapNextTeacher):
    """TAPNext at 512 x 512 px: the same network on four times as many patches."""

    architecture = "TAPNext, 512 px"
    variant: ClassVar[Mapping[str, Any]] = {"raster": 512}
