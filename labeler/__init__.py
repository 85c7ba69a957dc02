"""Video -> labelled clip: decoding, clips, queries, agreement, shards, drawing. Plain functions that never heard of Ray.

    dataset = labeler.open_dataset("labels")       # a folder or any fsspec URL
    clip = dataset[0]                              # Clip: frames, queries, tracks by teacher, labels; show(), plot()

The way of a video: `plan` -> `source` (`scan`, `decode`, `shots`, `clips`, `encode`, `queries`) -> teachers -> `agreement` -> `sample` ->
`shards` -> `records`; `unit` runs it. Names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labeler.agreement import AgreementConfig, Labels
    from labeler.clip_view import Clip
    from labeler.dataset import Dataset, open_dataset
    from labeler.decode import VideoReader, open_video
    from labeler.draw import draw_tracks
    from labeler.encode import decode_clip, encode_clip
    from labeler.queries import sample_queries
    from labeler.sample import Sample

_MODULES = {
    "AgreementConfig": "agreement",
    "Clip": "clip_view",
    "Dataset": "dataset",
    "Labels": "agreement",
    "Sample": "sample",
    "VideoReader": "decode",
    "decode_clip": "encode",
    "draw_tracks": "draw",
    "encode_clip": "encode",
    "open_dataset": "dataset",
    "open_video": "decode",
    "sample_queries": "queries",
}

__all__ = [
    "AgreementConfig",
    "Clip",
    "Dataset",
    "Labels",
    "Sample",
    "VideoReader",
    "decode_clip",
    "draw_tracks",
    "encode_clip",
    "open_dataset",
    "open_video",
    "sample_queries",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'labeler' has no attribute {name!r}")
    return getattr(import_module(f"labeler.{_MODULES[name]}"), name)
