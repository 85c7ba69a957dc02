"""Video -> labelled clip: decoding, clips, queries, agreement, shards, drawing. Plain functions
that never heard of Ray.

    dataset = labeler.open_dataset("labels")       # a folder or any fsspec URL
    clip = dataset[0]                              # Clip: frames, queries, tracks, labels; show()

The way of a video: `sources` -> `video` -> `clips` -> teachers -> `labels` -> `shards`; `unit` runs
it. `dataset` reads what was written, `show` draws it. Names below are imported when they are first
used.
"""

from typing import TYPE_CHECKING

from tapdistill import find_own_packages

find_own_packages()

from teachers.lazy import lazy_names  # noqa: E402, now it is ours

if TYPE_CHECKING:
    from labeler.clips.choice import ClipConfig
    from labeler.clips.queries import QueryConfig, sample_queries
    from labeler.dataset.clip import Clip
    from labeler.dataset.dataset import Dataset, open_dataset
    from labeler.labels.agreement import AgreementConfig, Labels, agree
    from labeler.labels.hidden import is_hidden
    from labeler.labels.policies import Policy, choose
    from labeler.labels.policy import Candidates, LabelPolicy, Target
    from labeler.labels.sample import Sample
    from labeler.labels.trust import TrustConfig
    from labeler.labels.verdict import ClipVerdict
    from labeler.labels.verifier import Verifier
    from labeler.show.draw import draw_tracks, rainbow
    from labeler.verifier import judge, majority
    from labeler.video.decode import VideoReader, open_video
    from labeler.video.encode import EncodeConfig, decode_clip, encode_clip

_MODULES = {
    "AgreementConfig": "labeler.labels.agreement",
    "Candidates": "labeler.labels.policy",
    "Clip": "labeler.dataset.clip",
    "ClipConfig": "labeler.clips.choice",
    "ClipVerdict": "labeler.labels.verdict",
    "Dataset": "labeler.dataset.dataset",
    "EncodeConfig": "labeler.video.encode",
    "LabelPolicy": "labeler.labels.policy",
    "Labels": "labeler.labels.agreement",
    "Policy": "labeler.labels.policies",
    "QueryConfig": "labeler.clips.queries",
    "Sample": "labeler.labels.sample",
    "Target": "labeler.labels.policy",
    "TrustConfig": "labeler.labels.trust",
    "Verifier": "labeler.labels.verifier",
    "VideoReader": "labeler.video.decode",
    "agree": "labeler.labels.agreement",
    "choose": "labeler.labels.policies",
    "decode_clip": "labeler.video.encode",
    "draw_tracks": "labeler.show.draw",
    "encode_clip": "labeler.video.encode",
    "is_hidden": "labeler.labels.hidden",
    "judge": "labeler.verifier",
    "majority": "labeler.verifier",
    "open_dataset": "labeler.dataset.dataset",
    "open_video": "labeler.video.decode",
    "rainbow": "labeler.show.draw",
    "sample_queries": "labeler.clips.queries",
}

__all__ = [
    "AgreementConfig",
    "Candidates",
    "Clip",
    "ClipConfig",
    "ClipVerdict",
    "Dataset",
    "EncodeConfig",
    "LabelPolicy",
    "Labels",
    "Policy",
    "QueryConfig",
    "Sample",
    "Target",
    "TrustConfig",
    "Verifier",
    "VideoReader",
    "agree",
    "choose",
    "decode_clip",
    "draw_tracks",
    "encode_clip",
    "is_hidden",
    "judge",
    "majority",
    "open_dataset",
    "open_video",
    "rainbow",
    "sample_queries",
]

__getattr__ = lazy_names(__name__, _MODULES)
