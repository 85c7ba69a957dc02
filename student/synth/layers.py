"""Layers of a procedural clip: what is drawn of them, and where their points are.

Both follow from the same maps. A layer's texture is seen through a homography and, if it has one, a
bend; a point is a place on it, so its track is exact, and it is visible where it lies inside the
frame and more than half of the light there is its own layer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from student.synth.motion import Bend


@dataclass(frozen=True)
class SceneLayer:
    """A flat picture that moves, and perhaps bends."""

    rgb: np.ndarray  # [h, w, 3] float32 in [0, 255]
    alpha: np.ndarray  # [h, w]    float32 in [0, 1], 0 is transparent
    # [T, 3, 3] float64, homography from px of the (unbent) texture to px of the frame
    to_frame: np.ndarray
    bend: Bend | None = None
    instants: tuple[tuple[np.ndarray, Bend | None], ...] = ()
    """`to_frame` and `bend` at the instants that each frame is exposed at, the same number for all
    layers; none: a sharp picture."""

    def frame_xy(
        self, place: np.ndarray, t: np.ndarray
    ) -> np.ndarray:  # [..., 2] px of the texture, frames [...] -> [..., 2]
        """Where places are seen; leading axes broadcast."""
        return apply(self.to_frame[t], place if self.bend is None else self.bend.to_plane(place, t))

    def place(
        self, xy: np.ndarray, t: np.ndarray
    ) -> np.ndarray:  # [..., 2] px of the frame, frames [...] -> [..., 2]
        """What is seen where; leading axes broadcast."""
        plane = apply(np.linalg.inv(self.to_frame)[t], xy)
        return plane if self.bend is None else self.bend.to_texture(plane, t)


@dataclass(frozen=True)
class Points:
    """N places on the layers' surfaces, each with the frame of its query."""

    layer: np.ndarray  # [N]    int64
    place: np.ndarray  # [N, 2] float64 (x, y) px of that layer's texture
    query_t: np.ndarray  # [N]    int64


def render(layers: Sequence[SceneLayer], height: int, width: int) -> np.ndarray:
    """uint8 [T, H, W, 3]: the layers laid over each other, the last one in front."""
    frames = np.zeros((len(layers[0].to_frame), height, width, 3), np.uint8)
    # premultiplied
    textures = [np.dstack([layer.rgb * layer.alpha[..., None], layer.alpha]) for layer in layers]
    exposures = list(
        zip(*(layer.instants or ((layer.to_frame, layer.bend),) for layer in layers), strict=True)
    )
    for t, frame in enumerate(frames):
        light = np.zeros((height, width, 3), np.float32)
        for instant in exposures:
            canvas = np.zeros((height, width, 3), np.float32)
            for texture, (to_frame, bend) in zip(textures, instant, strict=True):
                _lay(canvas, texture, to_frame[t], bend, t)
            light += canvas
        frame[:] = np.clip(np.rint(light / len(exposures)), 0, 255)
    return frames


def track(
    layers: Sequence[SceneLayer], points: Points, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # [N, T, 2] float64 px of the clip, [N, T] bool
    """Where the points are in every frame, and whether they are seen there."""
    frames = np.arange(len(layers[0].to_frame))
    xy = np.zeros((len(points.layer), len(frames), 2))
    for number, layer in enumerate(layers):
        own = points.layer == number
        xy[own] = layer.frame_xy(points.place[own][:, None], frames)
    inside = ((xy > -0.5) & (xy < (width - 0.5, height - 0.5))).all(-1)
    light = np.ones(inside.shape)
    for number, layer in enumerate(layers):
        behind = points.layer < number
        light[behind] *= 1 - sample(layer.alpha, layer.place(xy[behind], frames))
    return xy, inside & (light > 0.5)


def apply(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points [..., 2] through homographies [..., 3, 3]; leading axes broadcast."""
    moved = (homography[..., :2] @ xy[..., None])[..., 0] + homography[..., 2]
    return moved[..., :2] / moved[..., 2:]


def sample(alpha: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """`alpha` [h, w] at the places `xy` [..., 2], bilinear, 0 outside."""
    height, width = alpha.shape
    padded = np.pad(alpha, 1)
    xy = np.clip(xy, -1, (width, height)) + 1
    x, y = np.moveaxis(np.minimum(xy.astype(int), (width, height)), -1, 0)
    right, down = np.moveaxis(xy, -1, 0) - (x, y)
    top = padded[y, x] * (1 - right) + padded[y, x + 1] * right
    bottom = padded[y + 1, x] * (1 - right) + padded[y + 1, x + 1] * right
    return top * (1 - down) + bottom * down


def _lay(
    canvas: np.ndarray, texture: np.ndarray, to_frame: np.ndarray, bend: Bend | None, t: int
) -> None:
    """Draw a premultiplied texture [h, w, 4] over the canvas [H, W, 3], in place."""
    x0, y0, x1, y1 = _box(texture, to_frame, 0 if bend is None else bend.reach_px, canvas)
    if x0 >= x1 or y0 >= y1:
        return
    if bend is None:
        to_box = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ to_frame
        drawn = cv2.warpPerspective(texture, to_box, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    else:
        pixels = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).astype(np.float32)
        plane = cv2.perspectiveTransform(pixels, np.linalg.inv(to_frame))
        x, y = np.moveaxis(bend.to_texture(plane, t), -1, 0)
        drawn = cv2.remap(texture, x, y, cv2.INTER_LINEAR)
    part = canvas[y0:y1, x0:x1]
    part *= 1 - drawn[..., 3:]
    part += drawn[..., :3]


def _box(
    texture: np.ndarray, to_frame: np.ndarray, margin: float, canvas: np.ndarray
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1: the part of the canvas that holds the texture with a margin; empty (x0 >= x1
    or y0 >= y1) if it is outside."""
    h, w = texture.shape[:2]
    left, top, right, bottom = -margin, -margin, w - 1 + margin, h - 1 + margin
    corners = apply(
        to_frame, np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
    )
    x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(0)) + 1, canvas.shape[1::-1]).astype(int)
    return int(x0), int(y0), int(x1), int(y1)
