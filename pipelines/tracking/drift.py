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
"""The seed of a clip that nothing is trained on."""


@dataclass(frozen=True)
class Drift:
    """How far the tracks in a precision are from those in float32."""

    precision: Precision
    """The precision that was computed in."""
    device: str
    """The device of the teacher: see `TeacherInfo`."""
    median_px: float
    """px of the 256 x 256 raster, over the positions that both have; NaN, as the next two, if there
    are none."""
    high_px: float
    """95 % of the distances are below this."""
    most_px: float
    flags: float
    """Share of the points and frames whose visibility flag changes."""


def drifts(name: str, checkpoint: str | None = None, device: str = "auto") -> list[Drift]:
    """The drift in each precision that the teacher has on that device, except float32.

    Raises:
        ConfigError: there is no such teacher, or it has no network.
        CheckpointError: its weights are not here.
    """
    scene = SynthConfig(frames=24, points=128, query_frame="random", split="test")
    return drifts_on(generate(SEED, scene), name, checkpoint, device)


def drifts_on(
    clip: TestClip, name: str, checkpoint: str | None = None, device: str = "auto"
) -> list[Drift]:
    """`drifts`, on a clip that you choose."""
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
            continue  # no part of the network can
        here = other.track(clip.frames, clip.queries)
        moved = np.hypot(
            *np.moveaxis((here.xy - there.xy) * (RASTER / width, RASTER / height), -1, 0)
        )
        known = moved[np.isfinite(moved)]
        if not len(known):
            known = np.array([np.nan])
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
