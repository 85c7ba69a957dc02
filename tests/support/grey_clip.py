"""A labelled clip of which everything is known by hand: its frames tell their number, its points go
right."""

from __future__ import annotations

import numpy as np

from labeler.labels.agreement import AgreementConfig, label
from labeler.labels.sample import Sample
from labeler.video.encode import encode_clip
from teachers import Tracks, VisibleRule

T, HEIGHT, WIDTH, FPS = 24, 96, 128, 30000 / 1001
DARKEST, STEP = 30, 8
"""Frame t of the clip is grey with the level DARKEST + STEP * t, so that a picture tells its
frame."""


def grey_clip() -> Sample:
    """Eight points that go right by 2 px a frame; "b" is 0.5 px off, "c" far off, and "b" does not
    track the first frame."""
    frames = np.stack([np.full((HEIGHT, WIDTH, 3), DARKEST + STEP * t, np.uint8) for t in range(T)])
    queries = np.array([[0, 10 + 5 * i, 10 + 10 * i] for i in range(8)], np.float32)
    right = queries[:, None, 1:] + np.stack([2.0 * np.arange(T), np.zeros(T)], -1)
    off_by = {"a": 0.0, "b": 0.5, "c": 30.0}
    sure = np.full((8, T), 0.95, np.float32)
    tracks = {
        name: Tracks((right + np.array([off, 0])).astype(np.float32), sure.copy(), sure.copy())
        for name, off in off_by.items()
    }
    tracks["b"].xy[:, 0] = np.nan
    tracks["a"].visibility[:, 20:] = 0.1
    rules = {name: VisibleRule("v", 0.9) for name in tracks}
    meta = {
        "uri": "s3://clips/grey.mp4",
        "height": HEIGHT,
        "width": WIDTH,
        "frames": T,
        "teachers": {
            name: {"name": name, "visible_rule": "v > 0.9", "licence": "Apache-2.0"}
            for name in tracks
        },
    }
    labels = label(tracks, rules, queries, (HEIGHT, WIDTH), AgreementConfig(min_support=0.5))
    sampler = np.array(["sift"] * 6 + ["uniform"] * 2)
    return Sample(
        "0a1b2c-000000-1", encode_clip(frames, FPS), queries, sampler, tracks, labels, meta
    )
