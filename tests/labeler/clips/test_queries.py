"""Queries lie inside the clip, are the same for the same seed, and the SIFT ones are those of
CoTracker3's script."""

import random

import cv2
import numpy as np
import pytest
import skimage.data

from labeler.clips.queries import (
    QueryConfig,
    grid,
    motion,
    motion_weights,
    read_queries,
    sample_queries,
    sift,
    sift_keypoints,
    uniform,
)
from teachers import ConfigError
from teachers.tracks import checked_queries
from tests.support import parity

SIFT = parity.case("ct3_sift_queries")


@pytest.fixture(scope="module")
def clip():
    """A drifting texture with a disc before it: uint8 [8, 96, 128, 3]."""
    return parity.video(seed=50, T=8, H=96, W=128, vx=1.3, vy=0.8)


def walker(length=12, side_px=12, step_px=6):
    """A square that walks to the right before a still photo, and where it is: uint8
    [T, 96, 128, 3], [T] its left side."""
    photo = cv2.resize(skimage.data.coffee(), (128, 96), interpolation=cv2.INTER_AREA)
    lefts = 10 + step_px * np.arange(length)
    frames = np.repeat(photo[None], length, axis=0)
    for frame, left in zip(frames, lefts, strict=True):
        frame[40 : 40 + side_px, left : left + side_px] = (255, 0, 255)
    return frames, lefts


@pytest.mark.parametrize(
    "number",
    [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 2, 3],
)
def test_sift_points_are_those_of_the_official_script(number):
    call = SIFT.meta["calls"][number]
    frames = parity.video(**call["video"])
    np.testing.assert_array_equal(parity.probe(frames), SIFT[f"video_probe{number}"])
    n_frames = call.get("num_sampled_frames", 8)
    # the script draws with replacement, from Python's own generator
    draw = random.Random(call["python_random_seed"])
    drawn = [
        draw.randint(0, int(len(frames) * call.get("sampling_length_percent", 0.25)))
        for _ in range(n_frames)
    ]
    assert drawn == SIFT[f"frames{number}"].tolist()
    points = sift_keypoints(frames, drawn, call["size"] // n_frames)[: call["size"]]
    np.testing.assert_array_equal(np.trunc(points[:, :3]), SIFT[f"points{number}"])
    distinct = sift_keypoints(frames, sorted(set(drawn)), call["size"] // n_frames)
    np.testing.assert_array_equal(
        distinct.astype(np.float32), SIFT[f"keypoints{number}"][:, [0, 1, 2, 4]]
    )


def test_sift_does_not_depend_on_the_number_of_threads(clip):
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found.append(sift_keypoints(clip, [0, 5], 50))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*found)


def test_sift_takes_distinct_points_of_eight_distinct_frames_of_the_first_quarter():
    frames = np.repeat(parity.video(seed=51, T=1, H=96, W=128, vx=1, vy=0), 48, axis=0)
    points = sift(frames, 200, np.random.default_rng(0))
    assert len(np.unique(points[:, 0])) == 8
    assert points[:, 0].max() <= 12
    assert len(np.unique(points, axis=0)) == len(points)
    assert 100 < len(points) <= 200


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (8, 16, 16, 3), (8, 16, 300, 3), (30, 64, 48, 3)])
@pytest.mark.parametrize("content", ["black", "noise"])
@pytest.mark.parametrize("count", [0, 1, 7, 1024])
def test_every_query_lies_inside_the_clip(shape, content, count):
    rng = np.random.default_rng(1)
    frames = (
        np.zeros(shape, np.uint8)
        if content == "black"
        else rng.integers(0, 256, shape, dtype=np.uint8)
    )
    queries = sample_queries(
        frames, QueryConfig(count=count, sift=0.5, motion=0.2, grid=0.1), seed=2
    )
    assert queries.points.dtype == np.float32
    assert queries.points.shape == (count, 3)
    assert queries.sampler.shape == (count,)
    assert queries.sampler.dtype.kind == "U"
    checked_queries(queries.points, shape)  # whole t, inside the frame
    np.testing.assert_array_equal(queries.points * 64, np.round(queries.points * 64))
    assert (queries.points[:, 1:] >= 0).all()
    assert (queries.points[:, 1:] <= (shape[2] - 1, shape[1] - 1)).all()


def test_shares_are_kept_and_a_shortage_is_filled_with_uniform_points(clip):
    def counts(frames, **settings):
        names, numbers = np.unique(
            sample_queries(frames, QueryConfig(**settings), seed=0).sampler, return_counts=True
        )
        return dict(zip(names.tolist(), numbers.tolist(), strict=True))

    assert counts(clip, count=80, sift=0, motion=0.5, grid=0.25) == {
        "grid": 20,
        "motion": 40,
        "uniform": 20,
    }
    assert counts(clip, count=3, sift=0, motion=0.5, grid=0.5) == {"grid": 2, "motion": 1}
    flat = np.full((8, 64, 64, 3), 90, np.uint8)
    assert counts(flat) == {"uniform": 1024}
    still = np.repeat(clip[:1], 8, axis=0)
    found = counts(still, count=64)
    assert set(found) == {"sift", "uniform"}
    assert sum(found.values()) == 64


def test_three_quarters_are_sift_where_there_is_texture():
    photo = cv2.resize(skimage.data.coffee(), (576, 384), interpolation=cv2.INTER_AREA)
    queries = sample_queries(np.repeat(photo[None], 16, axis=0), QueryConfig(count=400), seed=0)
    assert np.mean(queries.sampler == "sift") == 0.75


def test_the_strongest_sift_points_are_taken(clip):
    every = sift_keypoints(clip, [0], 10_000)
    points = sift(clip, 20, np.random.default_rng(0), n_frames=1, part=0)
    weakest_taken, strongest_left = np.inf, -np.inf
    taken = {tuple(point) for point in points[:, 1:].tolist()}
    for _, x, y, response in every:
        if (round(x * 64) / 64, round(y * 64) / 64) in taken:
            weakest_taken = min(weakest_taken, response)
        else:
            strongest_left = max(strongest_left, response)
    assert len(points) == 20
    assert weakest_taken >= strongest_left


def test_equal_seeds_give_equal_queries(clip):
    one, same, other = (
        sample_queries(clip, QueryConfig(count=50), seed)
        for seed in (3, np.random.default_rng(3), 4)
    )
    np.testing.assert_array_equal(one.points, same.points)
    np.testing.assert_array_equal(one.sampler, same.sampler)
    assert not np.array_equal(one.points, other.points)


def test_motion_points_lie_on_what_moves_and_on_what_it_covers_and_uncovers():
    frames, lefts = walker(side_px=12, step_px=6)
    t, x, y = motion(frames, 1000, np.random.default_rng(0)).T
    from_left = x - lefts[t.astype(int)]
    assert from_left.min() > -6 - 1
    assert from_left.max() < 12 + 6
    assert 39 < y.min() <= y.max() < 52
    on_it = (from_left > -0.5) & (from_left < 11.5)
    assert 0.4 < on_it.mean() < 0.6
    assert set(t) == set(range(len(frames)))


def test_coding_noise_is_no_motion():
    rng = np.random.default_rng(0)
    noisy = (120 + rng.integers(-1, 2, (8, 64, 64, 3))).astype(np.uint8)
    assert motion_weights(noisy).sum() == 0
    assert motion(noisy, 10, rng).shape == (0, 3)


def test_uniform_points_cover_frames_and_places_evenly():
    points = uniform((10, 48, 64, 3), 20_000, np.random.default_rng(0))
    shares = (
        np.histogramdd(points, bins=(10, 4, 4), range=((-0.5, 9.5), (0, 63), (0, 47)))[0] / 20_000
    )
    np.testing.assert_allclose(shares, 1 / 160, atol=0.003)


def test_a_grid_by_hand():
    np.testing.assert_array_equal(grid((5, 4, 8, 3), 2), [[0, 1.5, 1.5], [0, 5.5, 1.5]])
    np.testing.assert_array_equal(
        grid((5, 4, 8, 3), 8, t=3),
        [[3, x, y] for y in (0.5, 2.5) for x in (0.5, 2.5, 4.5, 6.5)],
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 100])
@pytest.mark.parametrize("size", [(16, 16), (16, 640), (640, 16)])
def test_a_grid_has_as_many_distinct_points_as_asked(size, count):
    assert len(np.unique(grid((1, *size, 3), count), axis=0)) == count


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": -1}, "count = -1"),
        ({"sift": 0.8, "motion": 0.3}, "sift = 0.8, motion = 0.3"),
        ({"grid": -0.1}, "grid = -0.1"),
        ({"sift": float("nan")}, "sift = nan"),
        ({"motion": float("nan")}, "motion = nan"),
        ({"sift_frames": 0}, "sift_frames = 0"),
        ({"sift_part": 1.5}, r"sift_part = 1\.5"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        QueryConfig(**settings)


def test_queries_are_read_from_npz_and_csv(tmp_path):
    points = np.array([[0, 1.5, 2.25], [7, 0, -0.5]], np.float32)
    np.savez(tmp_path / "q.npz", queries=points)
    (tmp_path / "q.csv").write_text("name, t, x, y\r\nnose, 0, 1.5, 2.25\r\near, 7, 0, -0.5\r\n")
    for name in ("q.npz", "q.csv"):
        read = read_queries(tmp_path / name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, points)


def test_a_file_without_queries_is_an_empty_list(tmp_path):
    np.savez(tmp_path / "q.npz", queries=np.zeros((0, 3)))
    (tmp_path / "q.csv").write_text("t,x,y\n")
    assert (
        read_queries(tmp_path / "q.npz").shape == read_queries(tmp_path / "q.csv").shape == (0, 3)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column t, x, y"),
        ("t,x\n0,1\n", "no column y: its first line must name"),
        ("t,x,y\n0,1,2\n0,one,2\n", r"line 3: t, x, y are \['0', 'one', '2'\]"),
        ("t,x,y\n0,1\n", "line 2"),
        ("t,x,y\n0,nan,2\n", r"query 0 is \[0\.0, nan, 2\.0\]"),
    ],
)
def test_a_bad_csv_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_queries(tmp_path / "q.csv")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"points": np.zeros((2, 3))}, "no array `queries`, only points"),
        ({"queries": np.zeros((2, 2))}, r"shape \(2, 2\): it must be \[N, 3\]"),
        ({"queries": np.array([["a", "b", "c"]])}, "not a readable npz of numbers"),
        ({"queries": np.array([None, 1, 2], object)}, "not a readable npz of numbers"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "q.npz", **arrays)
    with pytest.raises(ConfigError, match=words):
        read_queries(tmp_path / "q.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "q.npz").write_bytes(b"no zip")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "q.txt").write_text("0 1 2")
    (tmp_path / "q.csv").write_bytes(b"\x89PNG")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros((2, 3)))
    for name in ("q.npz", "cut.npz", "one.npz"):
        with pytest.raises(ConfigError, match="not a readable npz"):
            read_queries(tmp_path / name)
    with pytest.raises(ConfigError, match=r"q\.csv: not a readable csv"):
        read_queries(tmp_path / "q.csv")
    with pytest.raises(ConfigError, match=r"from \.npz or \.csv, not '\.txt'"):
        read_queries(tmp_path / "q.txt")
    with pytest.raises(ConfigError, match="no such file"):
        read_queries(tmp_path / "none.csv")


def test_sift_over_the_whole_clip_has_a_frame_in_each_equal_part():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 64, 3), dtype=np.uint8)
    found = sift(noise, 64, np.random.default_rng(0), 8, 1.0)
    drawn = np.unique(found[:, 0])
    assert (drawn // 8).tolist() == list(range(8))
    assert (
        len({tuple(sift(noise, 8, np.random.default_rng(s), 8, 1.0)[:, 0]) for s in range(5)}) > 1
    )
