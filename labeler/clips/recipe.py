"""Recipe: everything that decides which clips, pixels, and queries a video gives.

The process that makes clips is given a recipe, and does not know the data set.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.video import EncodeConfig
from labeler.video.container import VideoLimits
from labeler.video.decode import Decoder

SCHEMA = 2
"""The schema that is written; verdicts came with schema 2."""
READABLE = (1, 2)
"""Schemas that are read."""
PIXELS = 3
"""How frames of a source become the pixels of a clip: 1 resized them after the conversion to RGB, 2
inside it (docs/decisions/0017); 3 no longer moves the colours of a stored clip by half a pixel."""


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """How clips are cut from a video, and what is asked about them."""

    pixels: int = PIXELS
    decoder: Decoder = "auto"
    unsafe_decode: bool = False
    limits: VideoLimits = field(default_factory=VideoLimits)
    clips: ClipConfig = field(default_factory=ClipConfig)
    queries: QueryConfig = field(default_factory=QueryConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
