"""Appearance: how similar the surroundings of a position are to those of its query.

In   frames, queries, positions [K, N, T, 2], and where the neighbours expect each query. Out:
     `Appearance`: normalised correlations of patches, plain and turned as the neighbours turned.

Two patches of each position are compared: a small one of 7 x 7 samples, and one of its
surroundings, of 5 x 5 samples that are 3 px apart. Distances are px of the 256 x 256 raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from labeler.labels.agreement import RASTER
from labeler.labels.neighbours import FAR_PX, Expected, norm

NOISE = 2.0
"""Grey levels: a patch of less contrast is alike to nothing."""
SIDES = (7, 5)
"""Of the patch and of its surroundings, in samples."""
STEPS_PX = (1.0, 3.0)
"""Between these samples, px of the raster."""


@dataclass(frozen=True)
class Appearance:
    """How alike patches are: normalised correlations in [-1, 1], [K, N, T] each unless it says
    otherwise."""

    alike: np.ndarray
    """[3, ...]: with the query's patch, the same turned with the neighbours, and that for the
    surroundings."""
    less_best: np.ndarray
    """[2, ...]: less the best of the other teachers."""
    as_best: np.ndarray
    """With the patch of the best other teacher in the same frame."""
    off: np.ndarray
    """[2, ...] px: how far the position seems to be from what fits, by one step of Lucas-Kanade."""
    as_last: np.ndarray
    """With the same track's patch one frame before."""
    as_next: np.ndarray
    colour: np.ndarray
    """The change of the mean colour against the query's, in 64 grey levels."""
    contrast: np.ndarray
    """Grey levels."""
    expected: np.ndarray
    """[2, N, T]: `alike` at the expected position: patch, surroundings; 0 where that is unknown."""
    query: np.ndarray
    """[3, N] grey levels: contrast of the query's patch, its weaker gradient, contrast around."""


def bring(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A frame on the raster, without the noise of single pixels; and blurred, for surroundings."""
    if frame.shape[:2] != (RASTER, RASTER):
        frame = cv2.resize(frame, (RASTER, RASTER), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    return image, cv2.GaussianBlur(image, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)


class _Window:
    """Where the samples of a patch lie, and how much each counts."""

    def __init__(self, count: int, step_px: float) -> None:
        side = (np.arange(count, dtype=np.float32) - count // 2) * np.float32(step_px)
        self.offsets = np.stack(np.meshgrid(side, side)).reshape(2, -1)  # [2, P] x, y
        weight = np.exp(-0.5 * np.square(self.offsets / (0.6 * side[-1])).sum(0)).repeat(3)
        self.root = np.sqrt(weight / weight.sum()).astype(np.float32)  # [3 P]
        self.to_colour = np.tile(np.eye(3, dtype=np.float32), (count**2, 1)) / count**2
        """[3 P, 3]: a patch times this is its mean colour."""

    def weigh(self, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multiplies patches [..., 3 P] by `root`, in place, so that dot products of two are
        weighted. Returns their mean and their contrast [...], with the noise in it."""
        patch *= self.root
        mean = patch @ self.root
        variance = _dot(patch, patch) - np.square(mean)
        return mean, np.sqrt(np.maximum(variance, 0) + NOISE**2)


_WINDOWS = tuple(map(_Window, SIDES, STEPS_PX))


@dataclass(frozen=True)
class _Template:
    """The patches of N queries: of zero mean and unit contrast, times the window."""

    values: np.ndarray  # [N, 3 P]
    colour: np.ndarray  # [N, 3]
    contrast: np.ndarray  # [N]
    corner: np.ndarray  # [N]
    step: np.ndarray
    """[N, 2, 3 P]: times the difference of a patch to this one, how far off it seems to be."""


def compare(
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    query_t: np.ndarray, query_xy: np.ndarray,
    xy: np.ndarray, placed: np.ndarray, expected: Expected,
) -> Appearance:  # fmt: skip
    k, n, t, _ = xy.shape
    templates = [_templates(images, level, query_t, query_xy) for level in (0, 1)]
    alike = np.zeros((3, k, n, t), np.float32)
    off = np.zeros((2, k, n, t), np.float32)
    as_best, link, colour, contrast = (np.zeros((k, n, t), np.float32) for _ in range(4))
    less_best, at_expected = np.zeros((2, k, n, t), np.float32), np.zeros((2, n, t), np.float32)
    last: tuple[np.ndarray, np.ndarray] | None = None
    for frame in range(t):
        here = np.where(placed[:, :, frame, None], xy[:, :, frame], query_xy)  # [K, N, 2]
        both = np.concatenate([here, expected.xy[None, :, frame]])  # [K + 1, N, 2]
        there = placed[:, :, frame]
        for level in (0, 1):
            image, window, template = images[frame][level], _WINDOWS[level], templates[level]
            offsets = expected.affine[:, frame] @ window.offsets
            turned = patches(image, both, offsets)
            _, spread = window.weigh(turned)
            value = _dot(turned, template.values) / spread
            alike[1 + level, :, :, frame], at_expected[level, :, frame] = value[:k], value[k]
            step = np.stack([_dot(turned, template.step[:, axis]) for axis in (0, 1)], -1)
            step = step[:k] / spread[:k, :, None]
            off[level, :, :, frame] = np.minimum(norm(step), FAR_PX)
            score = value[:k]
            if level == 0:
                plain = patches(image, here, window.offsets)
                changed = plain @ window.to_colour - template.colour
                mean, spread = window.weigh(plain)
                alike[0, :, :, frame] = _dot(plain, template.values) / spread
                contrast[:, :, frame] = spread
                colour[:, :, frame] = np.abs(changed).max(-1) / 64
                plain -= mean[..., None] * window.root
                plain /= spread[..., None]
                if last is not None:
                    link[:, :, frame] = np.where(last[1] & there, _dot(plain, last[0]), 0)
                last = plain, there
                score = np.maximum(score, alike[0, :, :, frame])
            score = np.where(there, score, -1)
            if k == 1:
                less_best[level, :, :, frame] = score + 1
                continue
            best = _best_other(score)
            less_best[level, :, :, frame] = score - np.take_along_axis(score, best, 0)
            if level == 0:
                alike_best = _dot(plain, plain[best, np.arange(n)])
                as_best[:, :, frame] = alike_best * np.take_along_axis(there, best, 0)
    as_next = np.concatenate([link[:, :, 1:], np.zeros((k, n, 1), np.float32)], 2)
    small, around = templates
    return Appearance(
        alike, less_best, as_best, off, link, as_next, colour, contrast,
        at_expected * expected.known, np.stack([small.contrast, small.corner, around.contrast]),
    )  # fmt: skip


def _best_other(score: np.ndarray) -> np.ndarray:
    """int [K, N]: for each teacher, which other one has the highest score [K, N]."""
    first = score.argmax(0)
    rest = score.copy()
    np.put_along_axis(rest, first[None], -np.inf, axis=0)
    second = rest.argmax(0)
    return np.where(np.arange(len(score))[:, None] == first, second, first)


def _templates(
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    level: int,
    query_t: np.ndarray,
    query_xy: np.ndarray,
) -> _Template:
    window, n = _WINDOWS[level], len(query_t)
    size = len(window.root)
    values, slope = np.zeros((n, size), np.float32), np.zeros((n, 2, size), np.float32)
    colour, contrast = np.zeros((n, 3), np.float32), np.zeros(n, np.float32)
    delta = STEPS_PX[level] * np.eye(2, dtype=np.float32)
    for t in np.unique(query_t):
        rows = np.flatnonzero(query_t == t)
        image = images[t][level]
        patch = patches(image, query_xy[rows], window.offsets)
        colour[rows] = patch @ window.to_colour
        mean, spread = window.weigh(patch)
        contrast[rows] = spread
        values[rows] = (patch - mean[:, None] * window.root) / spread[:, None]
        for axis in (0, 1):
            ahead = patches(image, query_xy[rows] + delta[axis], window.offsets)
            behind = patches(image, query_xy[rows] - delta[axis], window.offsets)
            slope[rows, axis] = (ahead - behind) / (2 * STEPS_PX[level] * spread[:, None])
    slope *= window.root
    slope -= (slope @ window.root)[..., None] * window.root  # more light is no step
    hessian = np.einsum("nap,nbp->nab", slope, slope)
    trace = np.trace(hessian, axis1=1, axis2=2)
    corner = np.sqrt(np.maximum(np.linalg.eigvalsh(hessian)[:, 0], 0)) * contrast
    hessian += (0.02 * trace[:, None, None] + 1e-6) * np.eye(2, dtype=np.float32)
    step = np.linalg.solve(hessian, slope)
    along = np.einsum("nap,np->na", step, values) / np.maximum(_dot(values, values), 1e-6)[:, None]
    step -= along[..., None] * values[:, None]  # more contrast is none either
    return _Template(values, colour, contrast, corner, step)


def patches(
    image: np.ndarray,  # [H, W, 3]
    xy: np.ndarray,  # [..., N, 2]
    offsets: np.ndarray,  # [2, P] or [N, 2, P]: x, y
) -> np.ndarray:  # float32 [..., N, 3 P]
    """Bilinear samples around positions; beyond the image its border goes on."""
    xy = np.clip(xy, -1e4, 1e4).astype(np.float32, copy=False)
    count = offsets.shape[-1]
    x, y = ((xy[..., i, None] + offsets[..., i, :]).reshape(-1, count) for i in (0, 1))
    out = np.empty((len(x), count, 3), np.float32)
    for first in range(0, len(x), 2**14):  # cv2.remap takes sides below 2^15
        rows = slice(first, first + 2**14)
        cv2.remap(
            image, x[rows], y[rows], cv2.INTER_LINEAR, out[rows], borderMode=cv2.BORDER_REPLICATE
        )
    return out.reshape(*xy.shape[:-1], 3 * count)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...p,...p->...", a, b)
