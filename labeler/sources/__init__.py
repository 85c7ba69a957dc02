"""Which videos there are: folders, lists, tables, and what their metadata says."""

from labeler.sources.filters import WordFilter
from labeler.sources.listing import Source, list_sources

__all__ = ["Source", "WordFilter", "list_sources"]
