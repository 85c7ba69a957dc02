"""Video files: scanning, decoding, encoding, fetching, and writing them."""

from labeler.video.decode import VideoReader, open_video
from labeler.video.encode import EncodeConfig, decode_clip, encode_clip
from labeler.video.frames import open_frames
from labeler.video.writer import VideoWriter

__all__ = [
    "EncodeConfig",
    "VideoReader",
    "VideoWriter",
    "decode_clip",
    "encode_clip",
    "open_frames",
    "open_video",
]
