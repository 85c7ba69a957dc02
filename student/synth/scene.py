"""Scene: procedural video with exact tracks.

A clip is a collage: a background and a few cut-outs, each moved by its own smooth homography, bent
if asked, under a camera that may move too. Tracks are not estimated, they follow from these maps: a
point is a place on a layer. It is visible where it lies inside the frame and more than half of the
light there is its own layer's. So occlusions, exits, and returns are exact too. Light and noise
change colours alone; with motion blur a track is where the point is in the middle of the exposure.

Units      px of the clip, an integer is a pixel centre, in textures as in frames.
Aliasing   a texture is resampled once (INTER_AREA), so that at its layer's smallest scale it is
           shown 1:1 in the middle: only the perspective minifies it a little (measured at motion 1:
           scale 0.92 or more at 99 % of the visible points), and a bend by up to 1.6, and bilinear
           warping suffices. Cut-outs have an edge one texture pixel soft.
Margin     no query lies on an edge: within `MARGIN_PX` (of the texture) of a query, all light is
           its own layer's. Other frames of the track have no margin: while an edge runs over a
           point (about a pixel wide), its flag is the half-way rule above.
Points     are drawn uniformly over the pixels of all frames, so fore- and background have their
           share of what is seen.
Textures   see `student.synth.textures`; movement, `student.synth.motion`; drawing and tracks,
           `student.synth.layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from student.clip import TestClip
from student.synth.layers import Points, SceneLayer, apply, render, sample, track
from student.synth.motion import Bend, Bending, Movement, draw_bending, draw_movement, smooth_curve
from student.synth.textures import (
    PHOTOS,
    Domain,
    Split,
    blob,
    mixture,
    pattern,
    piece_of,
    polygon,
    read_photo,
)
from teachers.errors import ConfigError

MARGIN_PX = 2
INSTANTS = 4
"""Of an exposure with motion blur."""
UNSEEN: dict[str, Any] = {
    "domain": "patterns",
    "bend": 0.5,
    "camera": 0.5,
    "blur": 0.5,
    "light": 0.5,
    "noise": 4.0,
}
"""See `SynthConfig.unseen`."""


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

    bend: float = 0.0
    """How much layers change their shape: 0 is rigid, 1 is as much as can be without folding."""

    camera: float = 0.0
    """How much the camera moves: all layers together, on top of their own motion."""

    blur: float = 0.0
    """Share of the time between frames in which each frame is exposed, in [0, 1]: motion blur.
    Renders every frame four times."""

    light: float = 0.0
    """How much the light changes over time and across the frame: at 1 by about a factor of 1.4
    each."""

    noise: float = 0.0
    """Standard deviation of the noise of each pixel and colour, of 255."""

    domain: Domain = "photos"
    """Pieces of photographs in smooth outlines; the same in other colours and blended; or drawn
    patterns in polygons that move less smoothly: another world, to see what a tracker makes of what
    it was not trained on."""

    points: int = 256
    """Queries of a clip."""

    query_frame: Literal["first", "random"] = "first"
    """A query lies in the first frame in which its point is visible, or in a random one."""

    split: Split = "train"
    """Whose photographs; the same seed also gives different shapes and motion in the other
    split."""

    @classmethod
    def unseen(cls, **changes: Any) -> SynthConfig:
        """A world that the mini teachers were not trained on: other textures, outlines, and
        motions, bent, blurred, and noisy."""
        return cls(**(UNSEEN | changes))

    def __post_init__(self) -> None:
        if self.frames < 1 or self.points < 0:
            raise ConfigError(
                f"frames = {self.frames}, points = {self.points}: a clip has at least 1 frame and "
                "0 points."
            )
        if min(self.height, self.width) < 64:
            raise ConfigError(
                f"height = {self.height}, width = {self.width}: each must be at least 64 px, or "
                "shapes are all edge."
            )
        if not 0 <= self.cutouts[0] <= self.cutouts[1]:
            raise ConfigError(
                f"cutouts = {self.cutouts}: give the least and the most, such as (2, 5)."
            )
        if not 0 <= self.motion <= 2:
            raise ConfigError(
                f"motion = {self.motion}: must be in [0, 2]; above, layers would tilt through the "
                "camera."
            )
        for name in ("bend", "camera", "blur", "light"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be in [0, 1]; 0 is none.")
        if not 0 <= self.noise <= 64:
            raise ConfigError(
                f"noise = {self.noise}: must be in [0, 64]; above, nothing is left to track."
            )
        if self.domain not in get_args(Domain):
            raise ConfigError(
                f"domain = {self.domain!r}: there are {', '.join(map(repr, get_args(Domain)))}."
            )
        if self.query_frame not in ("first", "random"):
            raise ConfigError(
                f"query_frame = {self.query_frame!r}: there are 'first' and 'random'."
            )
        if self.split not in PHOTOS:
            raise ConfigError(f"split = {self.split!r}: there are {', '.join(PHOTOS)}.")


@dataclass(frozen=True)
class SynthClip(TestClip):
    """A procedural clip: `xy` is finite everywhere, also where the point is hidden or outside."""

    layer: np.ndarray
    """int64 [N]: 0 is the background, higher is nearer."""


@dataclass(frozen=True)
class Scene:
    """All that a clip follows from."""

    layers: tuple[SceneLayer, ...]
    """From back to front; the first is the background and always fills the frame."""
    points: Points


def generate(seed: int, config: SynthConfig | None = None) -> SynthClip:
    """A clip with exact tracks; equal arguments give equal bytes on one machine. The seed is 0 or
    greater.

    Raises:
        ConfigError: the extra `[demo]` is not installed.
    """
    config = config or SynthConfig()
    scene = draw_scene(seed, config)
    xy, visible = track(scene.layers, scene.points, config.height, config.width)
    t = scene.points.query_t
    queries = np.column_stack([t, xy[np.arange(len(t)), t]])
    frames = develop(seed, render(scene.layers, config.height, config.width), config)
    return SynthClip(
        f"procedural-{seed}",
        frames,
        queries.astype(np.float32),
        xy.astype(np.float32),
        visible,
        scene.points.layer,
    )


def draw_scene(seed: int, config: SynthConfig) -> Scene:
    """The layers and points of a clip, before anything is rendered."""
    for_layers, for_points, for_more, _ = _generators(seed, config)
    patterns = config.domain == "patterns"
    photos = [np.zeros(0)] if patterns else [read_photo(name) for name in PHOTOS[config.split]]
    order = for_layers.permutation(len(photos))
    cutouts = int(for_layers.integers(config.cutouts[0], config.cutouts[1] + 1))
    draw = _Draw(for_layers, for_more, config)
    layers = (
        draw.background(photos[order[0]]),
        *(draw.cutout(photos[order[i % len(photos)]]) for i in range(1, cutouts + 1)),
    )
    return Scene(layers, _draw_points(for_points, layers, config))


def true_tracks(
    seed: int, config: SynthConfig, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The true tracks of any points of `generate(seed, config)`: xy [N, T, 2] px, and visible
    [N, T], of the points that are seen at `queries` [N, 3], (t, x, y)."""
    t, xy = queries[:, 0].astype(int), queries[:, 1:].astype(float)
    layers = draw_scene(seed, config).layers
    return track(layers, points_at(layers, t, xy), config.height, config.width)


def develop(seed: int, frames: np.ndarray, config: SynthConfig) -> np.ndarray:
    """Light and noise: uint8 [T, H, W, 3] to the same, and the very frames given where the config
    has neither."""
    if not (config.light or config.noise):
        return frames
    *_, rng = _generators(seed, config)
    gain, to_right, down = (smooth_curve(rng, len(frames), 0.35 * config.light) for _ in range(3))
    y, x = np.linspace(-0.5, 0.5, frames.shape[1])[:, None], np.linspace(-0.5, 0.5, frames.shape[2])
    developed = np.empty_like(frames)
    for t, frame in enumerate(frames):
        light = np.exp(gain[t] + to_right[t] * x + down[t] * y)[..., None].astype(np.float32)
        noise = np.float32(config.noise) * rng.standard_normal(frame.shape, dtype=np.float32)
        developed[t] = np.clip(np.rint(frame * light + noise), 0, 255)
    return developed


def _generators(seed: int, config: SynthConfig) -> list[np.random.Generator]:
    """For layers, points, bends and camera, light and noise: what one of them draws changes no
    other."""
    return np.random.default_rng((seed, list(PHOTOS).index(config.split))).spawn(4)


def save(clip: SynthClip, path: Path) -> Path:
    """Write `<path>.npz` with video, points, occluded, queries, layer; returns its name.

    `video` uint8 [T, H, W, 3], `points` float32 [N, T, 2] px (pixel centres), `occluded` bool
    [N, T], `queries` float32 [N, 3] (t, x, y), `layer` int64 [N].
    """
    path = path.with_name(f"{path.name}.npz")
    np.savez_compressed(
        path,
        video=clip.frames,
        points=clip.xy,
        occluded=~clip.visible,
        queries=clip.queries,
        layer=clip.layer,
    )
    return path


# Layers


class _Draw:
    """Draws the layers of one clip, from back to front."""

    def __init__(
        self, rng: np.random.Generator, more: np.random.Generator, config: SynthConfig
    ) -> None:
        self.rng, self.more, self.config = rng, more, config
        self.rough = config.domain == "patterns"
        self.frames = np.arange(config.frames)
        self.middle = np.array([config.width - 1, config.height - 1]) / 2
        self.size = max(config.height, config.width)
        self.camera = draw_movement(
            more,
            config.frames,
            self.middle,
            config.camera,
            0.07 * self.size,
            turn=0.1,
            zoom=0.07,
            tilt=0.0,
        )

    def background(self, photo: np.ndarray) -> SceneLayer:
        """A layer as large as what the frame ever sees of its plane."""
        width, height = self.config.width, self.config.height
        path = self._path(
            self.middle, shift_px=0.07 * self.size, turn=0.08, zoom=0.07, tilt=0.04 / self.size
        )
        density, bending = self._density(path), self._bending(0.4 * self.size)
        reach = 0.0 if bending is None else bending.at(self._instants().ravel()).reach_px
        corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]])
        # [times, 4, 2]
        seen = apply(
            np.linalg.inv(self._to_frame(path, self._instants().ravel()))[:, None], corners
        )
        low, high = seen.min((0, 1)) - reach / density, seen.max((0, 1)) + reach / density
        w, h = np.ceil((high - low) * density).astype(int) + 2
        to_plane = np.array([[1 / density, 0, low[0]], [0, 1 / density, low[1]], [0, 0, 1]])
        return self._layer(
            self._texture(photo, h, w), np.ones((h, w), np.float32), path, to_plane, bending
        )

    def cutout(self, photo: np.ndarray) -> SceneLayer:
        """A layer with a random outline, somewhere in or near the frame."""
        size = min(self.config.height, self.config.width)
        radius = size * self.rng.uniform(0.12, 0.3)
        centre = self.rng.uniform(0.1, 0.9, 2) * (self.config.width, self.config.height)
        path = self._path(centre, shift_px=0.15 * size, turn=0.3, zoom=0.15, tilt=0.05 / radius)
        density = self._density(path)
        alpha = (polygon if self.rough else blob)(self.rng, radius * density)
        h, w = alpha.shape
        to_plane = np.array([[1, 0, -(w - 1) / 2], [0, 1, -(h - 1) / 2], [0, 0, density]]) / density
        return self._layer(
            self._texture(photo, h, w), alpha, path, to_plane, self._bending(1.5 * radius * density)
        )

    def _layer(
        self,
        rgb: np.ndarray,
        alpha: np.ndarray,
        path: Movement,
        to_plane: np.ndarray,
        bending: Bending | None,
    ) -> SceneLayer:
        def at(t: np.ndarray) -> tuple[np.ndarray, Bend | None]:
            return self._to_frame(path, t) @ to_plane, None if bending is None else bending.at(t)

        instants = tuple(at(t) for t in self._instants()) if self.config.blur else ()
        return SceneLayer(rgb, alpha, *at(self.frames), instants)

    def _path(
        self, centre: np.ndarray, shift_px: float, turn: float, zoom: float, tilt: float
    ) -> Movement:
        return draw_movement(
            self.rng,
            self.config.frames,
            centre,
            self.config.motion,
            shift_px,
            turn,
            zoom,
            tilt,
            self.rough,
        )

    def _to_frame(self, path: Movement, t: np.ndarray) -> np.ndarray:
        """[T, 3, 3]: a path as the camera sees it."""
        to_middle = np.array([[1, 0, -self.middle[0]], [0, 1, -self.middle[1]], [0, 0, 1]])
        return self.camera.at(t) @ to_middle @ path.at(t)

    def _density(self, path: Movement) -> float:
        """Px of the frame for one unit of the plane where the scale is smallest."""
        return float(
            np.exp((path.log_scale.at(self.frames) + self.camera.log_scale.at(self.frames)).min())
        )

    def _instants(self) -> np.ndarray:
        """[instants, T]: when, in frames, each frame is exposed."""
        if not self.config.blur:
            return self.frames[None].astype(float)
        return (
            self.frames + self.config.blur * ((np.arange(INSTANTS) + 0.5) / INSTANTS - 0.5)[:, None]
        )

    def _bending(self, size_px: float) -> Bending | None:
        return (
            draw_bending(self.more, self.config.frames, self.config.bend, size_px)
            if self.config.bend
            else None
        )

    def _texture(self, photo: np.ndarray, height: int, width: int) -> np.ndarray:
        if self.config.domain == "patterns":
            return pattern(self.rng, height, width)
        if self.config.domain == "mixtures":
            other = read_photo(str(self.rng.choice(PHOTOS[self.config.split])))
            return mixture(self.rng, photo, other, height, width)
        return piece_of(self.rng, photo, height, width)


# Points


def _draw_points(
    rng: np.random.Generator, layers: Sequence[SceneLayer], config: SynthConfig
) -> Points:
    """Points drawn uniformly over the pixels of all frames, less those whose query would lie on an
    edge."""
    kept = [Points(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0, np.int64))]
    missing = config.points
    while missing > 0:
        draws = 64 + 2 * missing
        t = rng.integers(config.frames, size=draws)
        points = points_at(
            layers, t, rng.uniform(-0.5, (config.width - 0.5, config.height - 0.5), (draws, 2))
        )
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


def points_at(layers: Sequence[SceneLayer], t: np.ndarray, xy: np.ndarray) -> Points:
    """The points that are seen at `xy` [N, 2] in the frames `t` [N]."""
    layer, place = np.zeros(len(t), np.int64), np.zeros_like(xy)
    for number, each in enumerate(layers):
        there = each.place(xy, t)
        seen = sample(each.alpha, there) > 0.5
        layer[seen], place[seen] = number, there[seen]
    return Points(layer, place, t)


def _clear(layers: Sequence[SceneLayer], points: Points, query_xy: np.ndarray) -> np.ndarray:
    """bool [N]: whether all light within `MARGIN_PX` of the query, `query_xy` [N, 2], is the
    point's own layer's."""
    kernel = np.ones((2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1), np.uint8)
    clear = np.ones(len(query_xy), bool)
    for number, layer in enumerate(layers):
        own, behind = points.layer == number, points.layer < number
        on_front = layer.place(query_xy[behind], points.query_t[behind])
        clear[own] &= sample(cv2.erode(layer.alpha, kernel), points.place[own]) > 0.99
        clear[behind] &= sample(cv2.dilate(layer.alpha, kernel), on_front) < 0.01
    return clear
