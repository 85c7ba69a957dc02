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
from teachers.layers.branch import for_gpu
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
    def _pass(
        self,
        features: ClipFeatures,
        queries: Tensor,  # [N, 3]
        query_frame: np.ndarray,  # [N] integer, the same as in `queries`
    ) -> Tensor:  # [N, T, 3]
        """(x, y, visibility) from each query's frame on; NaN before it."""

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with torch.inference_mode():
            features, points = (
                ClipFeatures(self._encode, frames),
                sent(torch.from_numpy(queries), self.device),
            )
            if len(frames) <= self.max_frames:
                features.window(0, len(frames))
            query_frame = queries[:, 0].astype(np.int64)
            tracks = self._pass(features, points, query_frame)
            if self.backward:
                tracks = with_backward_pass(
                    tracks,
                    points,
                    lambda queries: self._pass(
                        features.reversed(), queries, len(frames) - 1 - query_frame
                    ),
                    bool((query_frame > 0).any()),
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


FEW_FRAMES = 16
"""Windows of so many frames PIPs++ refines together on a GPU, whatever their lengths."""


def next_start(visibility: Tensor) -> Tensor:  # [P, S] in [0, 1] -> [P] in 2..S - 1
    """The frame of a window in which the next one begins: the last one in which visibility is above
    0.9, or else 0.88, or 0.86, and so on."""
    # the last is below 0
    thresholds = 0.9 - 0.02 * torch.arange(47, dtype=torch.float64, device=visibility.device)
    seen = visibility[:, 2:, None].double() > thresholds  # [P, S - 2, thresholds]
    highest = seen.any(1).int().argmax(1)  # [P] the first threshold that a frame exceeds
    seen = seen.gather(2, highest[:, None, None].expand(-1, seen.shape[1], 1))[..., 0]
    return visibility.shape[1] - 1 - seen.flip(1).int().argmax(1)


@dataclass(frozen=True)
class Walk:
    """How far PIPs has followed N points through a clip."""

    now: Tensor
    """[N] integer: where the next window begins."""
    xy: Tensor
    """[N, 2] px: the position there."""
    looks: Tensor
    """[N, C]: what the point looks like."""
    tracks: Tensor
    """[N, behind + S, 3] (x, y, visibility); NaN where no window was."""
    behind: int
    """The first frame in which nothing counts; it lies behind all windows that count."""

    @staticmethod
    def begin(queries: Tensor, end: int, window: int, channels: int) -> Walk:
        """From queries [N, 3] (t, x, y), in a clip of `end` frames."""
        behind = end + window
        return Walk(
            queries[:, 0].long(),
            queries[:, 1:].clone(),
            queries.new_zeros(len(queries), channels),
            queries.new_full((len(queries), behind + window, 3), torch.nan),
            behind,
        )


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

    def _pass(self, features: ClipFeatures, queries: Tensor, query_frame: np.ndarray) -> Tensor:
        end, window = len(features), self.config.window
        walk = Walk.begin(queries, end, window, self.config.channels)
        on_gpu = for_gpu(walk.now)
        known = query_frame  # where each next window begins, as far as is known
        while (first := int(known.min())) < end:
            pyramid = features.window(first, self.max_frames)
            held = first + pyramid[0].shape[1]
            queried = np.flatnonzero((query_frame >= first) & (query_frame < held))
            if len(queried):
                here = self._rows(queried)
                walk.looks[here] = self.model.query_features(
                    pyramid, queries[None, here, :1].long() - first, queries[None, here, 1:]
                )[0]
            # windows that begin earlier are held
            complete = end if held == end else held - window + 1
            while len(rows := np.flatnonzero(known < complete)):
                # A window brings a point 2 to S - 1 frames further, which only the device knows. On
                # a CPU, it is asked after every window. To ask a GPU is to wait for it, so every
                # point gets as many as it may need.
                frames = complete - known[rows]
                counts = -(-frames // 2) if on_gpu else np.ones_like(frames)
                order = np.argsort(-counts, kind="stable")
                there, counts = self._rows(rows[order]), counts[order]
                for done in range(counts[0]):
                    some = there[: int((counts > done).sum())]
                    self._advance(walk, some, pyramid, first, complete)
                # on a GPU, at least so far
                known = np.maximum(known, complete) if on_gpu else walk.now.cpu().numpy()
        return walk.tracks[:, :end]

    def _rows(self, rows: np.ndarray) -> Tensor:
        return sent(torch.from_numpy(rows), self.device)

    def _advance(
        self, walk: Walk, rows: Tensor, pyramid: list[Tensor], first: int, complete: int
    ) -> None:
        """One window for these points; `complete` is where no window can begin any more, and
        points that are there already stay as they are. The pyramid begins with frame `first`."""
        steps = torch.arange(self.config.window, device=self.device)
        held = first + pyramid[0].shape[1]
        block = max(1, self.memory.points(self.device) // self.config.window)
        for some in rows.split(block):
            now, xy = walk.now[some], walk.xy[some]
            goes_on = now < complete
            frame = now[:, None] + steps  # [P, S]
            inside = frame.clamp(max=held - 1) - first
            answer = self._window(pyramid, inside, xy, walk.looks[some])
            # what is behind the end of the clip is cut off
            at = torch.where(goes_on[:, None], frame, walk.behind + steps)
            walk.tracks[some[:, None], at] = answer
            step = next_start(answer[..., 2])
            there = answer.gather(1, step[:, None, None].expand(-1, 1, 3))[:, 0, :2]
            walk.now[some] = torch.where(goes_on, now + step, now)
            walk.xy[some] = torch.where(goes_on[:, None], there, xy)

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

    rows: slice
    """Which they are, of all points in the order of their queries' frames."""
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

    def _pass(self, features: ClipFeatures, queries: Tensor, query_frame: np.ndarray) -> Tensor:
        end = len(features)
        order = np.argsort(query_frame, kind="stable")
        rows = sent(torch.from_numpy(order), self.device)
        frame = torch.arange(end, device=self.device)
        at_query = queries[rows]
        # [N, T, 2], at rest
        xy = torch.where((frame >= at_query[:, :1])[..., None], at_query[:, None, 1:], torch.nan)
        chains = self._chained_windows(query_frame[order], end)
        while chains:
            # the first begins first, so that each frame is encoded once
            chains.sort(key=lambda chain: (chain.start, chain.rows.start))
            together = self._together(chains, end) if for_gpu(xy) else chains[:1]
            self._advance(features, xy, together)
            chains = [chain for chain in chains if chain.start < end - 1]
        found = torch.full_like(queries[:, None, :].expand(-1, end, -1), torch.nan)
        found[rows, :, :2] = xy
        return found

    def _advance(self, features: ClipFeatures, xy: Tensor, chains: list[ChainedWindow]) -> None:
        """Track in the next window of these chains, and write into xy [N, T, 2]."""
        end, first = len(features), chains[0].start
        rows = slice(chains[0].rows.start, chains[-1].rows.stop)
        last = min(chains[-1].start + self.max_frames, end)
        pyramid = features.window(first, last - first)
        frame = torch.arange(end, device=self.device)
        lengths = None
        if len(chains) == 1:
            starts = torch.full_like(frame[:1], first)
            until = starts + (last - first)
        else:
            counts = [chain.rows.stop - chain.rows.start for chain in chains]
            each = np.repeat([chain.start for chain in chains], counts)
            starts = sent(torch.from_numpy(each), self.device)
            until = (starts + self.max_frames).clamp(max=end)
            lengths = (until - starts)[None]
        longest = min(self.max_frames, end - first)
        there = (starts[:, None] + frame[:longest]).clamp(max=end - 1)  # [1 or P, S]
        before = xy[rows]
        start = _taken(before, there)[None]
        inside = there[None] - first
        templates = [chain.templates for chain in chains if chain.templates is not None]
        window = self.model.refine(
            pyramid,
            start,
            torch.cat(templates, 1)
            if templates
            else self.model.first_templates(pyramid, start, inside),
            self.iterations,
            self.beautify,
            inside,
            lengths,
        )
        # behind a window, a point rests where it ended
        at = frame.minimum(until[:, None] - 1) - starts[:, None]  # [1 or P, T]
        found = _taken(window.xy[0], at.clamp(min=0))
        xy[rows] = torch.where((at >= 0)[..., None], found, before)
        for chain in chains:
            last = min(chain.start + self.max_frames, end)
            own = slice(chain.rows.start - rows.start, chain.rows.stop - rows.start)
            chain.templates = None if last == end else window.templates[:, own]
            chain.start = end if last == end else min(last - 1, end - self.max_frames)

    def _together(self, chains: list[ChainedWindow], end: int) -> list[ChainedWindow]:
        """The first of these chains, and those after it that a GPU refines with it: as many as fit
        the memory, in windows that are at least half as long, or of few frames."""

        def length(chain: ChainedWindow) -> int:
            return min(self.max_frames, end - chain.start)

        found, first, most = chains[:1], chains[0], self.memory.points(self.device)
        for chain in chains[1:]:
            if (
                chain.rows.start != found[-1].rows.stop
                or (chain.templates is None) != (first.templates is None)
                or length(first) > max(2 * length(chain), FEW_FRAMES)
                or length(first) * (chain.rows.stop - first.rows.start) > most
                or chain.start >= first.start + self.max_frames
            ):
                break
            found.append(chain)
        return found

    def _chained_windows(self, query_frame: np.ndarray, end: int) -> list[ChainedWindow]:
        """Track in blocks that fit the memory; points whose query is in the last frame stay where
        they are. The frames of the queries are in order."""
        chains = []
        for start in range(end - 1):
            block = max(1, self.memory.points(self.device) // min(self.max_frames, end - start))
            first, stop = np.searchsorted(query_frame, [start, start + 1])
            chains += [
                ChainedWindow(slice(some, min(some + block, stop)), start)
                for some in range(first, stop, block)
            ]
        return chains


def _taken(xy: Tensor, frame: Tensor) -> Tensor:  # [N, T, 2], [1 or N, S] integer -> [N, S, 2]
    """The positions in those frames."""
    return xy.gather(1, frame[..., None].expand(len(xy), -1, 2))
