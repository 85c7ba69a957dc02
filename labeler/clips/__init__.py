"""From a scanned video to its clips: shots, choice, queries, and the process that makes them."""

from labeler.clips.choice import ClipConfig
from labeler.clips.process import DecodingProcess
from labeler.clips.queries import QueryConfig, sample_queries
from labeler.clips.recipe import ClipRecipe

__all__ = ["ClipConfig", "ClipRecipe", "DecodingProcess", "QueryConfig", "sample_queries"]
