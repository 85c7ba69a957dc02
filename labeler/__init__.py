"""Video -> labelled clip: decoding, clips, queries, agreement, shards, drawing. Plain functions
that never heard of Ray.

    dataset = labeler.open_dataset("labels")       # a folder or any fsspec URL
    clip = dataset[0]                              # Clip: frames, queries, tracks, labels; show()

The way of a video: `sources` -> `video` -> `clips` -> teachers -> `labels` -> `shards`; `unit` runs
it. `dataset` reads what was written, `show` draws it. Names below are imported when they are first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labeler.clips.queries import sample_queries
    from labeler.dataset.clip import Clip
    from labeler.dataset.dataset import Dataset, open_dataset
    from labeler.labels.agreement import AgreementConfig, Labels
    from labeler.labels.sample import Sample
    from labeler.show.draw import draw_tracks
    from labeler.video.decode import VideoReader, open_video
    from labeler.video.encode import decode_clip, encode_clip

_MODULES = {
    "AgreementConfig": "labels.agreement",
    "Clip": "dataset.clip",
    "Dataset": "dataset.dataset",
    "Labels": "labels.agreement",
    "Sample": "labels.sample",
    "VideoReader": "video.decode",
    "decode_clip": "video.encode",
    "draw_tracks": "show.draw",
    "encode_clip": "video.encode",
    "open_dataset": "dataset.dataset",
    "open_video": "video.decode",
    "sample_queries": "clips.queries",
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
