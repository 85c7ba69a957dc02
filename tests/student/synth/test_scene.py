"""Synth: the tracks are read back from rendered pixels, by a way that does not use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from student.evaluation.testsets import read_npz
from student.synth import scene as synth
from student.synth import textures as synth_textures
from student.synth.motion import draw_bending
from student.synth.scene import Points, SceneLayer, SynthConfig
from teachers.errors import ConfigError, ShardError
from teachers.tracks import checked_queries

SEEDS = range(4)
WAVE_PX = 32
WORLDS = {
    "rigid": SynthConfig(),
    "bent": SynthConfig(bend=1, camera=1, frames=8),
    # what the tests below paint on the layers is to be read sharp
    "unseen": SynthConfig.unseen(blur=0, frames=8),
}
SCENES = [
    (0, "rigid"),
    (1, "rigid"),
    (2, "rigid"),
    (3, "rigid"),
    (0, "bent"),
    (1, "bent"),
    (0, "unseen"),
    (1, "unseen"),
]
every_scene = pytest.mark.parametrize(
    ("seed", "config"),
    [
        pytest.param(n, WORLDS[w], id=f"{w}-{n}", marks=pytest.mark.slow if n > 1 else ())
        for n, w in SCENES
    ],
)
SMALL = SynthConfig(frames=8, height=96, width=128, points=40)


def read(image, xy):
    """Colours [N, 3] of an image at the places [N, 2], bilinear."""
    at = xy.astype(np.float32)[:, None]
    return cv2.remap(
        image.astype(np.float32), at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]


def repainted(scene, paint):
    """The scene's layers with `paint(number, x, y)` -> [h, w, 3] as their colours, where x and y
    are the texture's coordinates."""
    grids = (
        np.mgrid[: layer.alpha.shape[0], : layer.alpha.shape[1]].astype(np.float32)
        for layer in scene.layers
    )
    return [
        replace(layer, rgb=paint(number, x, y).astype(np.float32))
        for number, (layer, (y, x)) in enumerate(zip(scene.layers, grids, strict=True))
    ]


def ids(scene, config):
    """uint8 [T, H, W]: the number of the layer in front x 40, mixed where edges are soft."""
    layers = repainted(scene, lambda number, x, y: np.full((*x.shape, 3), 40 * number))
    return synth.render(layers, config.height, config.width)[..., 0]


@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
@every_scene
def test_a_visible_point_shows_its_own_place_on_the_texture(seed, axis, config):
    # textures are waves whose phase is the coordinate: 8-bit colours then tell it to a few
    # hundredths of a pixel, modulo 32 px
    scene = synth.draw_scene(seed, config)

    def waves(number, *xy):
        phase = 2 * np.pi * xy[axis] / WAVE_PX
        return np.dstack(
            [127.5 + 120 * np.sin(phase), 127.5 + 120 * np.cos(phase), np.zeros_like(phase)]
        )

    frames = synth.render(repainted(scene, waves), config.height, config.width)
    xy, visible = synth.track(scene.layers, scene.points, config.height, config.width)
    layer_ids = ids(scene, config)
    errors, seen = [], 0
    for t in range(config.frames):
        lowest = cv2.erode(layer_ids[t], np.ones((3, 3)))
        highest = cv2.dilate(layer_ids[t], np.ones((3, 3)))
        nearest = np.clip(np.rint(xy[:, t]), 0, 255).astype(int)
        away_from_edges = (lowest == highest)[nearest[:, 1], nearest[:, 0]]
        read_well = visible[:, t] & away_from_edges & ((xy[:, t] >= 0) & (xy[:, t] <= 255)).all(1)
        sine, cosine, _ = read(frames[t], xy[read_well, t]).T - 127.5
        place = WAVE_PX * np.arctan2(sine, cosine) / (2 * np.pi)
        away = place - scene.points.place[read_well, axis]
        errors.append(np.abs(away - WAVE_PX * np.rint(away / WAVE_PX)))
        seen += visible[:, t].sum()
    errors = np.concatenate(errors)
    assert len(errors) > 0.9 * seen
    assert errors.max() < 0.1
    assert np.median(errors) < 0.02


@every_scene
def test_a_visible_point_shows_the_right_wave_too(seed, config):
    # the waves above repeat every 32 px; a ramp over the whole texture does not
    scene = synth.draw_scene(seed, config)
    layers = repainted(
        scene, lambda _, x, y: np.dstack([255 * x / x.max(), 255 * y / y.max(), 0 * x])
    )
    frames = synth.render(layers, config.height, config.width)
    sizes = np.array([layer.alpha.shape[::-1] for layer in layers])[scene.points.layer]
    xy, _ = synth.track(layers, scene.points, config.height, config.width)
    for n, t in enumerate(scene.points.query_t):
        ramp = read(frames[t], xy[n : n + 1, t])[0, :2]
        np.testing.assert_allclose(ramp / 255 * (sizes[n] - 1), scene.points.place[n], atol=6)


@every_scene
def test_a_point_is_visible_where_its_layer_is_in_front(seed, config):
    scene = synth.draw_scene(seed, config)
    layer_ids = ids(scene, config)
    xy, visible = synth.track(scene.layers, scene.points, config.height, config.width)
    decided = 0
    for t in range(config.frames):
        inside = ((xy[:, t] > -0.5) & (xy[:, t] < 255.5)).all(1)
        assert not visible[~inside, t].any()
        flat = cv2.erode(layer_ids[t], np.ones((3, 3))) == cv2.dilate(layer_ids[t], np.ones((3, 3)))
        x, y = np.clip(np.rint(xy[:, t]), 0, 255).astype(int).T
        plain = inside & flat[y, x]
        np.testing.assert_array_equal(
            visible[plain, t], (layer_ids[t, y, x] == 40 * scene.points.layer)[plain]
        )
        decided += (plain | ~inside).sum()
    assert decided > 0.9 * visible.size


@every_scene
@pytest.mark.parametrize("query_frame", ["first", "random"])
def test_no_query_lies_on_an_edge(query_frame, seed, config):
    config = replace(config, query_frame=query_frame)
    scene = synth.draw_scene(seed, config)
    xy, _ = synth.track(scene.layers, scene.points, config.height, config.width)
    layer_ids = ids(scene, config)
    for n, (t, layer) in enumerate(zip(scene.points.query_t, scene.points.layer, strict=True)):
        x, y = np.rint(xy[n, t]).astype(int)
        around = layer_ids[t, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert (around == 40 * layer).all()


def test_a_point_on_a_layer_that_is_shifted_by_hand_is_where_the_hand_put_it():
    # 5 px to the right and 3 px down in frame 1; a square of 8 px covers the background's pixels
    # 20..27 in both
    shift = np.array([np.eye(3), [[1, 0, 5], [0, 1, 3], [0, 0, 1]]])
    still = np.array([[[1.0, 0, 20], [0, 1, 20], [0, 0, 1]]] * 2)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.float32)
    back = SceneLayer(pixels, np.ones((64, 64), np.float32), shift)
    front = SceneLayer(np.zeros((8, 8, 3), np.float32), np.ones((8, 8), np.float32), still)
    frames = synth.render([back, front], 64, 64)
    np.testing.assert_array_equal(frames[1, 3:20, 5:20], pixels[:17, :15].astype(np.uint8))
    assert (frames[:, 20:28, 20:28] == 0).all()
    assert (frames[0, 19, 19] == pixels[19, 19]).all()

    # stays; goes behind the square; leaves the frame
    places = np.array([[10, 10], [16, 18], [62, 30]])
    xy, visible = synth.track(
        [back, front], Points(np.zeros(3, int), places, np.zeros(3, int)), 64, 64
    )
    np.testing.assert_allclose(xy, np.stack([places, places + np.array([5, 3])], axis=1))
    np.testing.assert_array_equal(visible, [[True, True], [True, False], [True, False]])


@pytest.mark.parametrize("query_frame", ["first", "random"])
def test_every_point_is_visible_at_its_query(query_frame):
    config = replace(SMALL, query_frame=query_frame)
    for seed in SEEDS:
        clip = synth.generate(seed, config)
        t = clip.queries[:, 0].astype(int)
        every = np.arange(config.points)
        assert clip.visible[every, t].all()
        np.testing.assert_array_equal(clip.xy[every, t], clip.queries[:, 1:])
        checked_queries(clip.queries, clip.frames.shape)
        if query_frame == "first":
            np.testing.assert_array_equal(t, clip.visible.argmax(1))
        else:
            assert (t > clip.visible.argmax(1)).any()


def test_points_fall_on_layers_in_proportion_to_what_is_seen_of_them():
    config = SynthConfig(points=2000, query_frame="random")
    seen = np.bincount(
        np.rint(ids(synth.draw_scene(0, config), config) / 40).astype(int).ravel(), minlength=6
    )
    drawn = np.bincount(synth.generate(0, config).layer, minlength=6)
    assert (seen > 0).sum() >= 3
    # edges get no query
    np.testing.assert_allclose(drawn / drawn.sum(), seen / seen.sum(), atol=0.05)


def test_points_leave_the_frame_or_hide_and_come_back():
    left, hid = 0, 0
    for seed in SEEDS:
        clip = synth.generate(seed)
        inside = ((clip.xy > -0.5) & (clip.xy < 255.5)).all(-1)
        left += returns(inside)
        hid += returns(inside.all(1)[:, None] & clip.visible)
    assert left > 20
    assert hid > 20


def returns(flags):
    """How many rows of [N, T] are true, then false, then true again."""
    starts = (~flags[:, :-1] & flags[:, 1:]).sum(1) + flags[:, 0]
    return int((starts >= 2).sum())


def arrays(clip):
    """Its fields that are arrays, by name."""
    return {name: value for name, value in vars(clip).items() if isinstance(value, np.ndarray)}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_clip():
    one, again, other = (synth.generate(seed, SMALL) for seed in (3, 3, 4))
    assert one.name == again.name
    for array, same in zip(arrays(one).values(), arrays(again).values(), strict=True):
        assert array.dtype == same.dtype
        assert array.tobytes() == same.tobytes()
    assert not np.array_equal(one.frames, other.frames)


def test_the_number_of_points_does_not_change_the_video():
    few, many = (synth.generate(0, replace(SMALL, points=points)) for points in (0, 40))
    assert few.queries.shape == (0, 3)
    assert few.xy.shape == (0, 8, 2)
    np.testing.assert_array_equal(few.frames, many.frames)


def test_a_clip_has_the_asked_for_shapes_and_types():
    clip = synth.generate(0, SMALL)
    shapes = {name: (array.dtype.name, array.shape) for name, array in arrays(clip).items()}
    assert shapes == {
        "frames": ("uint8", (8, 96, 128, 3)),
        "queries": ("float32", (40, 3)),
        "xy": ("float32", (40, 8, 2)),
        "visible": ("bool", (40, 8)),
        "layer": ("int64", (40,)),
    }
    assert np.isfinite(clip.xy).all()


@pytest.mark.parametrize("more", [{}, {"bend": 1, "camera": 1, "blur": 1}], ids=["rigid", "bent"])
@pytest.mark.parametrize("motion", [0.0, 2.0])
def test_the_background_fills_every_frame_however_much_moves(motion, more):
    config = replace(SMALL, frames=24, motion=motion, cutouts=(0, 0), **more)
    for seed in range(20 if not more else 4):
        scene = synth.draw_scene(seed, config)
        white = repainted(scene, lambda number, x, y: np.full((*x.shape, 3), 255))
        assert (synth.render(white, config.height, config.width) == 255).all()


def test_without_motion_nothing_moves():
    clip = synth.generate(0, replace(SMALL, motion=0))
    assert (clip.frames == clip.frames[0]).all()
    assert (clip.xy == clip.xy[:, :1]).all()


def test_a_bend_and_its_inverse_cancel_and_nothing_folds_over():
    t = np.arange(6)
    bend = draw_bending(np.random.default_rng(0), frames=6, amount=1, size_px=40).at(t)
    y, x = np.mgrid[:60, :80].astype(float)
    texture = np.stack([x, y], -1)[..., None, :]  # [60, 80, 1, 2]
    plane = bend.to_plane(texture, t)
    np.testing.assert_allclose(
        bend.to_texture(plane, t), np.broadcast_to(texture, plane.shape), atol=1e-6
    )
    across, down = np.diff(plane, axis=1)[:-1], np.diff(plane, axis=0)[:, :-1]
    assert (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] > 0).all()
    assert np.abs(plane - texture).max() > 2
    assert np.abs(bend.to_texture(plane, t) - plane).max() <= bend.reach_px


def test_layers_bend_more_than_a_homography_could():
    def left_over(config):  # px that the best homography of each layer and frame leaves
        clip = synth.generate(0, config)
        own = clip.layer == 0
        places = synth.draw_scene(0, config).points.place[own].astype(np.float32)
        homography, _ = cv2.findHomography(places, clip.xy[own, 5])
        return np.median(
            np.linalg.norm(
                cv2.perspectiveTransform(places[None], homography)[0] - clip.xy[own, 5], axis=1
            )
        )

    assert left_over(SynthConfig()) < 0.01
    assert left_over(SynthConfig(bend=1)) > 0.5


def test_a_camera_moves_background_and_cutouts_alike():
    filmed = synth.draw_scene(0, replace(SMALL, motion=0, camera=1))
    middle = np.array([60.0, 45.0])
    seen = [
        layer.frame_xy(layer.place(middle, np.int64(0)), np.arange(8)) for layer in filmed.layers
    ]
    for track in seen[1:]:
        np.testing.assert_allclose(track, seen[0], atol=1e-6)
    assert np.ptp(seen[0], axis=0).max() > 1


def test_blur_light_and_noise_leave_tracks_as_they_are():
    plain, changed = (
        synth.generate(2, replace(SMALL, **more))
        for more in ({}, {"blur": 1, "light": 1, "noise": 9})
    )
    np.testing.assert_allclose(plain.xy, changed.xy, atol=1e-3)
    np.testing.assert_array_equal(plain.visible, changed.visible)
    assert not np.array_equal(plain.frames, changed.frames)


def test_blur_spreads_a_dot_along_its_way_and_the_track_is_its_middle():
    # a white dot on black goes 6 px to the right in each frame
    dot = np.zeros((33, 33, 3), np.float32)
    dot[16, 16] = 255

    def at(t):
        return np.array([[[1.0, 0, 6 * s], [0, 1, 20], [0, 0, 1]] for s in t]), None

    t = np.arange(4)
    layer = SceneLayer(
        dot,
        np.ones((33, 33), np.float32),
        *at(t),
        instants=tuple(at(t + part) for part in (-0.375, -0.125, 0.125, 0.375)),
    )
    frames = synth.render([layer], 64, 64)[..., 0].astype(float)
    xy, _ = synth.track(
        [layer], Points(np.zeros(1, int), np.array([[16.0, 16.0]]), np.zeros(1, int)), 64, 64
    )
    for frame, (x, y) in zip(frames, xy[0], strict=True):
        lit = np.flatnonzero(frame.sum(0))
        assert np.ptp(lit) >= 4
        assert np.ptp(np.flatnonzero(frame.sum(1))) == 0
        assert abs((frame.sum(0) @ np.arange(64)) / frame.sum() - x) < 0.1
        assert frame[int(y)].sum() == frame.sum()


def test_light_changes_over_time_and_noise_is_as_strong_as_asked_for():
    flat = np.full((8, 96, 128, 3), 100, np.uint8)
    noisy = synth.develop(0, flat, replace(SMALL, noise=5.0)).astype(float)
    assert abs(noisy.std() - 5) < 0.2
    assert abs(noisy.mean() - 100) < 0.1
    lit = synth.develop(0, flat, replace(SMALL, light=1.0)).astype(float)
    assert lit.mean((1, 2, 3)).std() > 5
    assert np.abs(np.diff(lit.mean((1, 2, 3)))).max() < 40


def test_the_unseen_world_has_no_photograph_in_it(monkeypatch):
    monkeypatch.setattr(synth, "read_photo", lambda name: pytest.fail("a photograph was read"))
    clip = synth.generate(0, SynthConfig.unseen(frames=4, height=96, width=128, points=10))
    assert clip.frames.std() > 10


def test_no_photograph_is_in_both_splits_and_all_can_be_read():
    train, test = (set(synth_textures.PHOTOS[split]) for split in ("train", "test"))
    assert not train & test
    # motorcycle_right shows the scene of motorcycle_left
    assert not {name for name in train if "right" in name}
    pictures = [synth_textures.read_photo(name) for name in train | test]
    assert len({picture.tobytes() for picture in pictures}) == len(train | test)


def test_splits_differ_in_shapes_too():
    train, test = (synth.draw_scene(0, replace(SMALL, split=split)) for split in ("train", "test"))
    assert not np.array_equal(train.layers[0].to_frame, test.layers[0].to_frame)


def test_a_saved_clip_comes_back(tmp_path):
    clip = synth.generate(0, SMALL)
    path = synth.save(clip, tmp_path / "clip.0")
    assert path == tmp_path / "clip.0.npz"
    back = read_npz(path)
    for name in ("frames", "queries", "xy", "visible"):
        np.testing.assert_array_equal(getattr(clip, name), getattr(back, name))
        assert getattr(clip, name).dtype == getattr(back, name).dtype
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["occluded"], ~clip.visible)


def test_a_file_that_is_no_clip_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez_compressed(tmp_path / "damaged.npz", video=np.arange(3000) % 7)
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[60:70] = b"\xff" * 10
    (tmp_path / "damaged.npz").write_bytes(content)
    for name in ("text.npz", "other.npz", "one.npy", "damaged.npz"):
        with pytest.raises(ShardError, match=f"{name}: not a test clip"):
            read_npz(tmp_path / name)
    with pytest.raises(ShardError, match=r"missing\.npz does not exist"):
        read_npz(tmp_path / "missing.npz")


def test_a_missing_package_names_the_extra():
    with pytest.raises(
        ConfigError, match=r"'no_such_package' is not installed: pip install 'tapdistill\[demo\]'"
    ):
        synth_textures.read_photo("no_such_package/data/photo.png")


def test_a_missing_photograph_is_named():
    with pytest.raises(ConfigError, match=r"gone\.png: the photograph is missing or broken"):
        synth_textures.read_photo(f"{Path(synth_textures.PHOTOS['train'][0]).parent}/gone.png")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 0}, "at least 1 frame"),
        ({"height": 32}, "height = 32, width = 256: each must be at least 64 px"),
        ({"cutouts": (3, 2)}, r"cutouts = \(3, 2\)"),
        ({"motion": 3.0}, r"motion = 3.0: must be in \[0, 2\]"),
        ({"bend": 1.5}, r"bend = 1.5: must be in \[0, 1\]"),
        ({"blur": -0.1}, r"blur = -0.1: must be in \[0, 1\]"),
        ({"noise": 100.0}, r"noise = 100.0: must be in \[0, 64\]"),
        ({"domain": "moon"}, "domain = 'moon': there are 'photos', 'mixtures', 'patterns'"),
        ({"query_frame": "last"}, "query_frame = 'last': there are 'first' and 'random'"),
        ({"split": "val"}, "split = 'val': there are train, test"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SynthConfig(**wrong)


@pytest.mark.parametrize("world", ["rigid", "unseen"])
def test_the_true_tracks_of_a_clips_own_queries_are_its_tracks(world):
    config = replace(WORLDS[world], frames=8, height=96, width=128, points=40)
    clip = synth.generate(2, config)
    xy, visible = synth.true_tracks(2, config, clip.queries)
    np.testing.assert_allclose(xy, clip.xy, atol=1e-3)
    np.testing.assert_array_equal(visible, clip.visible)
