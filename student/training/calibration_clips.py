"""Calibration clips: those on which what fits a student is chosen at the end of its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import nlargest
from itertools import islice
from typing import TypeAlias

import numpy as np

from labeler.labels.trust import TrustConfig
from student.clip import TestClip
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.synth.scene import SynthConfig, generate
from student.training.config import TrainConfig
from teachers.errors import ConfigError

SEED, POINTS = 900_000_000, 128
EVERY = TrustConfig(min_right=0.01, min_hidden=0.5)
"""Of the verifier: takes what is more probable, in every frame."""
DRAWN = 4
"""Times as many whole clips are drawn as are taken."""
Part: TypeAlias = tuple[TestClip, np.ndarray]
"""A clip, and how certain its tracks are, float [N, T]; see `calibrated`."""


def calibration_clips(
    config: TrainConfig, whole: bool = False
) -> tuple[list[TestClip], list[np.ndarray]]:
    """Clips on which is chosen what fits the student, each with the certainty of its tracks, float
    [N, T]; see `calibrated`.

    They are clips that the student learns from: parts of the stored clips, as the student sees
    them, except for what `photometric` changes; or `whole` frames of stored clips, each clip once,
    the largest of `DRAWN` times as many, since details tell more. Whole frames have the labels of
    the policy. Parts have them too if no verifier judged the clips; else they say of every frame
    what the verifier holds probable, since frames that a policy leaves out are often those in which
    the point is hidden or lost, and a rule that is chosen without them calls too much visible.
    Without stored labels, they are procedural clips, which no training draws.
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
        if whole:
            stream = islice(batches(clean, SEED, whole=True), DRAWN * wanted)
            parts = largest(map(_labelled_clip, stream), wanted)
        else:
            parts = _parts(clean, wanted)
        return [clip for clip, _ in parts], [certainty for _, certainty in parts]
    scene = SynthConfig(  # smaller ones would be nearly all edge
        frames=data.frames,
        height=max(64, data.height),
        width=max(64, data.width),
        points=POINTS,
    )
    seeds = range(SEED, SEED + config.calibration_clips)
    clips: list[TestClip] = [generate(seed, scene) for seed in seeds]
    return clips, [np.ones(clip.visible.shape, np.float32) for clip in clips]


def _parts(data: DataConfig, wanted: int) -> list[Part]:
    """Parts of clips with what the verifier expects, or where it judged none, with labels."""
    expected = replace(data, policy="verified", trust=EVERY, weigh=True)
    try:
        return [_expected_clip(batch) for batch in islice(batches(expected, SEED), wanted)]
    except ConfigError:
        return [_labelled_clip(batch) for batch in islice(batches(data, SEED), wanted)]


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
    """A batch of one clip; certain is what a label says."""
    known = batch.visibility_valid[0].numpy()
    return _clip(batch), np.where(known, np.float32(1), np.float32(np.nan))


def _expected_clip(batch: Batch) -> Part:
    """A batch of one clip; a frame without a label is one in which nothing visible can be found."""
    return _clip(batch), batch.weight[0].numpy()


def _clip(batch: Batch) -> TestClip:
    visible = batch.visible & batch.valid
    parts = batch.frames, batch.queries, batch.xy, visible
    return TestClip(batch.keys[0], *(each[0].numpy() for each in parts))
