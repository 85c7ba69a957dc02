"""Drawing: tracks on frames, as anti-aliased markers with fading trails.

A filled marker is a visible point, a hollow one an occluded point, no marker a point that is not tracked (NaN). A trail is the
point's way through the last `trail_frames` frames; it fades with age and breaks where the point is not visible. Small clips are
enlarged, so that lines are fine beside the picture. Points are px of the given frames, pixel centres, drawn at their sub-pixel place.

    draw_tracks(frames, xy, visible, rainbow(queries))

Everything returns new arrays; nothing that is passed in is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from teachers import ConfigError

SHIFT = 4
"""OpenCV draws at 1/2**SHIFT px."""
COMFORTABLE_SIDE_PX = 360
"""`enlargement` multiplies frames whose short side is below this."""
MAX_ENLARGEMENT = 4
OPAQUE = 255
FRESH_TRAIL_ALPHA, OLD_TRAIL_ALPHA = 0.85, 0.05
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
) -> np.ndarray:  # [T, scale * H, scale * W, 3] uint8 RGB
    """Every frame with the tracks drawn on it; arguments as in `draw_frame`."""
    return np.stack(
        [
            draw_frame(
                frames, t, xy, visible, colours,
                trail_frames=trail_frames, point_radius=point_radius, query_frames=query_frames, scale=scale,
            )
            for t in range(len(frames))
        ]
    )  # fmt: skip


def draw_frame(
    frames: np.ndarray,  # [T, H, W, 3] uint8 RGB
    t: int,
    xy: np.ndarray,  # [N, T, 2]    px of the frames, NaN where not tracked
    visible: np.ndarray,  # [N, T]       bool
    colours: np.ndarray,  # [N, 3]       uint8 RGB
    *,
    trail_frames: int = 12,
    point_radius: float = 4.0,
    query_frames: np.ndarray | None = None,  # [N]
    scale: int | None = None,
) -> np.ndarray:  # [scale * H, scale * W, 3] uint8 RGB
    """Frame `t` with the tracks up to it; trails lie below all markers.

    Args:
        frames, t: the video, and which of its frames to draw.
        xy, visible, colours: one row per point.
        trail_frames: frames that a trail goes back; 0 draws none.
        point_radius: of a marker, px of the enlarged picture; lines are half as wide.
        query_frames: frame of each point's query; there its marker has a white ring.
        scale: whole enlargement of the frames; None takes `enlargement`.

    Raises:
        ConfigError: tracks, flags, or colours do not fit the frames.
    """
    _check(frames, xy, visible, colours)
    height, width = frames.shape[1:3]
    scale = scale or enlargement(height, width)
    picture = cv2.resize(frames[t], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else frames[t]
    layer = np.zeros((*picture.shape[:2], 4), np.uint8)
    steps = slice(max(0, t - trail_frames), t + 1)
    at = (xy[:, steps] + 0.5) * scale - 0.5  # pixel centres of the enlarged picture
    _draw_trails(layer, np.where(visible[:, steps, None], at, np.nan), colours, trail_frames, _line_px(point_radius))
    ringed = np.zeros(len(xy), bool) if query_frames is None else np.asarray(query_frames) == t
    _draw_markers(layer, at[:, -1], visible[:, t], colours, ringed, point_radius)
    return _over(picture, layer)


def enlargement(height: int, width: int) -> int:
    """Least whole factor that makes the short side comfortable to look at, at most `MAX_ENLARGEMENT`."""
    return min(MAX_ENLARGEMENT, -(-COMFORTABLE_SIDE_PX // min(height, width)))


def rainbow(
    queries: np.ndarray,  # [N, 3] (t, x, y)
) -> np.ndarray:  # [N, 3] uint8 RGB
    """Colour by place: from the highest query (blue) to the lowest (red), so that neighbours look alike and motion is seen."""
    y = queries[:, 2].astype(np.float64)
    span = float(np.ptp(y)) if len(y) else 0.0
    place = (y - y.min()) / span if span else np.full(len(y), 0.5)
    return _colormap(0.08 + 0.84 * place, cv2.COLORMAP_TURBO)  # the map's ends are too dark to be seen on video


def colour_by(
    values: np.ndarray,  # [N] in [0, 1], such as support
) -> np.ndarray:  # [N, 3] uint8 RGB
    """Colour by a value: viridis, even in lightness and safe for colour-blind eyes, from violet (0) to yellow (1); NaN is grey."""
    values = np.asarray(values, np.float64)
    colours = _colormap(np.nan_to_num(values), cv2.COLORMAP_VIRIDIS)
    colours[np.isnan(values)] = 128
    return colours


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]],  # (title, [T, H, W, 3] uint8 RGB); T and H are the same for all
) -> np.ndarray:  # [T, H + TITLE_HEIGHT_PX, sum of W, 3]
    """Videos beside each other, each below its title.

    Raises:
        ConfigError: there is no panel, or they differ in length or height.
    """
    if not panels or len({frames.shape[:2] for _, frames in panels}) != 1:
        shapes = ", ".join(f"{title!r} {frames.shape}" for title, frames in panels) or "none"
        raise ConfigError(f"panels must have one length and one height; there are: {shapes}. Resize or cut them first.")
    return np.concatenate([_titled(title, frames) for title, frames in panels], axis=2)


def _draw_trails(layer: np.ndarray, at: np.ndarray, colours: np.ndarray, trail_frames: int, line_px: int) -> None:
    """Segments from the oldest to the newest, so that the newer lies on top. `at` [N, steps + 1, 2]."""
    steps = at.shape[1] - 1
    for step in range(steps):
        age = (steps - 1 - step) / trail_frames
        alpha = FRESH_TRAIL_ALPHA + (OLD_TRAIL_ALPHA - FRESH_TRAIL_ALPHA) * age
        both = np.isfinite(at[:, step : step + 2]).all((1, 2))
        for i in np.flatnonzero(both):
            a, b = _fixed(at[i, step]), _fixed(at[i, step + 1])
            cv2.line(layer, a, b, _ink(colours[i], alpha), line_px, cv2.LINE_AA, SHIFT)


def _draw_markers(
    layer: np.ndarray,
    at: np.ndarray,  # [N, 2]
    visible: np.ndarray,  # [N]
    colours: np.ndarray,  # [N, 3]
    ringed: np.ndarray,  # [N]
    point_radius: float,
) -> None:
    """A disc with a dark rim where visible, a ring where not: the ring's inside shows the frame, not the trail."""
    radius = round(point_radius * 2**SHIFT)
    pixel, line_px = 2**SHIFT, _line_px(point_radius)
    nothing, rim, white = (0, 0, 0, 0), _ink(np.zeros(3, np.uint8), 0.55), (OPAQUE,) * 4
    for i in np.flatnonzero(np.isfinite(at).all(-1)):
        centre, ink = _fixed(at[i]), _ink(colours[i], 1.0)
        if visible[i]:
            cv2.circle(layer, centre, radius + pixel, rim, cv2.FILLED, cv2.LINE_AA, SHIFT)
            cv2.circle(layer, centre, radius, ink, cv2.FILLED, cv2.LINE_AA, SHIFT)
        else:
            cv2.circle(layer, centre, radius, nothing, cv2.FILLED, cv2.LINE_AA, SHIFT)
            cv2.circle(layer, centre, radius, ink, line_px, cv2.LINE_AA, SHIFT)
        if ringed[i]:
            cv2.circle(layer, centre, radius + 2 * pixel, white, line_px, cv2.LINE_AA, SHIFT)


def _line_px(point_radius: float) -> int:
    return max(1, round(point_radius / 2))


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """A point as OpenCV's fixed-point numbers; far outside the picture it is clipped, as OpenCV's integers overflow."""
    x, y = np.clip(np.rint(point * 2**SHIFT), -(2**20), 2**20)
    return int(x), int(y)


def _ink(colour: np.ndarray, alpha: float) -> tuple[float, ...]:
    """RGBA with the colour multiplied by alpha: anti-aliasing mixes all four channels, so edges are right without a second mask."""
    return (*(float(c) * alpha for c in colour), OPAQUE * alpha)


def _over(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """The layer on the picture."""
    ink, alpha = layer[..., :3].astype(np.float32), layer[..., 3:].astype(np.float32) / OPAQUE
    return np.rint(ink + picture * (1 - alpha)).clip(0, 255).astype(np.uint8)


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
            f"to draw N tracks on {t} frames, xy must be [N, {t}, 2], visible [N, {t}], colours [N, 3]; "
            f"they are {xy.shape}, {visible.shape}, {colours.shape}."
        )
