"""Recent frames: TAPIR through frames as they come, each of which is refined together with the few
before it.

Each frame is matched once: alone or, with `TapirConfig.path`, along the likeliest path up to it.
The mixer looks at all frames of a clip; in a stream, it is given the last `RECENT_FRAMES`, and its
answer for the newest is final. So every frame is answered at once, and only from the past; up to
`RECENT_FRAMES` frames, that is the answer of `track` for the last frame, but where later frames
change the path to earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from teachers.stream import RECENT_FRAMES, Stream, stayed
from teachers.tapir.network import TapirFeatures
from teachers.tapir.path import message, message_of
from teachers.tapir.teacher import TapirTeacher
from teachers.tracks import Tracks


class RecentFramesStream(Stream):
    """A stream of TAPIR. Before its own frame, the track of a point is NaN."""

    grows = True

    def __init__(self, teacher: TapirTeacher, queries: np.ndarray) -> None:
        super().__init__(queries, teacher)
        self._teacher = teacher
        self._points = np.zeros(0, int)
        """Rows of the queries whose frame has come, in that order; the fields below are about these
        points."""
        self._described: list[Tensor] = []
        """[1, n, channels] each, see `Tapir.describe`."""
        self._matched: Tensor | None = None
        """[1, n, S, 4]: see `Tapir.match`, in the frames of `_recent`."""
        self._message: Tensor | None = None
        """[n, h, w]: what the frames so far say of the next one, see `teachers.tapir.path`."""
        self._recent: list[TapirFeatures] = []
        """Features of the last S frames, at most `RECENT_FRAMES`."""

    def _advance(self, frames: np.ndarray) -> Tracks:
        tracks = [
            self._frame(frame[None], number) for number, frame in enumerate(frames, self._frames)
        ]
        return Tracks(
            *(
                np.concatenate([getattr(part, name) for part in tracks], 1)
                for name in ("xy", "visibility", "confidence")
            )
        )

    def _rest(self) -> Tracks:
        return Tracks.nan(len(self._queries), 0)  # every frame has had its answer

    @torch.inference_mode()
    def _frame(self, frame: np.ndarray, number: int) -> Tracks:  # uint8 [1, H, W, 3]
        teacher, network = self._teacher, self._teacher.model
        new = network.encode(
            teacher.to_video(frame), teacher.resolutions(self.size), teacher.memory
        )
        self._recent = _joined(self._recent, new)
        if self._matched is not None:
            matched = self._match(new[0])
            self._matched = torch.cat([self._matched, matched], 2)[:, :, -RECENT_FRAMES:]
        self._take(np.flatnonzero(self._queries[:, 0] == number), number)
        result = Tracks.nan(len(self._queries), 1)
        if self._matched is not None:
            tracks, rows = teacher.to_tracks(self._answer(self._matched)), self._points
            result.xy[rows], result.visibility[rows], result.confidence[rows] = (
                tracks.xy,
                tracks.visibility,
                tracks.confidence,
            )
        if teacher.mode_settings.through_query:
            here = self._queries[:, 0] == number
            result.xy[here, 0] = self._queries[here, 1:]
        return result

    def _match(self, newest: TapirFeatures) -> Tensor:  # [1, n, 1, 4]
        teacher, network = self._teacher, self._teacher.model
        if self._message is None:
            return network.match(newest, self._described[0], teacher.memory)
        look = network.look(newest, self._described[0], teacher.memory)
        belief = look.likelihood[0, :, 0] + self._message
        self._message = message(belief)
        return network.locate(look, belief.flatten(1).argmax(1)[None, :, None])

    def _answer(
        self, matched: Tensor
    ) -> Tensor:  # [1, n, 1, 4] as `TapirSteps.answer`, of the newest frame
        teacher, network = self._teacher, self._teacher.model
        assumed = matched
        answers = []
        for level, described in zip(self._recent[1:], self._described[1:], strict=True):
            steps = network.refine(level, described, assumed, memory=teacher.memory)
            answers.append(steps[-1][:, :, -1:])
            assumed = torch.cat([steps[-1][..., :2], matched[..., 2:]], -1)
        height, width = self.size
        scale = torch.tensor([width, height], dtype=answers[0].dtype, device=answers[0].device)
        answer = torch.stack(answers).mean(0)
        return torch.cat([answer[..., :2] * scale / network.config.raster, answer[..., 2:]], -1)

    def _take(self, rows: np.ndarray, newest: int) -> None:
        """Rows whose frames are among the recent ones, the last of which is `newest`."""
        if not len(rows):
            return
        teacher, network = self._teacher, self._teacher.model
        count = self._recent[0].grids[0].shape[1]
        queries = self._queries[rows] - np.array([newest + 1 - count, 0, 0], np.float32)
        own = teacher.to_corners(queries)
        described = network.describe(self._recent, own, self.size)
        matched = network.match(self._recent[0], described[0], teacher.memory)
        height, width = self.size
        scale = torch.tensor([width, height], dtype=own.dtype, device=own.device)
        place = own[0, :, 1:] * network.config.raster / scale
        here = torch.arange(len(rows)), torch.from_numpy(queries[:, 0].astype(int))
        matched[0, here[0], here[1], :2] = place.to(matched.dtype)
        self._points = np.concatenate([self._points, rows])
        self._described = [
            torch.cat(levels, 1)
            for levels in zip(
                self._described or [level[:, :0] for level in described], described, strict=True
            )
        ]
        self._matched = _with(self._matched, matched, 1)
        if network.config.path:
            look = network.look(self._recent[0], described[0], teacher.memory)
            self._message = _with(self._message, message_of(look.likelihood[0]), 0)

    @torch.inference_mode()
    def _take_held(self, rows: np.ndarray) -> None:
        self._take(rows, self._frames - 1)

    def _keep_rows(self, rows: np.ndarray) -> None:
        stay, self._points = stayed(self._points, rows)
        self._described = [level[:, stay] for level in self._described]
        if self._matched is not None:
            self._matched = self._matched[:, stay] if len(stay) else None
        if self._message is not None:
            self._message = self._message[stay] if len(stay) else None
        if not len(stay):
            self._described = []


def _with(before: Tensor | None, new: Tensor, axis: int) -> Tensor:
    return new if before is None else torch.cat([before, new], axis)


def _joined(before: Sequence[TapirFeatures], new: Sequence[TapirFeatures]) -> list[TapirFeatures]:
    """The features of the last frames; levels that are one object stay one."""
    if not before:
        return list(new)
    made: dict[int, TapirFeatures] = {}
    for old, level in zip(before, new, strict=True):
        if id(level) not in made:
            grids = [
                torch.cat([first, second], 1)[:, -RECENT_FRAMES:]
                for first, second in zip(old.grids, level.grids, strict=True)
            ]
            made[id(level)] = replace(level, grids=grids)
    return [made[id(level)] for level in new]
