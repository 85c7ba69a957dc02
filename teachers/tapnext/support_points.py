"""Support points: tracked beside each query, because in TAPNext all points see each other.

The VOT entry of TAPNext++ has 64 for each query, on a grid in a square of 64 px of its 512 px
input; its authors' figures for long video include them. They cost time: each is one more token in
every frame.
"""

from __future__ import annotations

import math

import numpy as np

REACH = 32 / 512
"""Distance from the query to the sides of the box, as a share of the frame's sides."""


def around(queries: np.ndarray, points: int, size: tuple[int, int]) -> np.ndarray:
    """[N * points, 3]: positions about each query, query by query, row by row.

    They are the middles of a grid's cells, which are nearly square.

    Args:
        queries: [N, 3] of (t, x, y) in px of frames of `size`, wherever their origin is.
        size: (H, W). Positions outside 0..W-1, 0..H-1 are moved to the nearest one inside.
    """
    height, width = size
    reach = np.array([REACH * width, REACH * height])
    columns = max(1, round(math.sqrt(points * reach[0] / reach[1])))
    rows = -(-points // columns)
    middles = [(2 * np.arange(cells) + 1) / cells - 1 for cells in (columns, rows)]  # -1..1
    grid = np.stack(np.meshgrid(*middles), -1).reshape(-1, 2)[:points] * reach
    positions = np.clip(queries[:, None, 1:] + grid, 0, [width - 1, height - 1])
    times = np.broadcast_to(queries[:, None, :1], (len(queries), points, 1))
    return np.concatenate([times, positions], -1).reshape(-1, 3).astype(np.float32)
