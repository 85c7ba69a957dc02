"""Augment: every pixel carries its own place and frame as its colour, so where a label went is read
back from the picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from student.data.augment import (
    Crop,
    Region,
    UnusableSample,
    at_crop,
    at_frames,
    augment,
    chosen,
    crop_of,
    flipped,
    part_of,
    requeried,
    resized_to_hold,
    scale_to_fill,
    seen,
    subsequence,
    views,
)
from student.data.batch import TrainClip
from teachers.tracks import inside

HEIGHT, WIDTH, FRAMES, POINTS = 40, 60, 10, 30
LEVELS_PX, LEVELS_FRAME = 4, 20
"""Grey levels of one px, and of one frame."""
SEEDS = range(6)


def painted(frames: int = FRAMES) -> np.ndarray:
    """uint8 [T, H, W, 3]: red is 4 x, green is 4 y, blue is 20 t."""
    t, y, x = np.mgrid[:frames, :HEIGHT, :WIDTH]
    return np.stack([LEVELS_PX * x, LEVELS_PX * y, LEVELS_FRAME * t], -1).astype(np.uint8)


def clip(seed: int = 0, frames: int = FRAMES, n: int = POINTS) -> TrainClip:
    """Points that drift; a query lies on its track; every fifth frame of a point is occluded, every
    seventh unused."""
    rng = np.random.default_rng(seed)
    start, speed = (
        rng.uniform((10, 10), (WIDTH - 11, HEIGHT - 11), (n, 2)),
        rng.uniform(-0.8, 0.8, (n, 2)),
    )
    xy = (start[:, None] + speed[:, None] * np.arange(frames)[:, None]).astype(np.float32)
    t = rng.integers(frames, size=n)
    number = np.arange(n)[:, None] + np.arange(frames)
    used = number % 7 != 0
    queries = np.column_stack([t, xy[np.arange(n), t]]).astype(np.float32)
    visible = used & (number % 5 != 0)
    return TrainClip("key", "shards", painted(frames), queries, xy, visible, used, used, True)


def shown(picture: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(x, y) px and frame [M, 3] of the source, read from one frame's colours at the places
    [M, 2]."""
    at = np.ascontiguousarray(xy, np.float32)[:, None]
    colours = cv2.remap(
        picture.astype(np.float32), at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]
    return colours / (LEVELS_PX, LEVELS_PX, LEVELS_FRAME)


def off_the_edge(xy: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Where colours can be read between pixels: a pixel away from the border."""
    return ((xy > 1) & (xy < (picture.shape[1] - 2, picture.shape[0] - 2))).all(-1)


def enlarged(it, crop_hw, scale=1.0):
    size = it.frames.shape[1:3]
    resized = resized_to_hold(size, crop_hw, scale)
    return at_crop(it, Crop(size, resized, Region(0, 0, *resized)))


def cropped(it, crop_hw, rng):
    return at_crop(it, crop_of(it.frames.shape[1:3], crop_hw, rng))


STEPS = {
    "sub-sequence": lambda it, rng: subsequence(it, 6, rng),
    "extended": lambda it, rng: subsequence(it, 27, rng),
    "at stride 3": lambda it, rng: subsequence(it, 3, rng, (3,)),
    "at any stride, extended": lambda it, rng: subsequence(it, 12, rng, (2, 3)),
    "enlarged": lambda it, rng: enlarged(it, (64, 70)),
    "shrunk": lambda it, rng: enlarged(it, (24, 32), 0.7),
    "squeezed": lambda it, rng: at_crop(
        it, crop_of(it.frames.shape[1:3], (24, 32), rng, squeeze=4.0)
    ),
    "cropped": lambda it, rng: cropped(it, (24, 32), rng),
    "flipped": lambda it, rng: flipped(it),
    "all": lambda it, rng: flipped(
        cropped(enlarged(subsequence(it, 16, rng), (50, 64)), (50, 64), rng)
    ),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_point_shows_the_same_place_as_before(step, seed):
    before = clip(seed)
    after = STEPS[step](before, np.random.default_rng(seed))
    read = 0
    for t, picture in enumerate(np.ascontiguousarray(after.frames)):
        rows = np.flatnonzero(off_the_edge(after.xy[:, t], picture))
        x, y, frame = shown(picture, after.xy[rows, t]).T
        source = int(np.rint(frame[0]))
        # 8-bit levels: 1/8 px, twice rounded
        np.testing.assert_allclose(np.stack([x, y], -1), before.xy[rows, source], atol=0.2)
        np.testing.assert_array_equal(after.valid[rows, t], before.valid[rows, source])
        np.testing.assert_array_equal(after.visible[rows, t], before.visible[rows, source])
        read += len(rows)
    assert read > after.valid.size / 3


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_query_shows_the_same_place_and_frame_as_before(step, seed):
    before = clip(seed)
    after = STEPS[step](before, np.random.default_rng(seed))
    for old, (t, x, y) in zip(before.queries, after.queries, strict=True):
        if t >= 0 and off_the_edge(np.array([x, y]), after.frames[0]):
            seen_x, seen_y, frame = shown(
                np.ascontiguousarray(after.frames[int(t)]), np.array([[x, y]])
            )[0]
            np.testing.assert_allclose([frame, seen_x, seen_y], old, atol=0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frame_takes_its_weight_along(seed):
    weight = np.broadcast_to(np.arange(FRAMES, dtype=np.float32) / FRAMES, (POINTS, FRAMES))
    part = augment(
        replace(clip(seed), weight=weight), 7, (50, 64), 4, True, np.random.default_rng(seed)
    )
    for t, frame in enumerate(part.frames):
        (number,) = {round(float(level) / LEVELS_FRAME) for level in frame[..., 2].ravel()[:1]}
        np.testing.assert_allclose(part.weight[:, t], number / FRAMES, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_together_still_points_show_one_colour(seed):
    # 12 still points, each on a place of its own: whatever the part, all its frames and its query
    # show that place
    rng = np.random.default_rng(seed)
    xy = np.repeat(rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (12, 1, 2)), FRAMES, 1).astype(
        np.float32
    )
    everywhere = np.ones((12, FRAMES), bool)
    queries = np.column_stack([rng.integers(FRAMES, size=12), xy[:, 0]]).astype(np.float32)
    whole = TrainClip(
        "key", "shards", painted(), queries, xy, everywhere, everywhere, everywhere, True
    )
    part = augment(whole, 7, (50, 64), 9, True, rng)
    assert part.frames.shape == (7, 50, 64, 3)
    assert (part.queries.shape, part.xy.shape, part.visible.shape, part.valid.shape) == (
        (9, 3),
        (9, 7, 2),
        (9, 7),
        (9, 7),
    )
    pictures = np.ascontiguousarray(part.frames)
    for row in np.flatnonzero(part.valid.any(1)):
        t, *place = part.queries[row]
        np.testing.assert_allclose(part.xy[row], np.tile(place, (7, 1)), atol=1e-4)
        if off_the_edge(np.array(place), pictures[0]):
            seen = np.array([shown(picture, np.array([place]))[0, :2] for picture in pictures])
            assert np.linalg.norm(xy[:, 0] - seen[int(t)], axis=1).min() < 0.2
            np.testing.assert_allclose(seen, np.tile(seen[0], (7, 1)), atol=1e-4)


def frames_shown(it: TrainClip) -> list[int]:
    return (it.frames[:, 0, 0, 2] // LEVELS_FRAME).tolist()


def test_a_short_clip_is_extended_by_its_reverse():
    there = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4]
    runs = {
        tuple(frames_shown(subsequence(clip(frames=5), 12, np.random.default_rng(seed))))
        for seed in range(40)
    }
    assert runs == {tuple(there[start : start + 12]) for start in range(4)}


def test_a_sub_sequence_starts_anywhere():
    runs = {
        tuple(frames_shown(subsequence(clip(), 8, np.random.default_rng(seed))))
        for seed in range(40)
    }
    assert runs == {tuple(range(start, start + 8)) for start in range(3)}


def test_a_crop_lies_anywhere_up_to_the_border():
    corners = {
        tuple(
            cropped(clip(n=1), (HEIGHT - 1, WIDTH), np.random.default_rng(seed)).frames[0, 0, 0, :2]
        )
        for seed in range(20)
    }
    assert corners == {(0, 0), (0, LEVELS_PX)}


def test_a_mirrored_pixel_lands_on_the_mirrored_pixel():
    one = replace(
        clip(n=1), xy=np.tile(np.float32([3, 5]), (1, FRAMES, 1)), queries=np.float32([[0, 3, 5]])
    )
    np.testing.assert_array_equal(flipped(one).xy[0, 0], [WIDTH - 1 - 3, 5])


def test_a_corner_stays_a_corner_when_enlarged():
    # the corner of the picture is (-0.5, -0.5) at every size, its far one (W - 0.5, H - 0.5)
    one = replace(
        clip(n=1),
        xy=np.tile(np.float32([WIDTH - 0.5, HEIGHT - 0.5]), (1, FRAMES, 1)),
        queries=np.float32([[0, -0.5, -0.5]]),
    )
    large = enlarged(one, (HEIGHT * 2, WIDTH * 2))
    np.testing.assert_array_equal(large.xy[0, 0], [WIDTH * 2 - 0.5, HEIGHT * 2 - 0.5])
    np.testing.assert_array_equal(large.queries[0, 1:], [-0.5, -0.5])


@pytest.mark.parametrize(
    ("crop", "scale"),
    [((20, 30), 1), ((40, 60), 1), ((60, 60), 1.5), ((40, 120), 2), ((81, 60), 81 / 40)],
)
def test_the_tighter_side_decides_how_much_a_clip_is_enlarged(crop, scale):
    assert scale_to_fill((40, 60), crop) == scale


@pytest.mark.parametrize(("squeeze", "least"), [(1.0, 200), (1.5, 133), (9.0, 100)])
def test_the_longer_side_is_squeezed_at_most_as_asked_and_never_below_the_shorter_one(
    squeeze, least
):
    for size in ((100, 200), (200, 100)):
        longer = size.index(200)
        sides = [
            crop_of(size, (40, 40), np.random.default_rng(seed), squeeze=squeeze).resized_hw
            for seed in range(60)
        ]
        assert {side[1 - longer] for side in sides} == {100}
        drawn = [side[longer] for side in sides]
        assert least <= min(drawn) <= least + 10
        assert max(drawn) >= 190


def test_a_square_clip_is_not_squeezed_and_draws_nothing():
    for seed in SEEDS:
        plain, asked = (
            crop_of((90, 90), (40, 40), np.random.default_rng(seed), squeeze=squeeze)
            for squeeze in (1.0, 2.0)
        )
        assert plain == asked


def test_whole_frames_stay_and_points_outside_them_are_occluded():
    it = clip(seed=3)
    it.xy[::2, 1] += 1000
    it.visible[:] = True
    found = at_crop(it, Crop.whole(it.frames.shape[1:3]))
    np.testing.assert_array_equal(found.frames, it.frames)
    np.testing.assert_array_equal(found.xy, it.xy)
    assert not found.visible[::2, 1].any()
    assert found.visible[1::2, 1].any()


def test_a_point_outside_the_crop_is_occluded_and_still_used():
    whole = clip()
    part = cropped(whole, (16, 16), np.random.default_rng(0))
    outside = ~inside(part.xy, (16, 16))
    assert (outside & whole.visible).any()
    assert not part.visible[outside].any()
    np.testing.assert_array_equal(part.valid, whole.valid)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_query_outside_is_based_anew_on_its_track_where_it_is_seen(seed):
    part = cropped(
        subsequence(clip(seed), 4, np.random.default_rng(seed)),
        (20, 24),
        np.random.default_rng(seed),
    )
    lost = (part.queries[:, 0] < 0) | ~inside(part.queries[:, 1:], (20, 24))
    again = requeried(part, np.random.default_rng(seed))
    able = again.valid.any(1)
    assert (lost & able).any()
    np.testing.assert_array_equal(again.queries[~lost], part.queries[~lost])
    for row in np.flatnonzero(lost & able):
        t = int(again.queries[row, 0])
        assert part.visible[row, t]
        assert part.valid[row, t]
        np.testing.assert_array_equal(again.queries[row, 1:], part.xy[row, t])
    np.testing.assert_array_equal(able[lost], (part.visible & part.valid).any(1)[lost])


def test_a_new_query_frame_is_drawn_from_all_that_show_the_point():
    one = clip(n=1)
    lost = replace(one, queries=np.float32([[-1, 5, 5]]))
    drawn = {int(requeried(lost, np.random.default_rng(seed)).queries[0, 0]) for seed in range(100)}
    assert drawn == set(np.flatnonzero(one.visible[0]).tolist())


def test_points_with_labels_come_first_and_the_rest_is_without():
    whole = clip()
    used = whole.valid & (np.arange(POINTS) % 3 == 0)[:, None]  # ten points
    some = chosen(replace(whole, valid=used), 10, np.random.default_rng(0))
    assert some.valid.any(1).all()
    more = chosen(replace(whole, valid=used), 14, np.random.default_rng(0))
    assert more.valid.any(1).tolist() == [True] * 10 + [False] * 4
    assert len(np.unique(more.queries[:10], axis=0)) == 10
    assert inside(more.queries[:, 1:], (HEIGHT, WIDTH)).all()


def test_what_is_not_used_is_zero_and_not_visible():
    holes = clip()
    holes = replace(holes, xy=np.where(holes.valid[..., None], holes.xy, np.nan).astype(np.float32))
    part = augment(holes, 8, (30, 40), 20, True, np.random.default_rng(3))
    assert np.isfinite(part.xy).all()
    assert not part.xy[~part.valid].any()
    assert not part.visible[~part.valid].any()
    assert np.isfinite(part.queries).all()


def test_a_clip_without_labels_is_not_used():
    with pytest.raises(UnusableSample, match="no-labels"):
        augment(
            replace(clip(), valid=np.zeros((POINTS, FRAMES), bool)),
            8,
            (30, 40),
            20,
            True,
            np.random.default_rng(0),
        )


def test_the_generator_decides_all():
    parts = [
        augment(clip(), 6, (20, 30), 12, True, np.random.default_rng(seed)) for seed in (1, 1, 2)
    ]
    assert all(
        np.array_equal(getattr(parts[0], name), getattr(parts[1], name)) for name in vars(parts[0])
    )
    assert not np.array_equal(parts[0].frames, parts[2].frames)


def test_a_part_is_a_run_at_one_stride_from_anywhere():
    """Every start of every stride for which the clip is long enough, and nothing else, is drawn."""
    rng = np.random.default_rng(0)
    drawn = {tuple(part_of(20, 6, (1, 2, 3), rng)) for _ in range(2000)}
    by_hand = {
        tuple(range(start, start + 6 * stride, stride))
        for stride in (1, 2, 3)
        for start in range(20 - 5 * stride)
    }
    assert drawn == by_hand
    assert views(20, 6, (1, 2, 3)) == len(by_hand) == 15 + 10 + 5


def test_a_video_of_300_frames_offers_more_than_300_views():
    """The published script draws start and stride anew: 237 + 174 + 111 for 64 frames."""
    assert views(300, 64, (1, 2, 3)) == 237 + 174 + 111
    assert views(300, 79, (1, 2, 3)) > 300
    assert views(80, 64, (1,)) == 17  # what a clip of 80 frames at one stride has


@pytest.mark.parametrize(
    ("length", "frames", "steps"), [(5, 12, (1,)), (5, 12, (2, 3)), (1, 4, (1,))]
)
def test_a_part_of_a_short_clip_goes_on_backwards(length, frames, steps):
    drawn = set()
    for seed in range(200):
        part = part_of(length, frames, steps, np.random.default_rng(seed))
        assert len(part) == frames
        assert part.min() >= 0
        assert part.max() < length
        assert (np.abs(np.diff(part)) <= min(steps)).all()
        drawn.add(tuple(part))
    assert len(drawn) <= views(length, frames, steps)


def long_clip(seed: int, length: int = 300, n: int = 2048, anchors: int = 32) -> TrainClip:
    """A clip as the recipe stores it: queries in `anchors` frames spread over the whole of it,
    each point seen in a run of frames around its query."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, length, anchors + 1).astype(int)
    t = rng.integers(edges[:-1], edges[1:])[np.arange(n) % anchors]
    xy = np.repeat(rng.uniform(4, 28, (n, 1, 2)), length, 1).astype(np.float32)
    xy += 0.01 * np.arange(length, dtype=np.float32)[:, None]
    visible = np.abs(np.arange(length) - t[:, None]) <= rng.integers(20, 300, n)[:, None]
    everywhere = np.ones_like(visible)
    queries = np.column_stack([t, xy[np.arange(n), t]]).astype(np.float32)
    frames = np.zeros((length, 40, 40, 3), np.uint8)
    return TrainClip("key", "shards", frames, queries, xy, visible, everywhere, everywhere, True)


def test_queries_of_a_part_lie_in_its_first_quarter():
    """The published script asks in 8 frames of the first quarter of what the student sees. So do
    we, for nearly all points, and most are moved by a few frames or by none."""
    moved, at, supervised = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        part = subsequence(long_clip(seed), 64, rng, (1, 2, 3))
        found = seen(part, (32, 32), 384, False, rng, query_part=0.25)
        assert found.valid.any(1).all()
        moved.append(found.moved)
        at.append(found.queries[:, 0])
        supervised.append((np.arange(64) >= found.queries[:, :1]).mean())
        asked = found.queries[:, 0].astype(int)
        shown_there = found.visible[np.arange(384), asked] | (found.moved == np.inf)
        assert shown_there.all()
    moved, at = np.concatenate(moved), np.concatenate(at)
    assert (at <= 16).all()
    assert (moved == 0).mean() > 0.2
    assert np.median(moved) <= 2
    assert np.quantile(moved, 0.9) <= 12
    # the published distribution, uniform over frames 0 to 16, supervises 87.5 % of the frames
    assert 0.85 < np.mean(supervised) < 0.9


def test_without_a_preferred_part_queries_lie_anywhere():
    rng = np.random.default_rng(0)
    part = subsequence(long_clip(0), 64, rng, (1, 2, 3))
    found = seen(part, (32, 32), 384, False, rng)
    assert found.moved is None
    assert (found.queries[:, 0] > 16).mean() > 0.4


def test_a_query_is_moved_to_the_nearest_frame_that_shows_it():
    """By hand: 8 frames, the first quarter is frames 0 to 2; the point is asked for in frame 6 and
    hidden in 2."""
    frames = np.zeros((8, 40, 40, 3), np.uint8)
    xy = np.column_stack([10 + np.arange(8), np.full(8, 20)])[None].astype(np.float32)
    visible = np.array([[1, 1, 0, 1, 1, 1, 1, 1]], bool)
    whole = TrainClip(
        "key", "shards", frames, np.float32([[6, 16, 20]]), xy, visible,
        np.ones_like(visible), np.ones_like(visible), True,
    )  # fmt: skip
    part = at_frames(whole, np.arange(8))
    again = requeried(part, np.random.default_rng(0), 0.25)
    assert again.queries.tolist() == [[1, 11, 20]]
    assert again.moved.tolist() == [5]


def test_a_scale_is_drawn_between_its_ends_and_holds_the_crop():
    """From a clip of 40 x 60 px: a crop of 24 x 32 px at 0.5 to 1, and never below 24 / 40."""
    sizes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = seen(clip(seed), (24, 32), 8, False, rng, scale=(0.5, 1.0))
        assert found.frames.shape[1:3] == (24, 32)
        across = found.frames[0, 12, :, 0].astype(float)  # red is 4 x
        sizes.add(round((across[-1] - across[0]) / LEVELS_PX / 31, 1))
    # px of the source in one px of what the student sees: 1 to 1 / 0.6
    assert min(sizes) == 1.0
    assert max(sizes) in (1.6, 1.7)
    assert len(sizes) > 4
