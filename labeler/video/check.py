"""Check: whether this installation decodes at all, asked before the first video is blamed for it.

`check.mp4` comes with the installation: 8 frames of 128 x 96 px, frame i grey at level 30 + 25 i,
written by `encode_clip`. What is wrong with reading it is wrong with PyAV, decord, or OpenCV as
they are installed here, or with the code that calls them, and would be wrong with every video.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import numpy as np

from labeler.video.decode import Decoder, open_video
from labeler.video.encode import decode_clip, encode_clip
from teachers.errors import InstallationError

CLIP = Path(__file__).with_name("check.mp4")
LEVELS = 30 + 25 * np.arange(8)
"""Grey level of each frame of the clip."""
NEAR = 3
"""By how many levels a decoder may differ."""


def check_decoding(decoder: Decoder) -> None:
    """Read the built-in clip as a job reads its videos, write it as a job writes its clips, and
    read that again.

    Raises:
        InstallationError: any of this fails, or gives other frames.
    """
    try:
        with open_video(CLIP, decoder=decoder) as video:
            frames = video.read(range(len(video)), short_side=64, multiple=8)
        again = decode_clip(encode_clip(frames, fps=24))
    except MemoryError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise InstallationError(
            "this installation cannot decode the clip that comes with it, so no video was opened: "
            f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno}). A "
            "package may be broken, or newer than what tapdistill was tested with: install it "
            "again in an environment of its own."
        ) from error
    for found in (frames, again):
        levels = found.mean((1, 2, 3))
        if len(levels) != len(LEVELS) or np.abs(levels - LEVELS).max() > NEAR:
            raise InstallationError(
                "this installation decodes the clip that comes with it to other frames than it "
                f"has (grey levels {levels.round().tolist()}, and not {LEVELS.tolist()}), so no "
                "video was opened: install PyAV (av), decord, and OpenCV again."
            )
