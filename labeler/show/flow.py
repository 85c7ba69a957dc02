"""Flow: where every pixel of one frame goes, as a picture.

The colour shows direction (hue) and length (the paler, the shorter; white does not move), as usual
since Baker et al. 2011, "A Database and Evaluation Methodology for Optical Flow". A pixel that is
not seen is dark.
"""

from __future__ import annotations

import cv2
import numpy as np

from teachers import ConfigError

SHOWN = 6
"""The most frames in a picture."""
LARGEST_SHARE = 0.99
"""The length that this share of the pixels does not exceed gets the full colour."""
LARGEST_WIDTH_PX = 480
"""The largest width of a frame in the picture; wider frames are made smaller."""
HIDDEN = 0.35
"""How much of its colour a pixel keeps if it is not seen."""


def draw_flow(
    frames: np.ndarray,  # [T, H, W, 3] uint8 RGB
    flow: np.ndarray,  # [T, H, W, 2] px
    visible: np.ndarray,  # [T, H, W] bool
) -> np.ndarray:  # [2 h, n w, 3] uint8 RGB
    """Up to `SHOWN` frames of a clip, from the first to the last, each above the flow to it.

    Raises:
        ConfigError: flow or flags do not fit the frames.
    """
    if flow.shape != (*frames.shape[:3], 2) or visible.shape != frames.shape[:3]:
        raise ConfigError(
            f"to draw the flow to frames {frames.shape}, it must be {(*frames.shape[:3], 2)} and "
            f"visible {frames.shape[:3]}; they are {flow.shape} and {visible.shape}."
        )
    shown = np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))
    length = np.hypot(flow[shown, ..., 0], flow[shown, ..., 1])
    full = max(float(np.quantile(length, LARGEST_SHARE)), 1e-6)
    colours = flow_colours(flow[shown], full)
    colours[~visible[shown]] = (colours[~visible[shown]] * HIDDEN).astype(np.uint8)
    columns = np.concatenate([frames[shown], colours], axis=1)
    picture = np.concatenate(list(columns), axis=1)
    share = LARGEST_WIDTH_PX / frames.shape[2]
    if share >= 1:
        return picture
    return cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def flow_colours(
    flow: np.ndarray,  # [..., 2] px
    full: float,  # px that have the full colour
) -> np.ndarray:  # [..., 3] uint8 RGB
    """To the right is red; then, clockwise, yellow, green, blue, and back to red."""
    direction = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    share = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / full, 0, 1)
    hsv = np.stack([direction, share, np.ones_like(share)], -1).astype(np.float32)
    rgb = cv2.cvtColor(hsv.reshape(-1, 1, 3), cv2.COLOR_HSV2RGB)
    return (rgb * 255).round().astype(np.uint8).reshape(*flow.shape[:-1], 3)
