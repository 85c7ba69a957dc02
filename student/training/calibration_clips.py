"""Calibration clips: those on which what fits a student is chosen at the end of its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import nlargest
from itertools import islice
from typing import TypeAlias

import numpy as np

from student.clip import TestClip
from student.data.batch import Batch
from student.data.mixture import batches
from student.synth.scene import SynthConfig, generate
from student.training.config import TrainConfig

SEED, POINTS = 900_000_000, 128
DRAWN = 4
"""Times as many whole clips are drawn as are taken."""
Part: TypeAlias = tuple[TestClip, np.ndarray]
"""A clip, and where its tracks are known, bool [N, T]."""


def calibration_clips(
    config: TrainConfig, whole: bool = False
) -> tuple[list[TestClip], list[np.ndarray]]:
    """Clips on which is chosen what fits the student, each with the points and frames for which the
    truth is known, bool [N, T].

    They are clips that the student learns from: parts of the stored clips with their labels, as the
    student sees them, except for what `photometric` changes; or `whole` frames of stored clips,
    each clip once, the largest of `DRAWN` times as many, since details tell more. Without stored
    labels, they are procedural clips, which no training draws.
    """
    data = config.data
    if config.learns_from_labels:
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
        stream, wanted = batches(clean, SEED, whole=whole), config.calibration_clips
        if whole:
            parts = largest(map(_labelled_clip, islice(stream, DRAWN * wanted)), wanted)
        else:
            parts = [_labelled_clip(batch) for batch in islice(stream, wanted)]
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


def largest(parts: Iterable[Part], most: int) -> list[Part]:
    """At most so many parts, of the clips whose shorter sides are longest; one of each clip, the
    first."""
    seen = set[str]()

    def new(part: Part) -> bool:
        first = part[0].name not in seen
        seen.add(part[0].name)
        return first

    return nlargest(most, filter(new, parts), key=lambda part: min(part[0].frames.shape[1:3]))


def _labelled_clip(batch: Batch) -> Part:
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
