"""Synth: procedural video with exact tracks.

A clip is a collage: a background and a few cut-outs of photographs, each moved by its own smooth homography. Tracks are not
estimated, they follow from the homographies: a point is a place on a layer, `xy[t] = to_frame[t] @ point`. It is visible where it
lies inside the frame and more than half of the light there is its own layer's. So occlusions, exits, and returns are exact too.

Units      px of the clip, an integer is a pixel centre, in textures as in frames.
Aliasing   a texture is resampled once (INTER_AREA), so that at its layer's smallest scale it is shown 1:1 in the middle: only the
           perspective minifies it a little (measured at motion 1: scale 0.92 or more at 99 % of the visible points), and bilinear
           warping suffices. Cut-outs have an edge one texture pixel soft.
Margin     no query lies on an edge: within `MARGIN_PX` of a query, all light is its own layer's. Other frames of the track have
           no margin: while an edge runs over a point (about a pixel wide), its flag is the half-way rule above.
Points     are drawn uniformly over the pixels of all frames, so fore- and background have their share of what is seen.
Photos     lie inside the wheels of scikit-image and scikit-learn (extra `[demo]`); nothing is downloaded. No photo, nor another
           view of the same scene, is in both splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from teachers.errors import ConfigError

Split = Literal["train", "test"]

_SKIMAGE, _SKLEARN = "skimage/data", "sklearn/datasets/images"
PHOTOS: dict[Split, tuple[str, ...]] = {
    "train": (
        f"{_SKIMAGE}/astronaut.png",
        f"{_SKIMAGE}/brick.png",
        f"{_SKIMAGE}/camera.png",
        f"{_SKIMAGE}/coffee.png",
        f"{_SKIMAGE}/grass.png",
        f"{_SKIMAGE}/motorcycle_left.png",
        f"{_SKLEARN}/china.jpg",
    ),
    "test": (
        f"{_SKIMAGE}/chelsea.png",
        f"{_SKIMAGE}/coins.png",
        f"{_SKIMAGE}/gravel.png",
        f"{_SKIMAGE}/ihc.png",
        f"{_SKLEARN}/flower.jpg",
    ),
}
"""Files below the installed packages, by split."""

MARGIN_PX = 2


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What a procedural clip looks like."""

    frames: int = 24
    """Frames of a clip."""

    height: int = 256
    """Px."""

    width: int = 256
    """Px."""

    cutouts: tuple[int, int] = (2, 5)
    """Least and most cut-outs in front of the background."""

    motion: float = 1.0
    """How much everything moves: 0 stands still, 1 is lively, 2 is wild."""

    points: int = 256
    """Queries of a clip."""

    query_frame: Literal["first", "random"] = "first"
    """A query lies in the first frame in which its point is visible, or in a random one."""

    split: Split = "train"
    """Whose photographs; the same seed also gives different shapes and motion in the other split."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.points < 0:
            raise ConfigError(f"frames = {self.frames}, points = {self.points}: a clip has at least 1 frame and 0 points.")
        if min(self.height, self.width) < 64:
            raise ConfigError(f"height = {self.height}, width = {self.width}: each must be at least 64 px, or shapes are all edge.")
        if not 0 <= self.cutouts[0] <= self.cutouts[1]:
            raise ConfigError(f"cutouts = {self.cutouts}: give the least and the most, such as (2, 5).")
        if not 0 <= self.motion <= 2:
            raise ConfigError(f"motion = {self.motion}: must be in [0, 2]; above, layers would tilt through the camera.")
        if self.query_frame not in ("first", "random"):
            raise ConfigError(f"query_frame = {self.query_frame!r}: there are 'first' and 'random'.")
        if self.split not in PHOTOS:
            raise ConfigError(f"split = {self.split!r}: there are {', '.join(PHOTOS)}.")


@dataclass(frozen=True)
class SynthClip:
    """A clip and the truth about N of its points."""

    frames: np.ndarray  # [T, H, W, 3] uint8 RGB
    queries: np.ndarray  # [N, 3]       float32 (t, x, y)
    xy: np.ndarray  # [N, T, 2]    float32, finite everywhere: also where the point is hidden or outside
    visible: np.ndarray  # [N, T]       bool
    layer: np.ndarray  # [N]          int64, 0 is the background, higher is nearer


@dataclass(frozen=True)
class Layer:
    """A flat picture that moves."""

    rgb: np.ndarray  # [h, w, 3] float32 in [0, 255]
    alpha: np.ndarray  # [h, w]    float32 in [0, 1], 0 is transparent
    to_frame: np.ndarray  # [T, 3, 3] float64, homography from px of the texture to px of the frame


@dataclass(frozen=True)
class Points:
    """N places on the layers' surfaces, each with the frame of its query."""

    layer: np.ndarray  # [N]    int64
    place: np.ndarray  # [N, 2] float64 (x, y) px of that layer's texture
    query_t: np.ndarray  # [N]    int64


@dataclass(frozen=True)
class Scene:
    """All that a clip follows from."""

    layers: tuple[Layer, ...]
    """From back to front; the first is the background and always fills the frame."""
    points: Points


def generate(seed: int, config: SynthConfig | None = None) -> SynthClip:
    """A clip with exact tracks; equal arguments give equal bytes on one machine. The seed is 0 or greater.

    Raises:
        ConfigError: the extra `[demo]` is not installed.
    """
    config = config or SynthConfig()
    scene = draw_scene(seed, config)
    xy, visible = track(scene.layers, scene.points, config.height, config.width)
    t = scene.points.query_t
    queries = np.column_stack([t, xy[np.arange(len(t)), t]])
    frames = render(scene.layers, config.height, config.width)
    return SynthClip(frames, queries.astype(np.float32), xy.astype(np.float32), visible, scene.points.layer)


def draw_scene(seed: int, config: SynthConfig) -> Scene:
    """The layers and points of a clip, before anything is rendered."""
    for_layers, for_points = np.random.default_rng((seed, list(PHOTOS).index(config.split))).spawn(2)
    photos = [_photo(name) for name in PHOTOS[config.split]]
    order = for_layers.permutation(len(photos))
    cutouts = int(for_layers.integers(config.cutouts[0], config.cutouts[1] + 1))
    layers = (
        _background(for_layers, photos[order[0]], config),
        *(_cutout(for_layers, photos[order[i % len(photos)]], config) for i in range(1, cutouts + 1)),
    )
    return Scene(layers, _draw_points(for_points, layers, config))


def render(layers: Sequence[Layer], height: int, width: int) -> np.ndarray:
    """uint8 [T, H, W, 3]: the layers laid over each other, the last one in front."""
    frames = np.zeros((len(layers[0].to_frame), height, width, 3), np.uint8)
    premultiplied = [np.dstack([layer.rgb * layer.alpha[..., None], layer.alpha]) for layer in layers]
    for t, frame in enumerate(frames):
        canvas = np.zeros((height, width, 3), np.float32)
        for layer, texture in zip(layers, premultiplied, strict=True):
            x0, y0, x1, y1 = _box(layer, t, height, width)
            if x0 >= x1 or y0 >= y1:
                continue
            to_box = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ layer.to_frame[t]
            drawn = cv2.warpPerspective(texture, to_box, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
            part = canvas[y0:y1, x0:x1]
            part *= 1 - drawn[..., 3:]
            part += drawn[..., :3]
        frame[:] = np.clip(np.rint(canvas), 0, 255)
    return frames


def track(
    layers: Sequence[Layer], points: Points, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # [N, T, 2] float64 px of the clip, [N, T] bool
    """Where the points are in every frame, and whether they are seen there."""
    to_frame = np.stack([layer.to_frame for layer in layers])  # [L, T, 3, 3]
    xy = _apply(to_frame[points.layer], points.place[:, None])
    inside = ((xy > -0.5) & (xy < (width - 0.5, height - 0.5))).all(-1)
    light = np.ones(inside.shape)
    for number, layer in enumerate(layers):
        behind = points.layer < number
        light[behind] *= 1 - _sample(layer.alpha, _apply(np.linalg.inv(layer.to_frame), xy[behind]))
    return xy, inside & (light > 0.5)


def save(clip: SynthClip, path: Path) -> Path:
    """Write `<path>.npz` with video, points, occluded, queries, layer; returns its name.

    `video` uint8 [T, H, W, 3], `points` float32 [N, T, 2] px (pixel centres), `occluded` bool [N, T], `queries` float32 [N, 3]
    (t, x, y), `layer` int64 [N].
    """
    path = path.with_name(f"{path.name}.npz")
    np.savez_compressed(
        path, video=clip.frames, points=clip.xy, occluded=~clip.visible, queries=clip.queries, layer=clip.layer
    )  # fmt: skip
    return path


# Layers


@cache
def _photo(name: str) -> np.ndarray:
    """uint8 [h, w, 3] RGB of a file inside an installed package; the package itself is not imported."""
    package, _, inside = name.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"procedural video needs the photographs inside scikit-image and scikit-learn, and {package!r} is not installed: "
            "pip install 'tapdistill[demo]'."
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise ConfigError(f"{path}: the photograph is missing or broken: reinstall with pip install 'tapdistill[demo]'.")
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def _background(rng: np.random.Generator, photo: np.ndarray, config: SynthConfig) -> Layer:
    """A layer as large as what the frame ever sees of its plane."""
    size = max(config.height, config.width)
    centre = np.array([config.width - 1, config.height - 1]) / 2
    plane, density = _path(rng, config, centre, shift_px=0.07 * size, turn=0.08, zoom=0.07, tilt=0.04 / size)
    corners = np.array([[-1, -1], [config.width, -1], [-1, config.height], [config.width, config.height]])
    seen = _apply(np.linalg.inv(plane)[:, None], corners)  # [T, 4, 2]
    low, high = seen.min((0, 1)), seen.max((0, 1))
    width, height = np.ceil((high - low) * density).astype(int) + 2
    to_plane = np.array([[1 / density, 0, low[0]], [0, 1 / density, low[1]], [0, 0, 1]])
    return Layer(_texture(rng, photo, height, width), np.ones((height, width), np.float32), plane @ to_plane)


def _cutout(rng: np.random.Generator, photo: np.ndarray, config: SynthConfig) -> Layer:
    """A layer with a smooth random outline, somewhere in or near the frame."""
    size = min(config.height, config.width)
    radius = size * rng.uniform(0.12, 0.3)
    centre = rng.uniform(0.1, 0.9, 2) * (config.width, config.height)
    plane, density = _path(rng, config, centre, shift_px=0.15 * size, turn=0.3, zoom=0.15, tilt=0.05 / radius)
    alpha = _blob(rng, radius * density)
    height, width = alpha.shape
    to_plane = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, density]]) / density
    return Layer(_texture(rng, photo, height, width), alpha, plane @ to_plane)


def _path(
    rng: np.random.Generator, config: SynthConfig, centre: np.ndarray, shift_px: float, turn: float, zoom: float, tilt: float
) -> tuple[np.ndarray, float]:  # [T, 3, 3] float64, px of the frame for one unit of the plane where the scale is smallest
    """A smooth homography from a plane with its origin in the middle to px of the frame.

    `shift_px`, `turn` (radians), `zoom` (of the scale's logarithm), and `tilt` (of 1 / px, the perspective) are the root mean
    squares over time at motion 1.
    """
    x, y, angle, log_scale, tilt_x, tilt_y = (
        _curve(rng, config.frames, config.motion * amount) for amount in (shift_px, shift_px, turn, zoom, tilt, tilt)
    )
    cos, sin = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    zero, one = np.zeros(config.frames), np.ones(config.frames)
    similarity = np.array([[cos, -sin, zero], [sin, cos, zero], [tilt_x, tilt_y, one]])
    shift = np.array([[one, zero, centre[0] + x], [zero, one, centre[1] + y], [zero, zero, one]])
    return shift.transpose(2, 0, 1) @ similarity.transpose(2, 0, 1), float(np.exp(log_scale.min()))


def _curve(rng: np.random.Generator, frames: int, amount: float) -> np.ndarray:
    """Smooth random values [T] with root mean square `amount`: a few slow cosines, one more for every 12 frames."""
    terms = np.arange(1, 3 + frames // 12)
    weights = rng.normal(size=len(terms)) / terms
    cosines = np.cos(np.pi * np.outer(terms, np.arange(frames) + 0.5) / frames)
    return amount * np.sqrt(2) * (weights / np.linalg.norm(weights)) @ cosines


def _blob(rng: np.random.Generator, radius_px: float) -> np.ndarray:
    """float32 [h, w] alpha of a smooth random outline of that mean radius, with an edge one pixel soft and an empty border."""
    waves = np.arange(2, 7)
    strength, phase = rng.normal(size=len(waves)) * 0.35 / waves, rng.uniform(0, 2 * np.pi, len(waves))
    stretch = rng.uniform(0.7, 1.4)
    reach = int(np.ceil(radius_px * 1.9 * max(stretch, 1 / stretch))) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    x, y = x / stretch, y * stretch
    waviness = strength @ np.cos(waves[:, None, None] * np.arctan2(y, x) + phase[:, None, None]).reshape(len(waves), -1)
    outline = radius_px * np.clip(1 + waviness, 0.3, 1.8).reshape(x.shape)
    alpha = np.clip(outline - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return np.pad(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], MARGIN_PX + 1)


def _texture(rng: np.random.Generator, photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3]: the random piece of the photograph, of four, that is least flat, tinted, at times mirrored."""
    fit = min(photo.shape[0] / height, photo.shape[1] / width)
    pieces = []
    for _ in range(4):
        zoom = min(fit, rng.uniform(1, 2))
        h, w = max(1, int(height * zoom)), max(1, int(width * zoom))
        y, x = rng.integers(photo.shape[0] - h + 1), rng.integers(photo.shape[1] - w + 1)
        interpolation = cv2.INTER_AREA if zoom >= 1 else cv2.INTER_CUBIC
        pieces.append(cv2.resize(photo[y : y + h, x : x + w], (width, height), interpolation=interpolation))
    piece = max(pieces, key=lambda each: float(np.median(np.abs(cv2.Laplacian(each, cv2.CV_32F)))))
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    return piece * rng.uniform(0.6, 1.0, 3).astype(np.float32)


# Points


def _draw_points(rng: np.random.Generator, layers: Sequence[Layer], config: SynthConfig) -> Points:
    """Points drawn uniformly over the pixels of all frames, less those whose query would lie on an edge."""
    kept = [Points(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0, np.int64))]
    missing = config.points
    while missing > 0:
        draws = 64 + 2 * missing
        t = rng.integers(config.frames, size=draws)
        points = _frontmost(layers, t, rng.uniform(-0.5, (config.width - 0.5, config.height - 0.5), (draws, 2)))
        xy, visible = track(layers, points, config.height, config.width)
        if config.query_frame == "first":
            points = replace(points, query_t=visible.argmax(1))
        clear = visible.any(1) & _clear(layers, points, xy[np.arange(draws), points.query_t])
        chosen = np.flatnonzero(clear)[:missing]
        kept.append(Points(points.layer[chosen], points.place[chosen], points.query_t[chosen]))
        missing -= len(chosen)
    return Points(
        np.concatenate([each.layer for each in kept]),
        np.concatenate([each.place for each in kept]),
        np.concatenate([each.query_t for each in kept]),
    )


def _frontmost(layers: Sequence[Layer], t: np.ndarray, xy: np.ndarray) -> Points:
    """The points that are seen at `xy` [N, 2] in the frames `t` [N]."""
    layer, place = np.zeros(len(t), np.int64), np.zeros_like(xy)
    for number, each in enumerate(layers):
        there = _apply(np.linalg.inv(each.to_frame)[t], xy)
        seen = _sample(each.alpha, there) > 0.5
        layer[seen], place[seen] = number, there[seen]
    return Points(layer, place, t)


def _clear(layers: Sequence[Layer], points: Points, query_xy: np.ndarray) -> np.ndarray:
    """bool [N]: whether all light within `MARGIN_PX` of the query, `query_xy` [N, 2], is the point's own layer's."""
    kernel = np.ones((2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1), np.uint8)
    clear = np.ones(len(query_xy), bool)
    for number, layer in enumerate(layers):
        own, behind = points.layer == number, points.layer < number
        on_front = _apply(np.linalg.inv(layer.to_frame)[points.query_t[behind]], query_xy[behind])
        clear[own] &= _sample(cv2.erode(layer.alpha, kernel), points.place[own]) > 0.99
        clear[behind] &= _sample(cv2.dilate(layer.alpha, kernel), on_front) < 0.01
    return clear


# Geometry


def _apply(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points [..., 2] through homographies [..., 3, 3]; leading axes broadcast."""
    moved = (homography[..., :2] @ xy[..., None])[..., 0] + homography[..., 2]
    return moved[..., :2] / moved[..., 2:]


def _sample(alpha: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """`alpha` [h, w] at the places `xy` [..., 2], bilinear, 0 outside."""
    height, width = alpha.shape
    padded = np.pad(alpha, 1)
    xy = np.clip(xy, -1, (width, height)) + 1
    x, y = np.moveaxis(np.minimum(xy.astype(int), (width, height)), -1, 0)
    right, down = np.moveaxis(xy, -1, 0) - (x, y)
    top = padded[y, x] * (1 - right) + padded[y, x + 1] * right
    bottom = padded[y + 1, x] * (1 - right) + padded[y + 1, x + 1] * right
    return top * (1 - down) + bottom * down


def _box(layer: Layer, t: int, height: int, width: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1: the part of the frame that holds all of the layer in frame t; empty (x0 >= x1 or y0 >= y1) if it is outside."""
    h, w = layer.alpha.shape
    corners = _apply(layer.to_frame[t], np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]]))
    x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(0)) + 1, (width, height)).astype(int)
    return int(x0), int(y0), int(x1), int(y1)
