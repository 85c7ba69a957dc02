"""Clips with exact tracks, to train on: a part of a Kubric sequence, or a procedural clip."""

from __future__ import annotations

import numpy as np

from student.data.augment import LARGEST_SCALE, UnusableSample, augment, scale_to_fill
from student.data.batch import Source, TrainClip
from student.evaluation.kubric import KubricSequence, decoded, fetched
from student.synth.scene import SynthConfig, generate
from teachers.errors import ConfigError, ShardError


def training_clip(
    sequence: KubricSequence,
    frames: int,
    size_hw: tuple[int, int],
    queries: int,
    *,
    rng: np.random.Generator,
    flip: bool,
) -> TrainClip:
    """A random part of a sequence, as the procedural generator's clips are: exact tracks, each
    queried in a random visible frame.

    Args:
        frames, size_hw: of the part; a shorter sequence goes on backwards, a smaller one is
            enlarged.
        queries: points of the part, drawn from those that are ever visible in it.
        flip: mirror half of the parts.

    Raises:
        UnusableSample: no point is visible in the part, or what the files hold is damaged.
        ShardError: files are missing. ConfigError: the sequence is far too small for `size_hw`.
    """
    files = fetched(sequence)
    try:
        pictures, xy, visible = decoded(sequence, files)
    except ShardError as error:
        raise UnusableSample("corrupt") from error
    if scale_to_fill(pictures.shape[1:3], size_hw) > LARGEST_SCALE:
        height, width = pictures.shape[1:3]
        raise ConfigError(
            f"{sequence.url}: {width} x {height} px are too small for a crop of {size_hw[1]} x "
            f"{size_hw[0]} px even when enlarged {LARGEST_SCALE:g} times: take a smaller crop."
        )
    # so that each query is based anew, in a random frame
    nowhere = np.full((len(xy), 3), (0, np.nan, np.nan), np.float32)
    whole = exact_clip(f"kubric-{sequence.name}", "kubric", pictures, nowhere, xy, visible)
    return augment(whole, frames, size_hw, queries, flip, rng)


def procedural_clip(key: str, seed: int, config: SynthConfig) -> TrainClip:
    """The procedural clip of a seed; raises what `generate` raises."""
    made = generate(seed, config)
    return exact_clip(key, "procedural", made.frames, made.queries, made.xy, made.visible)


def exact_clip(
    key: str,
    source: Source,
    frames: np.ndarray,
    queries: np.ndarray,
    xy: np.ndarray,
    visible: np.ndarray,
) -> TrainClip:
    """A clip of which everything is known, in every frame."""
    everywhere = np.ones_like(visible)
    return TrainClip(key, source, frames, queries, xy, visible, everywhere, everywhere, True)
