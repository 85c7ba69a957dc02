"""Orientation: how a player mirrors and rotates the frames of a file, from its display matrix."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type


def _new_kind(kinds: type[Type], number: int) -> Any:
    """A member for side data that libav has and PyAV has no name for."""
    kind: Any = object.__new__(kinds)
    kind._name_, kind._value_ = f"NUMBER_{number}", number
    return kinds._value2member_map_.setdefault(number, kind)


# Frames with Exif, or with the view of a stereo film, have side data that PyAV does not know: up to
# version 18 it then raises a ValueError instead of giving any side data of the frame.
Type._missing_ = classmethod(_new_kind)  # type: ignore[assignment]


def orientation(frame: av.VideoFrame) -> tuple[int, bool, bool]:
    """How a player shows a coded frame: degrees counter-clockwise, whether it is mirrored left to
    right before, and whether its display matrix is such a rotation at all.

    The matrix (ISO 14496-12, 8.3.2) takes (x, y), with y down, to (a x + c y, b x + d y), up to a
    shift: where b and c are the larger ones, rows become columns. A matrix of zeros says nothing.
    """
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    data = bytes(found) if found is not None else b""
    if len(data) < 36:
        return 0, False, True
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(data[:36], np.int32))
    if not (a or b or c or d):
        return 0, False, False
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
    rotation, mirrored = _TURNS[turned, flip_x, flip_y]
    return rotation, mirrored, True


_TURNS = {
    (False, False, False): (0, False),
    (False, True, True): (180, False),
    (False, True, False): (0, True),
    (False, False, True): (180, True),
    (True, True, False): (270, False),
    (True, False, True): (90, False),
    (True, False, False): (90, True),
    (True, True, True): (270, True),
}
"""(rows become columns, then flipped along x, then along y) -> (rotation, mirrored before it)."""


def as_shown(
    picture: np.ndarray,  # [H, W, C], as it is coded
    rotation: int,
    mirrored: bool,
) -> np.ndarray:
    """The picture mirrored, then turned, as `Scan` says."""
    sides = picture[:, ::-1] if mirrored else picture
    return np.ascontiguousarray(np.rot90(sides, rotation // 90))
