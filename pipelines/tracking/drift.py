"""Drift: how far a teacher's tracks move when its network multiplies less exactly.

The published networks were trained in float32. What tf32 and bf16 do to their tracks depends on
their weights, so it is measured with the weights that are here, on the machine that is here, on a
procedural clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

import teachers
from labeler.labels.agreement import RASTER
from student.clip import TestClip
from student.synth.scene import SynthConfig, generate
from teachers import ConfigError, Teacher
from teachers.info import Precision
from teachers.loading import settings_of
from teachers.registry import declared

SEED = 600_000_000
"""Of a clip that nothing is trained on."""


@dataclass(frozen=True)
class Drift:
    """How far the tracks of a precision lie from those of float32."""

    precision: Precision
    """That was computed in."""
    device: str
    """Of the teacher: see `TeacherInfo`."""
    median_px: float
    """px of the 256 x 256 raster, over frames that both have."""
    high_px: float
    """95 % lie below it."""
    most_px: float
    flags: float
    """Share of the frames whose flag of visibility changes."""


def drifts(name: str, checkpoint: str | None = None, device: str = "auto") -> list[Drift]:
    """Of each precision that the teacher has on that device, but float32.

    Raises:
        ConfigError: no such teacher, or one without a network. CheckpointError: no weights.
    """
    scene = SynthConfig(frames=24, points=128, query_frame="random", split="test")
    return drifts_on(generate(SEED, scene), name, checkpoint, device)


def drifts_on(
    clip: TestClip, name: str, checkpoint: str | None = None, device: str = "auto"
) -> list[Drift]:
    """`drifts`, on a clip of one's own."""
    if "precision" not in settings_of(declared(name)):
        raise ConfigError(f"teacher {name!r} has no network that could multiply less exactly.")

    def load(precision: Precision) -> Teacher:
        return teachers.load(name, checkpoint=checkpoint, device=device, precision=precision)

    exact = load("float32")
    there = exact.track(clip.frames, clip.queries)
    height, width = clip.frames.shape[1:3]
    found = []
    for precision in get_args(Precision):
        if precision in ("auto", "float32") or (precision == "tf32" and not exact.info.device):
            continue
        other = load(precision)
        if other.info.precision != precision:
            continue  # no part of it can
        here = other.track(clip.frames, clip.queries)
        moved = np.hypot(
            *np.moveaxis((here.xy - there.xy) * (RASTER / width, RASTER / height), -1, 0)
        )
        known = moved[np.isfinite(moved)]
        flags = exact.info.rule(there) != other.info.rule(here)
        found.append(
            Drift(
                precision,
                other.info.device,
                float(np.median(known)),
                float(np.quantile(known, 0.95)),
                float(known.max()),
                float(flags.mean()),
            )
        )
    return found
