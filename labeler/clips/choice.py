"""Choice: which frames of a video become clips.

In   the shots of a video (labeler.clips.shots) and its content hash. Out: `ClipPlan`s: start,
     stride, and number of frames.

Clips never cross a cut and never overlap, and are spread evenly over the video. The stride is drawn
from a hash, so the same file gives the same clips on any machine. Of a long video, only a few
windows are looked at (`analysed_ranges`), so an hour costs no more than two minutes. Which clips
are not worth a label (`reason_to_leave_out`) is known once the frames are there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from teachers import ConfigError

CELL_PX = 8
"""Motion is measured on the means of cells of this size: noise of coding and sensor cancels out,
but a small moving object remains."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which parts of a video become clips."""

    frames: int = 80
    """Frames of a clip; fewer only where a shot is too short at the smallest stride."""

    strides: tuple[int, ...] = (1, 2, 3)
    """Steps through the source frames, one of which is drawn for each clip (CoTracker3: 1-3);
    lowered where the shot is too short."""

    clips_per_video: int = 4
    """The most clips of a video."""

    min_frames: int = 8
    """A shot with fewer frames gives no clip."""

    short_side: int = 384
    """The longest short side of the stored clip, in px; frames are never enlarged."""

    min_side: int = 16
    """A video with a shorter side, in px, is left out."""

    analysed_frames: int = 3000
    """The most frames of a video that are searched for shots; in a longer video, they are in
    `clips_per_video` windows."""

    static_levels: float = 8.0
    """A clip is static if no cell of 8 x 8 px changes by this many of 255 grey levels. A still
    scene with noise of 4 levels changes by up to 6 in H.264 at crf 28; stronger compression may
    pass for motion, but an object of 4 x 4 px that crosses a cell does not pass for noise."""

    dark_levels: float = 20.0
    """A clip is dark if 99 % of its pixels are below this many of 255 grey levels."""

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1:
            raise ConfigError(
                f"strides = {self.strides}: give one or more whole numbers from 1 on; CoTracker3 "
                "draws from 1, 2, 3."
            )
        if not 1 <= self.min_frames <= self.frames:
            raise ConfigError(
                f"min_frames = {self.min_frames}, frames = {self.frames}: must be 1 <= min_frames "
                "<= frames."
            )
        if self.clips_per_video < 1:
            raise ConfigError(f"clips_per_video = {self.clips_per_video}: must be at least 1.")
        if self.short_side < 8 or self.min_side < 1:
            raise ConfigError(
                f"short_side = {self.short_side}, min_side = {self.min_side}: short_side must be "
                "at least 8 (stored sides are multiples of 8), min_side at least 1."
            )
        if self.analysed_frames < self.clips_per_video * self.min_frames:
            raise ConfigError(
                f"analysed_frames = {self.analysed_frames}: {self.clips_per_video} clips of "
                f"{self.min_frames} or more frames need at least "
                f"{self.clips_per_video * self.min_frames}."
            )
        for name, levels in (
            ("static_levels", self.static_levels),
            ("dark_levels", self.dark_levels),
        ):
            if not 0 <= levels <= 255:
                raise ConfigError(
                    f"{name} = {levels}: must be in 0..255 grey levels; 0 keeps every clip."
                )


@dataclass(frozen=True)
class ClipPlan:
    """A clip to be decoded."""

    number: int
    """The number of the clip in its video, from 0, in order of time."""
    start: int
    """Index of its first frame in the video."""
    stride: int
    frames: int

    @property
    def indices(self) -> range:
        """The indices of its frames in the video."""
        return range(self.start, self.start + self.frames * self.stride, self.stride)


def analysed_ranges(length: int, config: ClipConfig) -> list[range]:
    """The frames to search for shots: all of them or, in a long video, windows in the middles of
    `clips_per_video` equal parts."""
    if length <= config.analysed_frames:
        return [range(length)] if length else []
    window = config.analysed_frames // config.clips_per_video
    starts = [
        part.start + (len(part) - window) // 2
        for part in _parts(range(length), config.clips_per_video)
    ]
    return [range(start, start + window) for start in starts]


def plan_clips(shots: list[range], content_hash: str, config: ClipConfig) -> list[ClipPlan]:
    """The clips of a video, in order of time.

    Clips are allotted one at a time, each to the shot that then has the most frames per clip, so
    long shots come first. A shot takes its first clip if it has `min_frames` frames, and another
    one only if each would still have `frames`. A shot is divided evenly, and each clip is in the
    middle of its part.
    """
    plans: list[ClipPlan] = []
    for shot, count in zip(shots, _allotted(shots, config), strict=True):
        for part in _parts(shot, count):
            plans.append(_plan(part, len(plans), content_hash, config))
    return plans


def clip_key(content_hash: str, start: int, stride: int) -> str:
    """Key of the sample: stable, short, and without a dot, such as
    "9f86d081884c7d65-f000123-s2"."""
    return f"{content_hash[:16]}-f{start:06d}-s{stride}"


def reason_to_leave_out(
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB
    config: ClipConfig,
) -> tuple[str, str] | None:
    """("dark" or "static", what was measured); None for a clip that is worth labelling."""
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    brightest = float(np.percentile(grey, 99))
    if brightest < config.dark_levels:
        return (
            "dark",
            f"99 % of the pixels are at or below {brightest:.0f} of 255 grey levels (limit "
            f"{config.dark_levels:g})",
        )
    change = float(np.ptp(_cells(grey), axis=0).max())
    if change < config.static_levels:
        return "static", (
            f"nothing moves in frames 0-{len(frames) - 1}: the mean of {CELL_PX} x {CELL_PX} px "
            f"changes by {change:.1f} of 255 grey levels at most (limit {config.static_levels:g})"
        )
    return None


def _allotted(shots: list[range], config: ClipConfig) -> list[int]:
    """How many clips each shot gives."""
    counts = [0] * len(shots)
    shortest = min(config.strides)

    def frames_each(shot: int) -> int:
        """How many frames each clip of the shot could have if it took one more clip."""
        return _fitting(len(shots[shot]) // (counts[shot] + 1), shortest)

    for _ in range(config.clips_per_video):
        open_shots = [
            shot
            for shot in range(len(shots))
            if frames_each(shot) >= (config.frames if counts[shot] else config.min_frames)
        ]
        if not open_shots:
            break
        counts[max(open_shots, key=frames_each)] += 1  # the first of equal ones
    return counts


def _plan(part: range, number: int, content_hash: str, config: ClipConfig) -> ClipPlan:
    """The clip in the middle of `part`."""
    digest = hashlib.sha256(f"{content_hash}/{number}".encode()).digest()
    strides = sorted(config.strides)
    drawn = int.from_bytes(digest[:8], "big") % len(strides)
    fitting = [
        stride for stride in strides[: drawn + 1] if _fitting(len(part), stride) >= config.frames
    ]
    stride = fitting[-1] if fitting else strides[0]
    frames = min(config.frames, _fitting(len(part), stride))
    span = (frames - 1) * stride + 1
    return ClipPlan(number, part.start + (len(part) - span) // 2, stride, frames)


def _fitting(length: int, stride: int) -> int:
    """Frames that fit in `length` at a stride."""
    return -(-length // stride)


def _parts(whole: range, count: int) -> list[range]:
    """`whole`, divided into `count` parts whose lengths differ by at most 1."""
    edges = [whole.start + len(whole) * i // count for i in range(count + 1)] if count else []
    return [range(start, stop) for start, stop in pairwise(edges)]


def _cells(
    grey: np.ndarray,  # uint8 [T, H, W]
) -> np.ndarray:  # float32 [T, h, w]
    """Means of cells of about 8 x 8 px."""
    _, height, width = grey.shape
    size = max(1, width // CELL_PX), max(1, height // CELL_PX)
    return np.stack(
        [cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA) for frame in grey]
    )
