"""Online CoTrackers as teachers: window by window over a clip, or over a stream of frames that need
not end.

Memory holds the features of one window, however many frames have been seen. `track` holds those of
the whole clip if it has at most `max_frames` frames, because a second pass uses them again; no
track depends on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from teachers.cotracker.cotracker2 import COTRACKER2_PRESETS, CoTracker2
from teachers.cotracker.cotracker3 import ONLINE_PRESETS, CoTracker3Online
from teachers.cotracker.teacher import (
    CoTrackerModeSettings,
    CoTrackerSettings,
    CoTrackerTeacher,
    Group,
)
from teachers.cotracker.windows import WindowChain, first_frames, joined
from teachers.errors import ConfigError
from teachers.info import Mode
from teachers.layers.branch import for_gpu
from teachers.layers.clip_features import ClipFeatures, together
from teachers.layers.device import sent
from teachers.layers.resolutions import Size
from teachers.network_teacher import with_backward_pass
from teachers.published import PUBLISHED
from teachers.stream import Stream
from teachers.tracks import Tracks, VisibleRule


class WindowTeacher(CoTrackerTeacher):
    """A CoTracker that goes window by window."""

    streams = True

    def _mode_settings(self, mode: Mode, resolution: tuple[int, int]) -> CoTrackerModeSettings:
        if mode == "predictor":
            return CoTrackerModeSettings(iterations=6, resolution=resolution, support_grid=0)
        if mode == "benchmark":
            return CoTrackerModeSettings(iterations=6, resolution=resolution, support_grid=5)
        label = mode == "label"
        return CoTrackerModeSettings(
            iterations=4, resolution=None, support_grid=5, backward=label, support_moves=label
        )

    def stream(self, queries: np.ndarray) -> WindowStream:
        """See `Teacher.stream`; the tracks are those of `track` over all frames at once."""
        if (
            self.mode_settings.backward
            or self.mode_settings.single
            or self.mode_settings.support_points
        ):
            raise ConfigError(
                f"mode {self.info.mode!r} of {self.info.name!r} needs the whole clip: it tracks "
                "backward, one query at a time, or with support points from all over the clip. "
                "Stream with mode 'recipe', or with the official online predictor."
            )
        return WindowStream(self, queries)

    def _clip(
        self, features: ClipFeatures, own: Tensor, seed: int, asked: np.ndarray | None = None
    ) -> Tensor:
        """On a GPU both passes at once, as two clips, in half as many steps."""
        if not (self.mode_settings.backward and for_gpu(own)):
            return super()._clip(features, own, seed, asked)
        before = bool((own[:, 0] > 0).any()) if asked is None else bool((asked > 0).any())
        groups = self._groups(own, len(features), features.size, seed)
        if not before or len(groups) > 1:
            return super()._clip(features, own, seed, asked)
        return self._both_ways(features, groups[0], asked)

    def _both_ways(
        self, features: ClipFeatures, group: Group, asked: np.ndarray | None
    ) -> Tensor:  # -> [n, T, 4]
        """`_pass` and that over the reversed clip together.

        Points that a window has not come to, and that the network hides from the others, are not
        computed: the other pass tracks them there. They are sorted, so that those to compute are
        the first.
        """
        frames, window, points = len(features), self.model.config.window, len(group.own)
        starts, back = first_frames(frames, window), features.reversed()
        there = self._reversed(group, frames)
        ahead, behind, counts = group.own, there.own, None
        if asked is not None and self.model.hides_unseen:
            order = np.argsort(asked, kind="stable")
            counts = [len(group.support) + n for n in _begun(asked[order], frames, starts, window)]
            rows = sent(torch.from_numpy(order), ahead.device)
            ahead, behind = ahead[rows], behind[rows.flip(0)]
        sorted_points = [
            torch.cat(pair) for pair in ((group.support, ahead), (there.support, behind))
        ]
        chain = self._chain(torch.stack(sorted_points), features.size, counts)
        answers: tuple[list[Tensor], list[Tensor]] = ([], [])
        for first in starts:
            pair = zip(features.window(first, window), back.window(first, window), strict=True)
            found = chain.advance([together(grids, 0) for grids in pair])
            for clip, parts in enumerate(answers):
                parts.append(found.answer(len(group.support) + points, clip)[-points:])
        tracks, tracks_back = (joined(parts, window) for parts in answers)
        if counts is not None:
            place = rows.argsort()
            tracks, tracks_back = tracks[place], tracks_back.flip(0)[place]
        return with_backward_pass(tracks, group.own, lambda _: tracks_back, True)

    def _pass(self, features: ClipFeatures, groups: list[Group]) -> Tensor:
        chains = [self.chain(group, features.size) for group in groups]
        window: int = self.model.config.window
        answers = []
        for first in first_frames(len(features), window):
            pyramid = features.window(first, window)
            answers.append(
                torch.cat(
                    [
                        chain.advance(pyramid).answer(len(group.own))
                        for chain, group in zip(chains, groups, strict=True)
                    ]
                )
            )
        return joined(answers, window)

    def chain(self, group: Group, size: Size) -> WindowChain:
        """The windows of a group, before the first, in frames of that size."""
        return self._chain(group.points, size)

    def _chain(
        self, points: Tensor, size: Size, counts: list[int] | None = None
    ) -> WindowChain:  # [B, N, 3], as for `WindowChain`
        iterations = self.mode_settings.iterations
        return WindowChain(self.model, points, self._raster(size), iterations, self.memory, counts)


def _begun(asked: np.ndarray, frames: int, starts: range, window: int) -> list[int]:
    """How many points have begun when each window ends, in the clip or in the reversed clip; of
    their sorted frames."""
    both = asked, frames - 1 - asked[::-1]
    return [int(max(np.searchsorted(each, first + window) for each in both)) for first in starts]


class WindowStream(Stream):
    """A stream whose frames are final once they are half a window to a whole one behind the
    newest."""

    def __init__(self, teacher: WindowTeacher, queries: np.ndarray) -> None:
        super().__init__(queries, teacher)
        self._teacher = teacher
        self._window: int = teacher.model.config.window
        self._chain: WindowChain | None = None
        self._pyramid: list[Tensor] = []
        """Features of the frames that a window still needs."""
        self._answer: Tensor | None = None
        """[N, S / 2, 4]: the last window's answer for the frames that the next one will answer
        again."""

    def _advance(self, frames: np.ndarray) -> Tracks:
        final = []
        while len(frames):
            missing = self._window - self._waiting
            self._encode(frames[:missing])
            frames = frames[missing:]
            if self._waiting == self._window:
                final.append(self._next_window())
        return self._tracks(final)

    def _rest(self) -> Tracks:
        answered = 0 if self._answer is None else self._answer.shape[1]
        if self._waiting > answered:
            self._answer = self._track()
        return self._tracks([] if self._answer is None else [self._answer])

    @property
    def _waiting(self) -> int:
        return self._pyramid[0].shape[1] if self._pyramid else 0

    @torch.inference_mode()
    def _encode(self, frames: np.ndarray) -> None:
        new = self._teacher._encode(frames)
        old = self._pyramid or [grid[:, :0] for grid in new]
        self._pyramid = [together(grids) for grids in zip(old, new, strict=True)]

    def _next_window(self) -> Tensor:  # [N, S / 2, 4]
        """Tracks of the frames that the next window does not change."""
        half = self._window // 2
        tracks = self._track()
        self._pyramid = [grid[:, half:] for grid in self._pyramid]
        self._answer = tracks[:, half:]
        return tracks[:, :half]

    @torch.inference_mode()
    def _track(self) -> Tensor:  # [N, <= S, 4]
        if self._chain is None:
            own = self._teacher._to_own_raster(self._queries, self._teacher._scale(self.size))
            (group,) = self._teacher._groups(own, 1, self.size, seed=0)
            self._chain = self._teacher.chain(group, self.size)
        return self._chain.advance(self._pyramid).answer(len(self._queries))

    def _tracks(self, parts: list[Tensor]) -> Tracks:
        return (
            self._teacher._to_tracks(torch.cat(parts, 1), self._teacher._scale(self.size))
            if parts
            else Tracks.nan(len(self._queries), 0)
        )


@dataclass(frozen=True, kw_only=True)
class CoTracker2Settings(CoTrackerSettings):
    """Settings of CoTracker 2.1, in addition to `CoTrackerSettings`."""

    predictor: Literal["offline", "online"] = "offline"
    """Which form of mode "predictor" is used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor not in ("offline", "online"):
            raise ConfigError(f"predictor = {self.predictor!r}: there are offline, online.")
        if self.single:
            raise ConfigError(
                "CoTracker 2.1 was only measured with all points together: leave `single` out."
            )


class CoTracker2Teacher(WindowTeacher):
    """CoTracker 2.1, over a clip or a stream.

    Mode "predictor" has two published forms: the offline one (a 6 x 6 support grid and a pass over
    the reversed clip) and the online one (forward only, which is the one that can stream). "recipe"
    is forward only, at the clip's own size, 4 iterations, with a 5 x 5 grid; "label" adds the pass
    over the reversed clip. "benchmark" tracks all points together.
    """

    architecture = "CoTracker 2.1"
    evidence = "network:cotracker2"
    weights = PUBLISHED["cotracker2"]
    presets = COTRACKER2_PRESETS
    network = CoTracker2
    settings_type = CoTracker2Settings
    settings: CoTracker2Settings

    @property
    def _online(self) -> bool:
        return self.settings.predictor == "online"

    def _mode_settings(self, mode: Mode, resolution: tuple[int, int]) -> CoTrackerModeSettings:
        if mode == "predictor" and not self._online:
            return CoTrackerModeSettings(
                iterations=6, resolution=resolution, support_grid=6, backward=True
            )
        return super()._mode_settings(mode, resolution)

    def _rule(self, mode: Mode) -> VisibleRule:
        return VisibleRule(
            "v", 0.6 if mode == "benchmark" or (mode == "predictor" and self._online) else 0.9
        )


class CoTracker3OnlineTeacher(WindowTeacher):
    """CoTracker3 online, over a clip or a stream.

    Modes: "predictor" is the official online predictor (6 iterations at 384 x 512, forward only;
    its support grid is `support_grid=6`). "recipe" is forward only too, at the clip's own size, 4
    iterations, with a 5 x 5 grid. "label" adds a pass over the reversed clip, so that frames before
    a query are tracked.
    """

    architecture = "CoTracker3 online"
    evidence = "network:cotracker3"
    weights = PUBLISHED["cotracker3-online"]
    presets = ONLINE_PRESETS
    network = CoTracker3Online

    def _rule(self, mode: Mode) -> VisibleRule:
        return (
            VisibleRule("v*c", 0.6) if mode in ("predictor", "benchmark") else VisibleRule("v", 0.9)
        )
