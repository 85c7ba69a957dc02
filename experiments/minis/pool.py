"""Pool: procedural clips rendered once, and seen anew each time by a moving camera.

Rendering costs more than a small network's training step, so clips lie in a folder as plain npz
files, and each use draws another window in time, another camera (where it looks, how near, how
turned, how it moves on), other colours, and other points. Tracks go through the same affine maps as
the pixels, so they stay exact. Another process may add clips while a trainer reads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from experiments.files import write_npz
from student.data.batch import Batch, TrainClip, collate
from student.data.exact import exact_clip
from student.synth.motion import smooth_curve
from student.synth.scene import SynthConfig, generate
from teachers.errors import ConfigError

STORED = SynthConfig(
    frames=24, height=256, width=256, points=1024, query_frame="random", split="pool"
)


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What is drawn from the pool."""

    batch: int
    frames: int
    size: int
    """Side in px of the square frames."""
    points: int
    stride: int = 2
    """Largest step between frames."""
    zoom: tuple[float, float] = (0.75, 1.5)
    """Least and most; never so little that the view would be larger than the clip."""
    turn: float = np.pi
    """Largest angle in radians."""
    shake: float = 1.0
    """How much the camera moves on its own, at most: 1 is about a tenth of the view."""


def render_pool(folder: Path, clips: int) -> None:
    """Write the clips of so many seeds, from 0; those that are there already stay."""
    for seed in range(clips):
        path = folder / f"clip-{seed:06d}.npz"
        if not path.exists():
            clip = generate(seed, draw_world(seed))
            write_npz(path, video=clip.frames, points=clip.xy, visible=clip.visible)


def draw_world(seed: int) -> SynthConfig:
    """Every third clip is of the plain world, the others of one that is bent, blurred, noisy, and
    so on, each by chance; never of drawn patterns and polygons, which stay unseen."""
    rng = np.random.default_rng((seed, 1))
    motion = float(rng.uniform(0.2, 1.4))
    if seed % 3 == 0:
        return replace(STORED, motion=motion)
    chance, amount = rng.random(5), rng.random(5)
    bend, camera, light, blur, noise = (
        float(a) if c < 0.5 else 0.0 for c, a in zip(chance, amount, strict=True)
    )
    return replace(
        STORED,
        domain="mixtures",
        motion=motion,
        cutouts=(1, 8),
        bend=0.8 * bend,
        camera=camera,
        light=light,
        blur=blur if blur > 0.4 else 0.0,
        noise=6 * noise,
    )


def draw_view(folder: Path, rng: np.random.Generator, config: ViewConfig) -> Batch:
    """A batch of clips, cropped, turned, and coloured at random.

    Raises:
        ConfigError: the folder has no clips.
    """
    files = sorted(folder.glob("clip-*.npz"))
    if not files:
        raise ConfigError(f"{folder}: holds no rendered clips; render some first.")
    clips = [_view(files[rng.integers(len(files))], rng, config) for _ in range(config.batch)]
    return collate(clips, 0, Counter())


def _view(path: Path, rng: np.random.Generator, config: ViewConfig) -> TrainClip:
    with np.load(path) as npz:
        video, xy, visible = npz["video"], npz["points"], npz["visible"]
    shown = _frames(rng, len(video), config)
    video, xy, visible = video[shown], xy[:, shown], visible[:, shown]
    camera = _camera(rng, video.shape[1:3], config)
    edge = rng.integers(256, size=3).tolist()
    size = config.size
    frames = np.stack(
        [
            cv2.warpAffine(
                frame,
                to_view,
                (size, size),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=edge,
            )
            for frame, to_view in zip(video, camera, strict=True)
        ]
    )
    xy = np.einsum("tij,ntj->nti", camera[..., :2], xy) + camera[..., 2]
    visible = visible & ((xy > -0.5) & (xy < size - 0.5)).all(-1)
    chosen, query_t = _queries(rng, visible, config.points)
    xy, visible = xy[chosen].astype(np.float32), visible[chosen]
    queries = np.column_stack([query_t, xy[np.arange(len(xy)), query_t]]).astype(np.float32)
    return exact_clip(path.stem, "procedural", recolour(frames, rng), queries, xy, visible)


def _frames(rng: np.random.Generator, length: int, config: ViewConfig) -> np.ndarray:
    """Indices [T] with a constant step, forwards or backwards."""
    step = int(rng.integers(1, min(config.stride, (length - 1) // max(1, config.frames - 1)) + 1))
    first = rng.integers(length - step * (config.frames - 1))
    shown = first + step * np.arange(config.frames)
    return shown[::-1] if rng.random() < 0.5 else shown


def _camera(rng: np.random.Generator, size: tuple[int, ...], config: ViewConfig) -> np.ndarray:
    """[T, 2, 3] affine maps from px of the clip to px of the view."""
    frames, side = config.frames, config.size
    least = max(config.zoom[0], side / min(size))
    zoom = np.exp(rng.uniform(np.log(least), np.log(max(config.zoom[1], least))))
    shake = config.shake * rng.uniform(0, 1) ** 2
    scale = zoom * np.exp(smooth_curve(rng, frames, 0.1 * shake))
    angle = rng.uniform(-config.turn, config.turn) + smooth_curve(rng, frames, 0.15 * shake)
    mirror = rng.choice([-1, 1])
    reach = side / zoom / 2
    centre = [rng.uniform(reach, length - reach) - 0.5 for length in size[::-1]]
    moves = [smooth_curve(rng, frames, 0.1 * shake * side) for _ in range(2)]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    # [T, 2, 2]
    linear = np.stack([np.stack([mirror * cos, -sin], -1), np.stack([mirror * sin, cos], -1)], 1)
    shift = np.stack(moves, -1) + (side - 1) / 2 - linear @ np.array(centre)
    return np.concatenate([linear, shift[..., None]], -1)


def _queries(
    rng: np.random.Generator, visible: np.ndarray, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices [N] of points that are seen, and a frame of each: half of them the first one in which
    it is."""
    seen = np.flatnonzero(visible.any(1))
    if not len(seen):
        seen = np.arange(1)
    chosen = rng.choice(seen, points, replace=len(seen) < points)
    ranks = rng.random(visible[chosen].shape) * visible[chosen]
    return chosen, np.where(rng.random(points) < 0.5, visible[chosen].argmax(1), ranks.argmax(1))


def recolour(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mixed channels, other contrast, light that changes over time, noise; uint8 [T, H, W, 3] as
    given."""
    mix = np.eye(3)[rng.permutation(3)] + rng.normal(size=(3, 3)) * 0.15
    if rng.random() < 0.2:
        mix = np.full((3, 3), 1 / 3)
    mix *= rng.uniform(0.6, 1.3) * (-1 if rng.random() < 0.15 else 1)
    light = np.exp(smooth_curve(rng, len(frames), 0.12 * rng.random()))
    centre = 127.5 + rng.normal() * 20
    coloured = (frames.astype(np.float32) - 127.5) @ mix.T.astype(np.float32)
    coloured = (coloured + np.float32(centre)) * light[:, None, None, None].astype(np.float32)
    if rng.random() < 0.5:
        coloured += rng.standard_normal(coloured.shape, dtype=np.float32) * np.float32(
            rng.uniform(0, 6)
        )
    return np.clip(np.rint(coloured), 0, 255).astype(np.uint8)
