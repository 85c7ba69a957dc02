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
PIXELS = 2
"""How frames of a source become the pixels of a clip; 2 resizes them inside the conversion to RGB
(docs/decisions/0017), 1 did so after it."""


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
