"""Patches: the patch around each query, aligned with another frame to a fraction of a pixel.

In   frames, queries, and a guess of the affine map that carries the patch of a query into another
     frame.
Out  `Alignment`: the refined map, and how alike the two patches are.

Inverse-compositional Lucas-Kanade with an affine warp (Baker and Matthews 2004, section 3.2), on
colour patches of zero mean and unit contrast under a Gaussian window. Comparing with the query's
own frame keeps a track from drifting, and tells an occluder from the point (Shi and Tomasi 1994).
Patches are rows of 3 P values, P = (2 radius + 1)^2. Queries do not influence each other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from teachers.classical.settings import ClassicalSettings

NOISE = 1.0
"""Noise that smoothing leaves, in grey levels: a patch with less contrast than this resembles
nothing."""

DAMPING = 0.01
"""Share of its mean that is added to the diagonal of the normal equations, so that parameters about
which a patch tells nothing do not change."""

LARGEST_STRETCH = 3.0
"""A patch that seems to have grown or shrunk by more than this was not found."""


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(ClassicalSettings):
    """How a patch is aligned, and when the result is trusted."""

    correlations: ClassVar[tuple[str, ...]] = ("similar",)

    patch_radius_px: int
    """The patch of a query is 2 x radius + 1 wide."""
    iterations: int
    """Iterations of the alignment."""
    anchor_px: float = 6.0
    """The aligned position must be nearer than this to the one at which the alignment began."""
    similar: float
    """The least correlation with the query's patch at which a point counts as visible."""


def smooth(frame: np.ndarray) -> np.ndarray:
    """float32 [H, W, 3]: the frame as patches see it, without the noise of single pixels."""
    return cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)


def sample(
    image: np.ndarray,  # [H, W, C], C <= 128
    xy: np.ndarray,  # [..., 2] px; outside the image, its border continues
) -> np.ndarray:  # [..., C]
    """Bilinear values of an image at any points."""
    points = xy.reshape(-1, 1, 2).astype(np.float32)
    # cv2.remap only takes sides below 2^15
    blocks = np.array_split(points, len(points) // 2**14 + 1)
    values = [
        cv2.remap(
            image, block[..., 0], block[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        for block in blocks
    ]
    return np.concatenate(values).reshape(*xy.shape[:-1], image.shape[2])


@dataclass(frozen=True)
class Alignment:
    """Where n patches are in a frame."""

    xy: np.ndarray
    """[n, 2] px."""
    affine: np.ndarray
    """[n, 2, 2]: maps an offset from the query in its own frame to the offset in this frame."""
    similarity: np.ndarray
    """[n] in [-1, 1]: the normalised correlation with the patch of the query."""


class Templates:
    """The patches of N queries in their own frames, with what their alignment needs."""

    def __init__(self, frames: np.ndarray, queries: np.ndarray, radius_px: int) -> None:
        """frames: uint8 [T, H, W, 3]; queries: [N, 3] as (t, x, y)."""
        side = np.arange(-radius_px, radius_px + 1, dtype=np.float32)
        self.offsets = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)  # [P, 2]
        window = np.exp(-0.5 * np.square(self.offsets / (0.6 * radius_px)).sum(-1)).repeat(3)
        self.window = window / window.sum()  # [3 P]
        self.radius_px = radius_px

        n, size = len(queries), len(self.window)
        self.values = np.zeros((n, size), np.float32)
        slope = np.zeros((n, size, 2), np.float32)
        for t in np.unique(queries[:, 0]).astype(int):
            rows = np.flatnonzero(queries[:, 0] == t)
            points = queries[rows, None, 1:] + self.offsets
            image = smooth(frames[t])
            self.values[rows], contrast = self._normalised(sample(image, points))
            for axis, step in enumerate(np.eye(2, dtype=np.float32)):
                difference = sample(image, points + step) - sample(image, points - step)
                slope[rows, :, axis] = difference.reshape(len(rows), -1) / (2 * contrast[:, None])
        # Six parameters: displacement in px, then the affine part, whose unit is one px at the
        # patch's rim.
        affine = slope[..., :, None] * (self.offsets.repeat(3, axis=0) / radius_px)[:, None, :]
        descent = np.concatenate([slope, affine.reshape(n, size, 4)], axis=2)  # [N, 3 P, 6]
        normal = np.matmul((descent * self.window[:, None]).transpose(0, 2, 1), descent)
        mean = np.trace(normal, axis1=1, axis2=2) / 6
        normal += (DAMPING * mean + 1e-9)[:, None, None] * np.eye(6)
        # [N, 6, 3 P]
        self.solve = (
            np.linalg.inv(normal) @ (descent * self.window[:, None]).transpose(0, 2, 1)
        ).astype(np.float32)

    def joined(self, more: Templates) -> Templates:
        """These patches and then the others, which have the same radius."""
        return self._with(
            np.concatenate([self.values, more.values]), np.concatenate([self.solve, more.solve])
        )

    def taken(self, rows: np.ndarray) -> Templates:  # int [n]
        """The patches of these rows."""
        return self._with(self.values[rows], self.solve[rows])

    def _with(self, values: np.ndarray, solve: np.ndarray) -> Templates:
        new = copy.copy(self)
        new.values, new.solve = values, solve
        return new

    def align(
        self,
        image: np.ndarray,  # [H, W, 3] float32, smoothed
        rows: np.ndarray,  # [n] indices of queries
        xy: np.ndarray,  # [n, 2] px, the guess
        affine: np.ndarray,  # [n, 2, 2], the guess
        iterations: int,
    ) -> Alignment:
        """The maps near the guess under which the image looks most like the patches; similarity -1
        where there is none."""
        guess, solve, values = affine, self.solve[rows], self.values[rows]
        for _ in range(iterations):
            change = np.einsum("nip,np->ni", solve, self._view(image, xy, affine) - values)
            move = np.clip(change[:, :2], -0.5 * self.radius_px, 0.5 * self.radius_px)
            growth = np.eye(2) + np.clip(
                change[:, 2:].reshape(-1, 2, 2) / self.radius_px, -0.25, 0.25
            )
            affine = affine @ np.linalg.inv(growth)
            xy = xy - np.einsum("nij,nj->ni", affine, move)
        stretch = np.linalg.svd(affine, compute_uv=False)
        lost = (stretch[:, 0] > LARGEST_STRETCH) | (stretch[:, 1] < 1 / LARGEST_STRETCH)
        similarity = np.where(
            lost, -1.0, np.einsum("np,p->n", self._view(image, xy, affine) * values, self.window)
        )
        return Alignment(xy, np.where(lost[:, None, None], guess, affine), similarity)

    def _view(self, image: np.ndarray, xy: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """[n, 3 P]: what the image shows where the patches are assumed to be, normalised."""
        points = xy.astype(np.float32)[:, None] + self.offsets @ affine.astype(
            np.float32
        ).transpose(0, 2, 1)
        return self._normalised(sample(image, points))[0]

    def _normalised(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patches [n, P, 3] as rows [n, 3 P] of zero mean and unit contrast under the window, and
        their contrast [n]."""
        values = pixels.reshape(len(pixels), -1)
        values = values - np.einsum("np,p->n", values, self.window)[:, None]
        contrast = np.sqrt(np.einsum("np,p->n", np.square(values), self.window) + NOISE**2)
        return values / contrast[:, None], contrast
