"""A tracker over one video or stream."""
