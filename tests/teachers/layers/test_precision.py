"""bf16 is asked for by name, is recorded, and leaves the tracks near those of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import teachers

NAMES = [
    "cotracker3-offline",
    "cotracker3-online",
    "cotracker2",
    "tapir",
    "bootstapir",
    "bootstapir-causal",
    "pips",
    "pips2",
    "tapnext",
    "locotrack-base",
    "alltracker",
    "alltracker-tiny",
]
TWINS = {"cotracker3-online", "bootstapir", "bootstapir-causal"}
"""Of these another one has the same parts in bf16."""


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_off_unless_asked_for_and_recorded(name):
    plain, fast = (
        teachers.load(name, checkpoint="random", device="cpu", preset="mini", **given)
        for given in ({}, {"bf16": True})
    )
    assert plain.info.settings["bf16"] is False
    assert fast.info.settings["bf16"] is True


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TWINS])
def test_bf16_moves_tracks_by_a_fraction_of_a_pixel(name):
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
    queries = np.array([[0, 30, 40], [0, 60.5, 50], [0, 20, 70]], np.float32)
    plain, fast = (
        teachers.load(name, checkpoint="random", device="cpu", preset="mini", bf16=bf16)
        for bf16 in (False, True)
    )
    exact, near = plain.track(frames, queries).xy, fast.track(frames, queries).xy
    assert near.dtype == np.float32
    assert not np.array_equal(near, exact)
    np.testing.assert_allclose(near, exact, atol=0.25)


def test_what_is_matched_stays_float32_in_tapir():
    frames = torch.randint(
        256, (1, 3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    queries = torch.tensor([[[0.0, 20.0, 30.0]]])
    plain, fast = (
        teachers.load("tapir", checkpoint="random", device="cpu", preset="mini", bf16=bf16).model
        for bf16 in (False, True)
    )
    with torch.inference_mode():
        torch.testing.assert_close(
            fast(frames, queries).steps[0], plain(frames, queries).steps[0], atol=0, rtol=0
        )
