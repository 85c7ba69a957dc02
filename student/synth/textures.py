"""Textures: what the layers of a procedural clip show, and their outlines.

Domain "photos"    pieces of photographs in smooth random outlines. The photographs lie inside the
                   wheels of scikit-image and scikit-learn (extra `[demo]`); nothing is downloaded.
                   No photo, nor another view of the same scene, is in both splits.
Domain "mixtures"  the same photographs in other colours, and blends of two of them: more kinds of
                   texture from few pictures.
Domain "patterns"  clouds, cells, stripes, and dots, in polygons: nothing that a tracker trained on
                   photographs has seen.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from teachers.errors import ConfigError

Split = Literal["train", "test", "pool"]
Domain = Literal["photos", "mixtures", "patterns"]
BORDER_PX = 3
"""Empty border of an outline."""

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
    "pool": (
        f"{_SKIMAGE}/astronaut.png",
        f"{_SKIMAGE}/brick.png",
        f"{_SKIMAGE}/camera.png",
        f"{_SKIMAGE}/cell.png",
        f"{_SKIMAGE}/coffee.png",
        f"{_SKIMAGE}/grass.png",
        f"{_SKIMAGE}/hubble_deep_field.jpg",
        f"{_SKIMAGE}/moon.png",
        f"{_SKIMAGE}/motorcycle_left.png",
        f"{_SKIMAGE}/motorcycle_right.png",
        f"{_SKIMAGE}/page.png",
        f"{_SKIMAGE}/retina.jpg",
        f"{_SKIMAGE}/rocket.jpg",
        f"{_SKIMAGE}/text.png",
        f"{_SKLEARN}/china.jpg",
    ),
}
"""Files below the installed packages, by split; the pool that the minis learn from has all of them
that are no test pictures."""


@cache
def read_photo(name: str) -> np.ndarray:
    """uint8 [h, w, 3] RGB of a file inside an installed package; the package itself is not
    imported."""
    package, _, inside = name.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "procedural video needs the photographs inside scikit-image and scikit-learn, and "
            f"{package!r} is not installed: pip install 'tapdistill[demo]'."
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise ConfigError(
            f"{path}: the photograph is missing or broken: reinstall with pip install "
            "'tapdistill[demo]'."
        )
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def blob(rng: np.random.Generator, radius_px: float) -> np.ndarray:
    """float32 [h, w] alpha of a smooth random outline of that mean radius, with an edge one pixel
    soft and an empty border."""
    waves = np.arange(2, 7)
    strength, phase = (
        rng.normal(size=len(waves)) * 0.35 / waves,
        rng.uniform(0, 2 * np.pi, len(waves)),
    )
    stretch = rng.uniform(0.7, 1.4)
    reach = int(np.ceil(radius_px * 1.9 * max(stretch, 1 / stretch))) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    x, y = x / stretch, y * stretch
    waviness = strength @ np.cos(
        waves[:, None, None] * np.arctan2(y, x) + phase[:, None, None]
    ).reshape(len(waves), -1)
    outline = radius_px * np.clip(1 + waviness, 0.3, 1.8).reshape(x.shape)
    alpha = np.clip(outline - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return np.pad(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], BORDER_PX)


def polygon(rng: np.random.Generator, radius_px: float) -> np.ndarray:
    """float32 [h, w] alpha of a random star-shaped polygon of about that radius, with an edge one
    pixel soft and an empty border."""
    corners = int(rng.integers(3, 9))
    angle = (np.arange(corners) + rng.uniform(0.1, 0.9, corners)) * 2 * np.pi / corners
    reach = int(np.ceil(1.4 * radius_px)) + BORDER_PX
    distance = radius_px * rng.uniform(0.6, 1.4, corners)
    at = reach + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    drawn = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    cv2.fillPoly(drawn, [np.rint(at * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return drawn.astype(np.float32) / 255


def piece_of(rng: np.random.Generator, photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3]: the random piece of the photograph, of four, that is least flat,
    tinted, at times mirrored."""
    fit = min(photo.shape[0] / height, photo.shape[1] / width)
    pieces = []
    for _ in range(4):
        zoom = min(fit, rng.uniform(1, 2))
        h, w = max(1, int(height * zoom)), max(1, int(width * zoom))
        y, x = rng.integers(photo.shape[0] - h + 1), rng.integers(photo.shape[1] - w + 1)
        interpolation = cv2.INTER_AREA if zoom >= 1 else cv2.INTER_CUBIC
        pieces.append(
            cv2.resize(photo[y : y + h, x : x + w], (width, height), interpolation=interpolation)
        )
    piece = max(pieces, key=lambda each: float(np.median(np.abs(cv2.Laplacian(each, cv2.CV_32F)))))
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    return piece * rng.uniform(0.6, 1.0, 3).astype(np.float32)


def mixture(
    rng: np.random.Generator, photo: np.ndarray, other: np.ndarray, height: int, width: int
) -> np.ndarray:
    """float32 [height, width, 3] in [0, 255]: a piece in other colours, in half of the draws
    blended with a piece of the other photograph."""
    piece = recoloured(rng, piece_of(rng, photo, height, width))
    if rng.random() < 0.5:
        second = recoloured(rng, piece_of(rng, other, height, width))
        even = rng.random() < 0.5
        share = rng.uniform(0.3, 0.7) if even else _clouds(rng, height, width)[..., None] > 0.5
        piece = share * piece + (1 - share) * second
    return piece.clip(0, 255).astype(np.float32)


def recoloured(rng: np.random.Generator, piece: np.ndarray) -> np.ndarray:
    """float32 [h, w, 3] with mixed and permuted channels, another contrast, at times inverted."""
    mix = np.eye(3)[rng.permutation(3)] + 0.3 * rng.normal(size=(3, 3))
    mix *= rng.uniform(0.5, 1.5) * (-1 if rng.random() < 0.3 else 1)
    mix /= np.abs(mix).sum(1, keepdims=True).clip(0.5)
    centre = rng.uniform(50, 205, 3).astype(np.float32)
    return (piece - piece.mean((0, 1))) @ mix.T.astype(np.float32) + centre


def pattern(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3] in [0, 255]: one of four patterns in random colours, over clouds
    in other colours."""
    draw = (_clouds, _cells, _stripes, _dots)[rng.integers(4)]
    share = (0.75 * draw(rng, height, width) + 0.25 * _clouds(rng, height, width))[..., None]
    dark, bright = np.sort(rng.uniform(0, 255, (2, 3)).astype(np.float32), axis=0)
    return dark + (bright - dark) * share


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [height, width] in [0, 1]: noise of every size, each octave weaker than the larger
    one before."""
    total = np.zeros((height, width), np.float32)
    for octave in range(6):
        cell = 64 / 2**octave
        grid = rng.random((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(
            0.7**octave
        )
    return (total - total.min()) / np.ptp(total)


def _cells(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [height, width] in [0, 1]: every pixel as bright as the seed that is nearest to
    it."""
    spots = max(2, int(height * width / rng.uniform(80, 600)))
    away = np.ones((height, width), np.uint8)
    away[rng.integers(height, size=spots), rng.integers(width, size=spots)] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return cv2.GaussianBlur(rng.random(spots + 1, dtype=np.float32)[nearest], (0, 0), 0.7)


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [height, width] in [0, 1]: waves of changing width."""
    angle, phase = rng.uniform(0, np.pi), 12 * _clouds(rng, height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return 0.5 + 0.5 * np.sin(
        (x * np.cos(angle) + y * np.sin(angle)) * np.float32(2 * np.pi / rng.uniform(8, 25)) + phase
    )


def _dots(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [height, width] in [0, 1]: discs of any brightness and size, over each other."""
    drawn = np.full((height, width), 128, np.uint8)
    for _ in range(int(height * width / 150) + 3):
        at = int(rng.integers(16 * width)), int(rng.integers(16 * height))
        cv2.circle(
            drawn, at, int(16 * rng.uniform(2, 7)), int(rng.integers(256)), -1, cv2.LINE_AA, shift=4
        )
    return drawn.astype(np.float32) / 255
