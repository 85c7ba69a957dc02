"""Photometric: what the student sees changes, where its points are does not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from student.data.batch import TrainClip
from student.data.photometric import blurred, brightened, coloured, noisy, patched, photometric

HEIGHT, WIDTH, FRAMES, POINTS = 40, 60, 8, 30
CHANGES = (coloured, brightened, blurred, noisy)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clip(seed: int = 0) -> TrainClip:
    """Noise, blurred a little, with points anywhere that are all visible."""
    draw = rng(seed)
    frames = cv2.GaussianBlur(
        draw.integers(0, 256, (HEIGHT * FRAMES, WIDTH, 3), np.uint8), (5, 5), 1
    ).reshape(FRAMES, HEIGHT, WIDTH, 3)
    xy = draw.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (POINTS, FRAMES, 2)).astype(np.float32)
    t = draw.integers(FRAMES, size=POINTS)
    queries = np.column_stack([t, xy[np.arange(POINTS), t]]).astype(np.float32)
    everywhere = np.ones((POINTS, FRAMES), bool)
    return TrainClip("key", "shards", frames, queries, xy, everywhere, everywhere, everywhere, True)


def test_strength_0_changes_nothing_and_draws_nothing():
    generator, whole = rng(), clip()
    assert photometric(whole, 0.0, generator) is whole
    assert generator.random() == rng().random()


def test_the_same_seed_gives_the_same_frames_and_another_others():
    one, same, other = (photometric(clip(), 1.0, rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.frames, same.frames)
    np.testing.assert_array_equal(one.visible, same.visible)
    assert (one.frames != other.frames).any()


@pytest.mark.parametrize("seed", range(8))
def test_only_frames_and_what_patches_hide_change(seed):
    before = clip(seed)
    frames, visible = before.frames.copy(), before.visible.copy()
    after = photometric(before, 1.0, rng(seed))
    np.testing.assert_array_equal(before.frames, frames)  # the clip that went in stays as it was
    np.testing.assert_array_equal(before.visible, visible)
    unchanged = {"frames": None, "visible": None}
    assert {**vars(after), **unchanged} == {**vars(before), **unchanged}
    assert (after.frames.dtype, after.frames.shape) == (np.uint8, before.frames.shape)
    assert not (after.visible & ~before.visible).any()


@pytest.mark.parametrize("change", CHANGES)
def test_a_stronger_change_changes_more(change):
    """At 256 px, for which the width of the blur is said."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    sizes = [
        np.mean([np.abs(change(frames, s, rng(i)) - frames.astype(float)).mean() for i in range(8)])
        for s in (0.5, 1.0)
    ]
    assert 0 < sizes[0] < sizes[1]


@pytest.mark.parametrize("change", [coloured, brightened, blurred])
def test_all_but_noise_and_patches_change_equal_frames_equally(change):
    still = np.repeat(clip().frames[:1], 4, 0)
    after = change(still, 1.0, rng(1))
    np.testing.assert_array_equal(after, np.repeat(after[:1], 4, 0))


def test_colour_leaves_grey_as_it_is():
    grey = np.repeat(clip().frames[..., :1], 3, -1)
    assert np.abs(coloured(grey, 1.0, rng()).astype(int) - grey).max() <= 1


def test_brightness_keeps_the_order_of_grey_levels():
    ramp = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, -1)
    for seed in range(8):
        assert (np.diff(brightened(ramp, 1.0, rng(seed))[0, 0, :, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_point_is_hidden_exactly_where_a_patch_covers_its_pixel(seed):
    """On black frames a patch is whatever is not black."""
    black = replace(clip(seed), frames=np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8))
    after = patched(black, 2.0, rng(seed))
    covered = after.frames.any(-1)
    x, y = np.moveaxis(np.floor(black.xy + 0.5).astype(int), -1, 0)
    np.testing.assert_array_equal(after.visible, ~covered[np.arange(FRAMES), y, x])
    asked = np.arange(POINTS), black.queries[:, 0].astype(int)
    assert after.visible[asked].all()  # no patch lies on a query
    assert covered.any()
