"""Calibration clips: those on which a student's visible rule is chosen at the end of its
training."""

from __future__ import annotations

from dataclasses import replace
from heapq import nlargest
from itertools import islice

import numpy as np

from student.clip import TestClip
from student.data.batch import Batch
from student.data.mixture import batches
from student.synth.scene import SynthConfig, generate
from student.training.config import TrainConfig

SEED, POINTS = 900_000_000, 128
DRAWN = 4
"""Times as many whole clips are drawn as are taken."""


def calibration_clips(
    config: TrainConfig, whole: bool = False
) -> tuple[list[TestClip], list[np.ndarray]]:
    """Clips on which is chosen what fits the student, each with the points and frames for which the
    truth is known, bool [N, T].

    They are clips that the student learns from: parts of the stored clips with their labels, as the
    student sees them, except for what `photometric` changes; or their whole frames, and then the
    largest of `DRAWN` times as many, since details tell more. Without stored labels, they are
    procedural clips, which no training draws.
    """
    data = config.data
    if data.data and data.synthetic < 1 and data.labels == "stored":
        clean = replace(
            data,
            photometric=0.0,
            procedural=0.0,
            kubric=None,
            kubric_share=0.0,
            least_frames=None,
            queries=POINTS,
            batch=1,
            at_once=1,
            readers=0,
        )
        wanted = config.calibration_clips
        drawn = islice(batches(clean, SEED, whole=whole), DRAWN * wanted if whole else wanted)
        parts = nlargest(wanted, map(_labelled_clip, drawn), key=_short_side)
        return [clip for clip, _ in parts], [known for _, known in parts]
    scene = SynthConfig(  # smaller ones would be nearly all edge
        frames=data.frames,
        height=max(64, data.height),
        width=max(64, data.width),
        points=POINTS,
    )
    seeds = range(SEED, SEED + config.calibration_clips)
    clips: list[TestClip] = [generate(seed, scene) for seed in seeds]
    return clips, [np.ones_like(clip.visible) for clip in clips]


def _short_side(part: tuple[TestClip, np.ndarray]) -> int:
    return min(part[0].frames.shape[1:3])


def _labelled_clip(batch: Batch) -> tuple[TestClip, np.ndarray]:
    """A batch of one clip as a clip with tracks, and where these are known."""
    frames, queries, xy, visible, known = (
        each[0].numpy()
        for each in (
            batch.frames,
            batch.queries,
            batch.xy,
            batch.visible & batch.valid,
            batch.visibility_valid,
        )
    )
    return TestClip(batch.keys[0], frames, queries, xy, visible), known
