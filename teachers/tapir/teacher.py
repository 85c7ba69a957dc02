"""TAPIR and BootsTAPIR as teachers: modes, resolutions, long clips, and the half pixel between
their raster and ours.

| mode | frames are refined at | beside that |
|---|---|---|
| `predictor` | 256 x 256, then up to the clip's own size | as the official forward pass |
| `label` | 256 x 256 | through its query; a causal network goes back over the reversed clip |
| `recipe` | 256 x 256 | without the half pixel, as CoTracker3's training does |
| `benchmark` | 256 x 256 | as TAP-Vid measures it |

`tapir-mini` has no published way: it is matched along a path (`TapirConfig.path`), and instead of
256 x 256, its frames are refined at its own `TapirConfig.scales`. A student may also ask again for
points that are lost (`TapirConfig.requery`); no other network does, unless it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from teachers.info import Mode
from teachers.layers.device import constant, sent
from teachers.layers.overlapping import overlapping
from teachers.network_teacher import NetworkTeacher, require_finite, with_backward_pass
from teachers.published import PUBLISHED
from teachers.settings import overridden, require_switch, require_whole
from teachers.tapir.config import (
    BOOTSTAPIR,
    PRESETS,
    TapirConfig,
    default_resolutions,
    require_requery,
)
from teachers.tapir.network import (
    CPU_MEMORY,
    GPU_MEMORY,
    Size,
    Tapir,
    TapirFeatures,
)
from teachers.tapir.requery import asked_again
from teachers.tracks import Tracks, VisibleRule

if TYPE_CHECKING:
    from teachers.stream import Stream


@dataclass(frozen=True, kw_only=True)
class TapirModeSettings:
    """How a mode calls the network."""

    resolutions: tuple[Size, ...] | None
    """(H, W) px of the frames that positions are refined on; None grows to the clip's own size, see
    `default_resolutions`."""
    backward: bool = False
    """Take the frames before a query from a pass over the reversed clip."""
    half_pixel: bool = True
    """Shift by half a pixel between our pixel centres and the network's corner raster; the
    published recipe forgets it."""
    through_query: bool = False
    """Put each track through its query, as a label should go; the network's own answer in that
    frame is near, not equal."""
    requery: float = 1.0
    """See `TapirConfig.requery`."""

    def __post_init__(self) -> None:
        require_switch(
            backward=self.backward, half_pixel=self.half_pixel, through_query=self.through_query
        )


RULE = VisibleRule("v*c", 0.5)


def mode_settings_of(mode: Mode, config: TapirConfig) -> TapirModeSettings:
    """The published call of each mode; in `label`, a causal network also goes backwards."""
    own, requery = config.squares, config.requery
    if mode == "predictor":
        return TapirModeSettings(resolutions=None, requery=requery)
    if mode == "label":
        return TapirModeSettings(
            resolutions=own, backward=config.causal, through_query=True, requery=requery
        )
    return TapirModeSettings(resolutions=own, half_pixel=mode != "recipe", requery=requery)


@dataclass(frozen=True, kw_only=True)
class TapirSettings:
    """What can be set; None keeps what the mode does."""

    resolutions: Sequence[Size] | None = None
    backward: bool | None = None
    half_pixel: bool | None = None
    through_query: bool | None = None
    """These four: see `TapirModeSettings`."""
    requery: float | None = None
    """See `TapirConfig.requery`."""
    official_quirks: bool = False
    """See `TapirConfig`."""
    max_frames: int = 480
    """How many frames are held as features at once, 3.5 MB each for frames of 256 x 256 px. A
    longer clip goes in overlapping windows, see `overlapping`. With `TapirConfig.path`, each is
    told what all frames before it say of where the points are; of those after it, it knows
    nothing."""

    def __post_init__(self) -> None:
        require_whole(1, max_frames=self.max_frames)
        require_switch(official_quirks=self.official_quirks)
        if self.resolutions is not None:
            sizes = tuple((int(height), int(width)) for height, width in self.resolutions)
            object.__setattr__(self, "resolutions", sizes)


class TapirTeacher(NetworkTeacher):
    """TAPIR over a whole clip."""

    architecture = "TAPIR"
    evidence = "network:tapir"
    weights = PUBLISHED["tapir"]
    presets = PRESETS
    network = Tapir
    settings_type = TapirSettings
    settings: TapirSettings
    rule = RULE
    cpu_memory, gpu_memory = CPU_MEMORY, GPU_MEMORY
    memory_format = torch.channels_last
    config_settings = ("official_quirks",)
    streams = True

    def stream(self, queries: np.ndarray) -> Stream:
        """See `Teacher.stream`. This network refines over all frames of a clip; a stream lets it
        see the last few alone (`teachers.tapir.recent`), so its tracks are not those of `track`."""
        from teachers.tapir.recent import RecentFramesStream  # which knows this module

        self._require_forward(self.mode_settings.backward)
        return RecentFramesStream(self, queries)

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        self.max_frames = self.settings.max_frames
        self.mode_settings = overridden(mode_settings_of(mode, self.config), self.settings)
        require_requery(self.mode_settings.requery, self.config.causal)
        stored = self._stored(self.mode_settings, "official_quirks", "max_frames")
        if self.mode_settings.requery == 1:
            del stored["requery"]  # data sets from before there was one go on
        return stored

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            ask = self._answers(frames)
            result = ask(queries)
            if self.mode_settings.requery < 1:
                size = (frames.shape[1], frames.shape[2])
                result = asked_again(result, queries, ask, size, self.mode_settings.requery)
        if self.mode_settings.through_query:
            result.xy[np.arange(len(queries)), queries[:, 0].astype(int)] = queries[:, 1:]
        return result

    def _answers(self, frames: np.ndarray) -> Callable[[np.ndarray], Tracks]:
        """What the network says of points of these frames. If it can hold the features of all, it
        looks at the frames once, however often it is asked."""
        size = (frames.shape[1], frames.shape[2])
        if len(frames) > self.max_frames:
            return lambda queries: self.to_tracks(
                self._in_windows(frames, self.to_corners(queries), queries[:, 0].astype(int))
            )
        features = self.model.encode(self.to_video(frames), self.resolutions(size), self.memory)

        def ask(queries: np.ndarray) -> Tracks:
            corners, before = self.to_corners(queries), bool((queries[:, 0] >= 1).any())
            described = self.model.describe(features, corners, size)
            return self.to_tracks(self._window(features, described, size, corners, before))

        return ask

    def _in_windows(
        self, frames: np.ndarray, queries: Tensor, asked: np.ndarray
    ) -> Tensor:  # [T, H, W, 3], [1, N, 3] -> [1, N, T, 4]
        """A clip whose features are too many to hold; `asked` [N] are the queries' frames."""
        size = (frames.shape[1], frames.shape[2])
        resolutions = self.resolutions(size)
        described = self._describe(frames, queries, resolutions, asked)
        parts, past, first, features = list[Tensor](), None, 0, list[TapirFeatures]()
        for window, kept in overlapping(
            len(frames), self.max_frames, self.model.config.reach * len(resolutions)
        ):
            if features and self.model.config.path:
                past = self._past(features[0], described[0], window.start - first, past)
            first = window.start
            features = self.model.encode(self.to_video(frames[window]), resolutions, self.memory)
            moved = queries - constant(queries, window.start, 0, 0)
            before = bool((asked > window.start).any())
            parts.append(self._window(features, described, size, moved, before, past)[:, :, kept])
        return torch.cat(parts, 2)

    def _window(
        self,
        features: Sequence[TapirFeatures],
        described: Sequence[Tensor],
        size: Size,
        queries: Tensor,
        before: bool | None = None,
        past: Tensor | None = None,
    ) -> Tensor:
        """[1, N, T, 4] in the frames of the features; if the mode says so, frames before a query
        from the reversed clip. `past` is what the frames before these say, see
        `Tapir.path_so_far`."""
        tracks = self.model.track(
            features, described, size, queries, memory=self.memory, before=past
        ).answer
        if not self.mode_settings.backward:
            return tracks

        def backward(reversed_queries: Tensor) -> Tensor:
            reversed_features = [
                replace(level, grids=[grid.flip(1) for grid in level.grids]) for level in features
            ]
            return self.model.track(
                reversed_features, described, size, reversed_queries, memory=self.memory
            ).answer

        return with_backward_pass(tracks, queries, backward, before)

    def _past(
        self, features: TapirFeatures, described: Tensor, frames: int, past: Tensor | None
    ) -> Tensor:
        """What the first `frames` of the features, and the `past` before them, say of the next."""
        firsts = replace(features, grids=[grid[:, :frames] for grid in features.grids])
        return self.model.path_so_far(firsts, described, self.memory, past)

    def _describe(
        self,
        frames: np.ndarray,
        queries: Tensor,
        resolutions: Sequence[Size],
        asked: np.ndarray,
    ) -> list[Tensor]:
        """`Tapir.describe` for a clip whose features are too many to hold."""
        size = (frames.shape[1], frames.shape[2])
        described = [queries.new_zeros(1)] * (1 + len(resolutions))
        for first in range(0, len(frames), self.max_frames):
            last = min(first + self.max_frames, len(frames))
            if ((asked >= first) & (asked < last)).any():
                block = self.to_video(frames[first:last])
                moved = queries - constant(queries, first, 0, 0)
                here = (moved[..., 0] >= 0) & (moved[..., 0] < last - first)
                inside = torch.where(here[..., None], moved, 0)
                seen = self.model.describe(
                    self.model.encode(block, resolutions, self.memory), inside, size
                )
                described = [
                    torch.where(here[..., None], new, old)
                    for new, old in zip(seen, described, strict=True)
                ]
        return described

    def resolutions(self, size: Size) -> Sequence[Size]:
        """What positions are refined on for frames of (H, W) px."""
        return self.mode_settings.resolutions or default_resolutions(size, self.model.config)

    def to_video(self, frames: np.ndarray) -> Tensor:  # [T, H, W, 3] -> [1, T, 3, H, W]
        """Frames as the network takes them."""
        return self._video(frames)[None]

    def to_corners(self, queries: np.ndarray) -> Tensor:  # [N, 3] -> [1, N, 3]
        """Queries (t, x, y) from pixel centres to the corner raster."""
        corner = queries + np.array([0, self._shift, self._shift], np.float32)
        return sent(torch.from_numpy(corner)[None], self.device)

    def to_tracks(self, values: Tensor) -> Tracks:  # [1, N, T, 4]
        """What the network says, from the corner raster to pixel centres, from logits of what is
        wrong to probabilities."""
        values = values.cpu()  # in one piece: the only wait
        require_finite(values, self.info.name)
        xy, occlusion, distance = (
            part[0].numpy()
            for part in (values[..., :2], *torch.sigmoid(-values[..., 2:]).unbind(-1))
        )
        return Tracks(xy - np.float32(self._shift), occlusion, distance)

    @property
    def _shift(self) -> float:
        return 0.5 if self.mode_settings.half_pixel else 0.0


class BootsTapirTeacher(TapirTeacher):
    """BootsTAPIR over a whole clip."""

    architecture = "BootsTAPIR"
    variant = BOOTSTAPIR
    weights = PUBLISHED["bootstapir"]
