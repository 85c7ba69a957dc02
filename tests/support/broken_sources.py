"""What may live in the decoding process in place of `VideoSource`: installations that do not work,
and a machine without room."""

from __future__ import annotations

import errno

import av

from labeler.clips.making import VideoSource


class NewerPyAV(VideoSource):
    """PyAV has lost an argument that the reader gives, as `metadata_errors` in PyAV 19."""

    def check(self):
        before = av.open
        av.open = lambda file, mode="r": before(file, mode)
        super().check()


class MisfitInVideos(VideoSource):
    """Reads the built-in clip, and fails by its own fault in every video."""

    def open(self, source):
        raise AttributeError("'Frame' object has no attribute 'pict_type'")


class FullScratch(VideoSource):
    """Has no room for the copy of a video."""

    def open(self, source):
        raise OSError(errno.ENOSPC, "No space left on device", "video")
