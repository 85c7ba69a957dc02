"""Teachers whose network goes window by window: over a clip, or over a stream of frames that need not end.

A stream gives the tracks of a frame once they are final: half a window to a whole one behind the newest frame. It holds the
features of one window, whatever it has seen; `track` holds those of the clip, because a second pass uses them again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teachers.cotracker_teacher import CoTrackerTeacher
from teachers.errors import ConfigError
from teachers.interface import Tracks, checked_frames, checked_queries
from teachers.windows import WindowChain, joined, windows

ENDLESS = 2**31
"""More frames than a stream has, and more px than a frame."""


class WindowTeacher(CoTrackerTeacher):
    """A CoTracker that goes window by window."""

    def stream(self, queries: np.ndarray) -> TrackStream:
        """Track points through frames that come bit by bit, forward only; the tracks are those of `track` over all frames at once.

        Args:
            queries: [N >= 1, 3] as for `track`; frames count from the first that is pushed.

        Raises:
            ConfigError: this mode needs the whole clip.
        """
        if self.call.backward or self.call.single or self.call.support_points:
            raise ConfigError(
                f"mode {self.info.mode!r} of {self.info.name!r} needs the whole clip: it tracks backward, one query at a time, or with "
                "support points from all over the clip. Stream with mode 'recipe', or with the official online predictor."
            )
        return TrackStream(self, queries)

    def _pass(self, pyramid: list[Tensor], own: Tensor, support: Tensor) -> Tensor:
        chain = self.chain(own, support)
        window = chain.window
        return joined([chain.advance(part).answer(len(own)) for part in windows(pyramid, window)], window)

    def chain(self, own: Tensor, support: Tensor) -> WindowChain:  # [N, 3], [M, 3]
        queries = torch.cat([own, support])[None].to(self.device)
        return WindowChain(self.model, queries, self.call.iterations, self.memory)


class TrackStream:
    """Push frames as they come; `finish` gives the tracks that no push has given."""

    def __init__(self, teacher: WindowTeacher, queries: np.ndarray) -> None:
        self._teacher = teacher
        self._queries = checked_queries(queries, (ENDLESS, ENDLESS, ENDLESS, 3))
        if len(self._queries) == 0:
            raise ConfigError("a stream needs at least one query.")
        self._window: int = teacher.model.config.window
        self._chain: WindowChain | None = None
        self._pyramid: list[Tensor] = []
        """Features of the frames that no complete window has left behind."""
        self._answer: Tensor | None = None
        """[N, S / 2, 4]: what the last window said about the frames that the next one will say again."""
        self._size: tuple[int, ...] = ()
        self._scale = (1.0, 1.0)
        self._frames = 0
        self._finished = False

    def push(self, frames: np.ndarray) -> Tracks:  # uint8 [T, H, W, 3]
        """Tracks [N, t] of the t frames that are now final, which follow those given before; t may be 0.

        Raises:
            ConfigError: frames or queries that `track` refuses, frames of another size than before, or a stream that has finished.
        """
        if self._finished:
            raise ConfigError("the stream has finished: start another one for more frames.")
        frames = checked_frames(frames)
        self._begin_or_go_on(frames.shape[1:3])
        final = []
        while len(frames):
            missing = self._window - self._waiting
            self._encode(frames[:missing])
            frames = frames[missing:]
            if self._waiting == self._window:
                final.append(self._next_window())
        return self._tracks(final)

    def finish(self) -> Tracks:
        """Tracks of the remaining frames.

        Raises:
            ConfigError: the frame of a query never came.
        """
        self._finished = True
        late = np.flatnonzero(self._queries[:, 0] >= self._frames)
        if len(late):
            raise ConfigError(
                f"query {late[0]} is in frame {self._queries[late[0], 0]:g}, but the stream ended after {self._frames} frames "
                f"({len(late)} of {len(self._queries)} queries came too late)."
            )
        answered = 0 if self._answer is None else self._answer.shape[1]
        if self._waiting > answered:
            self._answer = self._advance()
        return self._tracks([] if self._answer is None else [self._answer])

    @property
    def _waiting(self) -> int:
        return self._pyramid[0].shape[1] if self._pyramid else 0

    def _begin_or_go_on(self, size: tuple[int, ...]) -> None:
        if not self._size:
            self._queries = checked_queries(self._queries, (ENDLESS, *size, 3))
            self._size = size
        if size != self._size:
            raise ConfigError(f"frames of {size[1]} x {size[0]} px in a stream of {self._size[1]} x {self._size[0]} px.")

    @torch.inference_mode()
    def _encode(self, frames: np.ndarray) -> None:
        video, self._scale = self._teacher._to_raster(frames)
        if self._chain is None:
            own = torch.from_numpy(self._queries) * torch.tensor([1.0, *self._scale])
            self._chain = self._teacher.chain(own, self._teacher._support(1, video.shape[-2:], seed=0))
        new = self._teacher.model.encode(video[None], self._teacher.memory)
        old = self._pyramid or [grid[:, :0] for grid in new]
        self._pyramid = [torch.cat(grids, 1) for grids in zip(old, new, strict=True)]
        self._frames += len(frames)

    def _next_window(self) -> Tensor:  # [N, S / 2, 4]
        """Tracks of the frames that the next window does not touch."""
        half = self._window // 2
        tracks = self._advance()
        self._pyramid = [grid[:, half:] for grid in self._pyramid]
        self._answer = tracks[:, half:]
        return tracks[:, :half]

    @torch.inference_mode()
    def _advance(self) -> Tensor:  # [N, <= S, 4]
        assert self._chain is not None
        return self._chain.advance(self._pyramid).answer(len(self._queries))

    def _tracks(self, parts: list[Tensor]) -> Tracks:
        return self._teacher._to_tracks(torch.cat(parts, 1), self._scale) if parts else Tracks.nan(len(self._queries), 0)
