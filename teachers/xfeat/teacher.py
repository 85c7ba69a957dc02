"""XFeat as a teacher: its descriptors, matched in every frame, then located by the patch around the
query (`classical/search.py`).

    frames --resized--> XFeat --> a descriptor every 8 px --> match in every frame
        --> alignment --> mutual check at jumps

Every mode tracks every frame in the same way: no published protocol tracks points with XFeat.
Frames are first resized to a short side of `side_px`, so that a cell is equally fine in every clip.
The keypoint and reliability heads and the match refinement are not used: queries are given, and
alignment is finer. The network runs on the device; matching and alignment run on the CPU. Memory:
descriptors are kept as float16, 115 MB for 80 frames of 384 x 680.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.classical.bidirectional import RULE
from teachers.classical.search import Described, MatchingTeacher, MatchSettings
from teachers.info import Mode
from teachers.layers.branch import for_gpu
from teachers.network_teacher import NetworkTeacher, require_finite
from teachers.published import PUBLISHED
from teachers.xfeat.network import MULTIPLE, STRIDE, XFEAT_PRESETS, XFeat

LONGEST_PX = 2048
"""Limit for the long side of a resized frame, which would be huge for a clip of a few rows."""


@dataclass(frozen=True, kw_only=True)
class XFeatSettings(MatchSettings):
    """How finely frames are described, and which matches are trusted."""

    side_px: int = 640
    """The short side of the frames that the network sees."""
    jump_cost: float = 0.1
    """Added to the squared distance of descriptors (0 to 4) at a jump, and in part before."""


class XFeatTeacher(MatchingTeacher, NetworkTeacher):
    """The teacher `xfeat`."""

    architecture = "XFeat matched in every frame, patch alignment"
    weights = PUBLISHED["xfeat"]
    presets = XFEAT_PRESETS
    network = XFeat
    rule = RULE
    settings_type = XFeatSettings
    settings: XFeatSettings
    between_cells = True

    def _set_up(self, mode: Mode) -> dict[str, Any]:
        return asdict(self.settings)

    @torch.inference_mode()
    def _describe(self, frames: np.ndarray) -> Described:
        size = np.array(frames.shape[1:3])
        inner = network_size(size, self.settings.side_px)
        parts: list[Tensor] = []
        block = self.memory.frames(self.device)
        for start in range(0, len(frames), block):
            images = F.interpolate(
                self._video(frames[start : start + block]).float(),
                tuple(inner),
                mode="bilinear",
                align_corners=False,
                antialias=bool((inner < size).any()),
            )
            found = self.model.describe(images).permute(0, 2, 3, 1)  # [b, h, w, C]
            parts.append(F.normalize(found, dim=-1).half())
        if for_gpu(parts[0]):
            parts = [torch.cat(parts).cpu()]  # in one piece: the only wait
        for part in parts:
            require_finite(part, self.info.name)
        scale_xy = (size / inner)[::-1]
        cells = [cell for part in parts for cell in part.numpy()]
        return Described(cells, STRIDE / 2 * scale_xy - 0.5, STRIDE * scale_xy)


def network_size(size_hw: np.ndarray, side_px: int) -> np.ndarray:
    """int [2] (H, W): a frame of [2] (H, W) with a short side near `side_px`, as the network takes
    it."""
    wanted = np.minimum(size_hw * side_px / size_hw.min(), LONGEST_PX)
    return np.maximum(MULTIPLE, MULTIPLE * np.round(wanted / MULTIPLE).astype(int))
