"""Drawing: tracks on frames, as anti-aliased markers with fading trails.

A filled marker is a visible point, a hollow one an occluded point (paler if it was out of sight as
long as trails go back), no marker a point that is not tracked (NaN). A trail is the path of a point
through the last `trail_frames` frames, as a smooth curve through its positions; it becomes paler
and thinner with age, and breaks where the point is not visible. Small clips are enlarged, so that
lines are thin compared with the picture. Points are px of the given frames, integers at pixel
centres, and are drawn at their sub-pixel positions.

    draw_tracks(frames, xy, visible, rainbow(queries))      a clip that is in memory
    draw_picture(frame, xy, visible, rainbow(queries))      a frame, for a stream that holds no more

Everything returns new arrays; nothing that is passed in is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from teachers import ConfigError, TransientError

SHIFT = 4
"""OpenCV draws in steps of 1/2**SHIFT px."""
COMFORTABLE_SIDE_PX = 360
"""`enlargement` enlarges frames whose short side is below this."""
MAX_ENLARGEMENT = 4
PIECES = 4
"""How many straight pieces make a trail's curve from one frame to the next."""
OPAQUE = 255
FRESH_TRAIL_ALPHA, OLD_TRAIL_ALPHA = 0.85, 0.05
LOST_ALPHA = 0.35
"""Opacity of the ring of a point that has not been seen for as long as trails go back."""
TITLE_HEIGHT_PX, TITLE_BACKGROUND, TITLE_INK = 32, (24, 26, 30), (236, 238, 242)


def draw_tracks(
    frames: np.ndarray,  # [T, H, W, 3] uint8 RGB
    xy: np.ndarray,  # [N, T, 2]    px of the frames, NaN where not tracked
    visible: np.ndarray,  # [N, T]       bool
    colours: np.ndarray,  # [N, 3]       uint8 RGB
    *,
    trail_frames: int = 12,
    point_radius: float = 4.0,
    query_frames: np.ndarray | None = None,  # [N]
    scale: int | None = None,
    only: Iterable[int] | None = None,
) -> np.ndarray:  # [T, scale * H, scale * W, 3] uint8 RGB
    """Every frame with the tracks up to it drawn on it; trails lie below all markers.

    Args:
        frames: the video.
        xy, visible, colours: one row per point.
        trail_frames: frames that a trail goes back; 0 draws none.
        point_radius: radius of a marker, px of the enlarged picture; lines are half as wide.
        query_frames: the frame of each point's query, in which its marker has a white ring.
        scale: factor by which frames are enlarged, a whole number; None takes `enlargement`.
        only: numbers of the frames that are drawn; None is all.

    Raises:
        ConfigError: tracks, flags, or colours do not fit the frames.
    """
    _check(frames, xy, visible, colours)
    pictures = []
    for t in range(len(frames)) if only is None else only:
        steps = slice(max(0, t - trail_frames), t + 1)
        pictures.append(
            draw_picture(
                frames[t],
                xy[:, steps],
                visible[:, steps],
                colours,
                trail_frames=trail_frames,
                point_radius=point_radius,
                ringed=None if query_frames is None else np.asarray(query_frames) == t,
                scale=scale,
            )
        )
    return np.stack(pictures)


def to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 [H, W, 3] RGB."""
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise TransientError(f"OpenCV cannot write a JPEG of {picture.shape} px.")
    return data.tobytes()


def draw_picture(
    frame: np.ndarray,  # [H, W, 3]   uint8 RGB
    # [N, S, 2]   px of the frame, NaN where not tracked: the last S frames, this one last
    xy: np.ndarray,
    visible: np.ndarray,  # [N, S]      bool
    colours: np.ndarray,  # [N, 3]      uint8 RGB
    *,
    trail_frames: int = 12,
    point_radius: float = 4.0,
    ringed: np.ndarray | None = None,  # [N] bool: markers with a white ring
    scale: int | None = None,
) -> np.ndarray:  # [scale * H, scale * W, 3] uint8 RGB
    """A frame with its tracks; S is at most trail_frames + 1. Arguments as in `draw_tracks`."""
    scale = scale or enlargement(*frame.shape[:2])
    picture = (
        cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        if scale > 1
        else frame
    )
    layer = np.zeros((*picture.shape[:2], 4), np.uint8)
    at = (xy + 0.5) * scale - 0.5  # pixel centres of the enlarged picture
    # the others are below their own marker
    beside = ~(np.hypot(*np.moveaxis(at - at[:, -1:], -1, 0)) <= point_radius).all(1)
    trails = np.where(visible[..., None], at, np.nan)[beside]
    _draw_trails(layer, trails, colours[beside], trail_frames, _line_px(point_radius))
    ringed = np.zeros(len(xy), bool) if ringed is None else ringed
    lost = ~visible.any(1) & (visible.shape[1] > trail_frames)
    _draw_markers(
        layer,
        at[:, -1],
        visible[:, -1],
        colours,
        np.where(lost, LOST_ALPHA, 1.0),
        ringed,
        point_radius,
    )
    return _over(picture, layer)


def enlargement(height: int, width: int) -> int:
    """The least whole factor that makes the short side comfortable to look at, at most
    `MAX_ENLARGEMENT`."""
    return min(MAX_ENLARGEMENT, -(-COMFORTABLE_SIDE_PX // min(height, width)))


def rainbow(
    queries: np.ndarray,  # [N, 3] (t, x, y)
) -> np.ndarray:  # [N, 3] uint8 RGB
    """Colour by position: along the diagonal, from the upper left (blue) to the lower right (red),
    so that neighbours look alike and motion is seen."""
    along = queries[:, 1:].astype(np.float64).sum(1)
    span = float(np.ptp(along)) if len(along) else 0.0
    position = (along - along.min()) / span if span else np.full(len(along), 0.5)
    # the ends of the map are too dark to be seen on video
    return _colormap(0.08 + 0.84 * position, cv2.COLORMAP_TURBO)


def colour_by(
    values: np.ndarray,  # [N] in [0, 1], such as support
) -> np.ndarray:  # [N, 3] uint8 RGB
    """Colour by a value: viridis, even in lightness and safe for colour-blind eyes, from violet (0)
    to yellow (1); NaN is grey."""
    values = np.asarray(values, np.float64)
    colours = _colormap(np.nan_to_num(values), cv2.COLORMAP_VIRIDIS)
    colours[np.isnan(values)] = 128
    return colours


def side_by_side(
    # (title, [T, H, W, 3] uint8 RGB); T and H are the same for all
    panels: Sequence[tuple[str, np.ndarray]],
) -> np.ndarray:  # [T, H + TITLE_HEIGHT_PX, sum of W, 3]
    """Videos side by side, each below its title.

    Raises:
        ConfigError: there is no panel, or they differ in length or height.
    """
    if not panels or len({frames.shape[:2] for _, frames in panels}) != 1:
        shapes = ", ".join(f"{title!r} {frames.shape}" for title, frames in panels) or "none"
        raise ConfigError(
            f"panels must have one length and one height; there are: {shapes}. Resize or cut them "
            "first."
        )
    return np.concatenate([_titled(title, frames) for title, frames in panels], axis=2)


def _draw_trails(
    layer: np.ndarray, at: np.ndarray, colours: np.ndarray, trail_frames: int, line_px: int
) -> None:
    """Draw pieces from the oldest to the newest, so that newer ones are on top. `at` is [N, steps +
    1, 2]."""
    steps = at.shape[1] - 1
    if steps < 1:
        return
    curves = _fixed(_curves(at))
    there = np.isfinite(at).all(-1)
    for step in range(steps):
        age = (steps - 1 - step) / trail_frames
        alpha = FRESH_TRAIL_ALPHA + (OLD_TRAIL_ALPHA - FRESH_TRAIL_ALPHA) * age
        thickness = math.ceil(line_px * (1 - age))
        drawn = there[:, step] & there[:, step + 1]
        for curve, ink in zip(curves[drawn, step], _inks(colours[drawn], alpha), strict=True):
            cv2.polylines(layer, [curve], False, ink, thickness, cv2.LINE_AA, SHIFT)


def _curves(
    at: np.ndarray,  # [N, S, 2], NaN where there is no position
) -> np.ndarray:  # [N, S - 1, PIECES + 1, 2]
    """A smooth path from each position to the next: Catmull-Rom splines, which go through all
    positions.

    At the ends of a trail, and beside a gap, the curve continues as if the point had kept its
    direction.
    """
    here, there = at[:, :-1], at[:, 1:]
    mirrored = 2 * here - there, 2 * there - here
    before = np.concatenate([mirrored[0][:, :1], at[:, :-2]], 1)
    after = np.concatenate([at[:, 2:], mirrored[1][:, -1:]], 1)
    before, after = (
        np.where(np.isfinite(before), before, mirrored[0]),
        np.where(np.isfinite(after), after, mirrored[1]),
    )
    u = np.linspace(0, 1, PIECES + 1)[:, None]
    a, b, c, d = (position[:, :, None] for position in (before, here, there, after))
    return b + u / 2 * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


def _draw_markers(
    layer: np.ndarray,
    at: np.ndarray,  # [N, 2]
    visible: np.ndarray,  # [N]
    colours: np.ndarray,  # [N, 3]
    alphas: np.ndarray,  # [N]
    ringed: np.ndarray,  # [N]
    point_radius: float,
) -> None:
    """Draw a disc with a dark rim where a point is visible, and a thin ring where it is not: inside
    the ring is the frame, not the trail."""
    radius = round(point_radius * 2**SHIFT)
    pixel, line_px = 2**SHIFT, _line_px(point_radius)
    thin_px = max(1, int(point_radius // 2))
    nothing, rim, white = (0, 0, 0, 0), (0, 0, 0, 0.55 * OPAQUE), (OPAQUE,) * 4
    centres, inks = _fixed(at).tolist(), _inks(colours, alphas[:, None])
    for i in np.flatnonzero(np.isfinite(at).all(-1)):
        centre, ink = centres[i], inks[i]
        if visible[i]:
            cv2.circle(layer, centre, radius + pixel, rim, cv2.FILLED, cv2.LINE_AA, SHIFT)
            cv2.circle(layer, centre, radius, ink, cv2.FILLED, cv2.LINE_AA, SHIFT)
        else:
            cv2.circle(layer, centre, radius, nothing, cv2.FILLED, cv2.LINE_AA, SHIFT)
            cv2.circle(layer, centre, radius, ink, thin_px, cv2.LINE_AA, SHIFT)
        if ringed[i]:
            cv2.circle(layer, centre, radius + 2 * pixel, white, line_px, cv2.LINE_AA, SHIFT)


def _line_px(point_radius: float) -> int:
    return max(1, round(point_radius / 2))


def _fixed(points: np.ndarray) -> np.ndarray:  # [..., 2] -> int32 [..., 2]
    """Points as OpenCV's fixed-point numbers; far outside the picture they are clipped, because
    OpenCV's integers overflow."""
    return np.clip(np.rint(np.nan_to_num(points) * 2**SHIFT), -(2**20), 2**20).astype(np.int32)


def _inks(colours: np.ndarray, alpha: float | np.ndarray) -> list[list[float]]:
    """RGBA with the colours multiplied by alpha: anti-aliasing mixes all four channels, so edges
    are right without a second mask."""
    opaque = np.pad(colours.astype(float), ((0, 0), (0, 1)), constant_values=OPAQUE)
    return (opaque * alpha).tolist()


def _over(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """The picture with the layer on top."""
    through = cv2.cvtColor(OPAQUE - layer[..., 3], cv2.COLOR_GRAY2RGB)
    return cv2.add(cv2.multiply(picture, through, scale=1 / OPAQUE), layer[..., :3])


def _colormap(values: np.ndarray, which: int) -> np.ndarray:
    """uint8 [N, 3] RGB of values in [0, 1]."""
    levels = np.rint(values.clip(0, 1) * 255).astype(np.uint8).reshape(-1, 1)
    if not len(levels):
        return np.zeros((0, 3), np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, which)[:, 0, ::-1])


def _titled(title: str, frames: np.ndarray) -> np.ndarray:
    strip = np.full((TITLE_HEIGHT_PX, frames.shape[2], 3), TITLE_BACKGROUND, np.uint8)
    cv2.putText(strip, title, (12, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.5, TITLE_INK, 1, cv2.LINE_AA)
    return np.concatenate([np.broadcast_to(strip, (len(frames), *strip.shape)), frames], axis=1)


def _check(frames: np.ndarray, xy: np.ndarray, visible: np.ndarray, colours: np.ndarray) -> None:
    n, t = len(xy), len(frames)
    if xy.shape != (n, t, 2) or visible.shape != (n, t) or colours.shape != (n, 3):
        raise ConfigError(
            f"to draw N tracks on {t} frames, xy must be [N, {t}, 2], visible [N, {t}], colours "
            f"[N, 3]; they are {xy.shape}, {visible.shape}, {colours.shape}."
        )
