"""Clips: planned within shots, spread evenly, the same on every machine; still and dark ones are
left out."""

from hashlib import sha256
from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data

from labeler.clips.choice import (
    ClipConfig,
    analysed_ranges,
    clip_key,
    plan_clips,
    reason_to_leave_out,
)
from labeler.reasons import LEFT_OUT
from labeler.video.encode import EncodeConfig, decode_clip, encode_clip
from teachers import ConfigError

HASH = sha256(b"a video").hexdigest()


def random_case(seed):
    """A video of up to 12 shots, and a config."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum([rng.integers(0, 50), *rng.integers(1, 600, rng.integers(1, 13))])
    shots = [range(int(a), int(b)) for a, b in pairwise(edges)]
    strides = tuple(rng.choice([1, 2, 3, 5], size=rng.integers(1, 4), replace=False).tolist())
    config = ClipConfig(
        frames=int(rng.integers(8, 100)), strides=strides, clips_per_video=int(rng.integers(1, 9))
    )
    return shots, sha256(bytes([seed % 256])).hexdigest(), config


@pytest.mark.parametrize("seed", range(60))
def test_every_plan_keeps_the_rules(seed):
    shots, content_hash, config = random_case(seed)
    plans = plan_clips(shots, content_hash, config)
    assert len(plans) <= config.clips_per_video
    assert [plan.number for plan in plans] == list(range(len(plans)))
    assert plans == plan_clips(shots, content_hash, config)
    for earlier, later in pairwise(plans):
        assert earlier.indices[-1] < later.start, "clips overlap"
    for plan in plans:
        home = [shot for shot in shots if plan.start in shot]
        assert len(home) == 1, "a clip starts outside the shots"
        assert plan.indices[-1] in home[0], "a clip crosses a cut"
        assert plan.stride in config.strides
        assert len(plan.indices) == plan.frames
        assert config.min_frames <= plan.frames <= config.frames
        if plan.frames < config.frames:
            assert plan.stride == min(config.strides), (
                "a shorter clip although a smaller stride was left"
            )
            assert sum(other.start in home[0] for other in plans) == 1, (
                "a shot was divided into short clips"
            )


@pytest.mark.parametrize("seed", range(60))
def test_clips_are_left_only_when_the_video_has_no_more_room(seed):
    shots, content_hash, config = random_case(seed)
    plans = plan_clips(shots, content_hash, config)
    if len(plans) < config.clips_per_video:
        shortest = min(config.strides)
        for shot in shots:
            taken = sum(plan.start in shot for plan in plans)
            room = -(-(len(shot) // (taken + 1)) // shortest)
            assert room < (config.frames if taken else config.min_frames)


def test_one_long_shot_is_divided_evenly():
    plans = plan_clips([range(400)], HASH, ClipConfig(strides=(1,)))
    assert [(plan.start, plan.frames) for plan in plans] == [
        (10, 80),
        (110, 80),
        (210, 80),
        (310, 80),
    ]


def test_the_longest_shots_get_the_clips():
    plans = plan_clips(
        [range(100), range(100, 110), range(110, 400), range(400, 405)],
        HASH,
        ClipConfig(strides=(1,)),
    )
    # one of 80 in the first shot, three in the third, none elsewhere
    assert [plan.start // 10 for plan in plans] == [
        1,
        11,
        21,
        31,
    ]
    assert all(plan.frames == 80 for plan in plans)


def test_short_shots_give_short_clips_where_there_is_nothing_longer():
    plans = plan_clips([range(30), range(30, 37), range(37, 57)], HASH, ClipConfig())
    assert [(plan.start, plan.stride, plan.frames) for plan in plans] == [(0, 1, 30), (37, 1, 20)]


def test_a_video_without_shots_has_no_clips():
    assert plan_clips([], HASH, ClipConfig()) == []
    assert plan_clips([range(7)], HASH, ClipConfig()) == []


def test_all_strides_are_drawn_and_do_not_depend_on_the_other_clips():
    config = ClipConfig(frames=8)
    drawn = [
        [plan.stride for plan in plan_clips([range(200)], sha256(bytes([i])).hexdigest(), config)]
        for i in range(100)
    ]
    shares = np.bincount(np.ravel(drawn), minlength=4)[1:] / 400
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)
    assert (
        plan_clips([range(200)], HASH, config)[0].stride
        == plan_clips([range(900)], HASH, config)[0].stride
    )


def test_a_key_is_stable_and_has_no_dot():
    assert clip_key(HASH, 123, 2) == f"{HASH[:16]}-f000123-s2"
    assert "." not in clip_key(HASH, 12345678, 3)


@pytest.mark.parametrize("length", [0, 1, 2999, 3000, 3001, 3500, 100_000])
def test_the_frames_analysed_are_bounded_spread_and_inside_the_video(length):
    ranges = analysed_ranges(length, ClipConfig())
    assert sum(map(len, ranges)) == min(length, 3000)
    assert all(window.start >= 0 and window.stop <= length for window in ranges)
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    if length > 3000:
        assert len(ranges) == 4
        margins = [ranges[0].start, length - ranges[-1].stop]
        assert abs(margins[0] - margins[1]) <= 2, "windows are off the middle"


def test_a_long_video_of_one_shot_gives_a_clip_from_each_window():
    windows = analysed_ranges(100_000, ClipConfig())
    plans = plan_clips(windows, HASH, ClipConfig())
    assert [any(plan.start in window for plan in plans) for window in windows] == [True] * 4


def still(noise=0.0, levels=255, length=30):
    """A camera on a tripod before a photo: uint8 [T, 96, 128, 3], with sensor noise, as it comes
    out of an H.264 file."""
    rng = np.random.default_rng(0)
    photo = cv2.resize(skimage.data.coffee(), (128, 96), interpolation=cv2.INTER_AREA) * (
        levels / 255
    )
    frames = np.stack(
        [np.clip(photo + rng.normal(0, noise, photo.shape), 0, 255) for _ in range(length)]
    ).astype(np.uint8)
    return frames


def coded(frames, crf):
    return decode_clip(encode_clip(frames, 25, EncodeConfig(crf=crf)))


@pytest.mark.parametrize("crf", [18, 28])
@pytest.mark.parametrize("noise", [0, 4])
def test_a_still_clip_is_static_whatever_the_noise_of_sensor_and_codec(noise, crf):
    reason, detail = reason_to_leave_out(coded(still(noise), crf), ClipConfig())
    assert reason == "static"
    assert "nothing moves in frames 0-29" in detail


@pytest.mark.parametrize("size_px", [4, 8])
def test_a_small_thing_that_moves_before_a_still_camera_is_worth_a_label(size_px):
    frames = still(noise=2)
    for t, frame in enumerate(frames):
        frame[40 : 40 + size_px, 2 * t : 2 * t + size_px] = 255
    assert reason_to_leave_out(coded(frames, 18), ClipConfig()) is None


def test_a_moving_camera_is_worth_a_label():
    photo = skimage.data.coffee()
    frames = np.stack([photo[100:196, 100 + t : 228 + t] for t in range(8)])
    assert reason_to_leave_out(frames, ClipConfig()) is None


def test_a_near_black_clip_is_dark_even_where_it_moves():
    frames = np.stack(
        [np.roll(frame, t, axis=1) for t, frame in enumerate(still(noise=2, levels=12))]
    )
    reason, detail = reason_to_leave_out(frames, ClipConfig())
    assert reason == "dark"
    assert "99 % of the pixels are at or below" in detail


def test_lamps_at_night_are_not_dark():
    frames = still(levels=12)
    for t, frame in enumerate(frames):
        frame[10:30, 2 * t : 2 * t + 20] = 200
    assert reason_to_leave_out(frames, ClipConfig()) is None


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (8, 16, 16, 3), (8, 4, 100, 3)])
def test_tiny_clips_are_judged_too(shape):
    assert reason_to_leave_out(np.full(shape, 128, np.uint8), ClipConfig())[0] == "static"
    assert reason_to_leave_out(np.zeros(shape, np.uint8), ClipConfig())[0] == "dark"


def test_thresholds_of_zero_keep_every_clip():
    config = ClipConfig(static_levels=0, dark_levels=0)
    assert reason_to_leave_out(np.zeros((8, 16, 16, 3), np.uint8), config) is None


def test_the_reasons_are_words_of_the_accounts():
    assert {"static", "dark"} <= set(LEFT_OUT)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strides": ()}, "strides"),
        ({"strides": (0, 1)}, "strides"),
        ({"min_frames": 81}, "min_frames = 81, frames = 80"),
        ({"clips_per_video": 0}, "clips_per_video = 0"),
        ({"short_side": 4}, "short_side = 4"),
        ({"analysed_frames": 10}, "analysed_frames = 10"),
        ({"dark_levels": 300}, "dark_levels = 300"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ClipConfig(**settings)
