"""TAP-Vid export: labels in the layout of TAP-Vid's test sets, as if they were exact tracks.

    write_pickle(clips, file)    a dict name -> {video uint8 [T, H, W, 3], points float32 [N, T, 2]
                                 in 0..1, occluded bool [N, T]}
    write_npz(clip, folder)      <key>.npz with video, points float32 [N, T, 2] px (pixel centres),
                                 occluded, and queries [N, 3]

`student.evaluation.tapvid` and `student.evaluation.testsets` read them back. TAP-Vid has no third
state, so a frame without a label is marked occluded. Where a point is occluded, its position is
that of the nearest frame that has one, because no reader expects NaN.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from labeler.dataset import Clip
from labeler.labels import TrustConfig
from labeler.labels.labelled import target_of
from student.clip import TestClip

NPZ = f"{'[0-9a-f]' * 16}-f{'[0-9]' * 6}*-s[0-9]*.npz"
"""Pattern of the files of `write_npz`: keys of clips (`labeler.clips.choice.clip_key`)."""


def labels_as_truth(
    clip: Clip, policy: str, seed: int = 0, trust: TrustConfig | None = None
) -> TestClip:
    """The labels of a clip by one policy; points that it never sees are left out, so there may be
    none.

    Args:
        policy: a label policy (`labeler.labels.policies`), or the name of a teacher, whose own
            tracks are taken as they are.
        seed: for policies that draw; the draw for a clip depends on its key, not on other clips.
        trust: the probability from which on the verifier is believed.

    Raises:
        ConfigError: `policy` is neither a policy nor a teacher of this clip; or it needs a verdict,
            and no verifier judged the clip.
    """
    if policy in clip.tracks:
        xy, visible = clip.tracks[policy].xy, clip.visible(policy)
    else:
        target = target_of(clip, policy, trust, seed)
        xy, visible = target.xy, target.visible & target.used
    height, width = clip.size_hw
    with np.errstate(invalid="ignore"):
        visible = visible & ((xy >= -0.5) & (xy <= (width - 0.5, height - 0.5))).all(-1)
    shown = visible.any(1)
    return TestClip(clip.key, clip.frames, clip.queries[shown], _filled(xy[shown]), visible[shown])


def write_pickle(clips: Iterable[TestClip], file: Path) -> None:
    """Write all clips as one pickle, like `tapvid_davis.pkl`; they are in memory together."""
    videos = {}
    for clip in clips:
        height, width = clip.frames.shape[1:3]
        points = ((clip.xy + 0.5) / (width, height)).astype(np.float32)
        videos[clip.name] = {"video": clip.frames, "points": points, "occluded": ~clip.visible}
    with file.open("wb") as out:
        pickle.dump(videos, out, protocol=4)


def write_npz(clip: TestClip, folder: Path) -> None:
    """Write one clip as <name>.npz into the folder."""
    np.savez_compressed(
        folder / f"{clip.name}.npz",
        allow_pickle=False,
        video=clip.frames,
        points=clip.xy,
        occluded=~clip.visible,
        queries=clip.queries,
    )


def _filled(xy: np.ndarray) -> np.ndarray:
    """float32 [N, T, 2]: where a position is missing, that of the nearest frame that has one; each
    row must have at least one."""
    frame = np.arange(xy.shape[1])
    away = np.abs(frame[:, None] - frame)  # [T, T]
    known = np.isfinite(xy).all(-1)
    nearest = (
        np.stack([np.where(row, away, len(frame)).argmin(-1) for row in known])
        if len(xy)
        else np.zeros(known.shape, int)
    )
    return np.take_along_axis(xy, nearest[..., None], axis=1).astype(np.float32)
