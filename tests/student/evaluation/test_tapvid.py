"""TAP-Vid's files: each published layout is read, whoever pickled it, and nothing but arrays is
taken out of a pickle."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest

from student.evaluation import restricted_pickle
from student.evaluation.metrics import score, tapvid_metrics
from student.evaluation.tapvid import tapvid_clips
from student.evaluation.testsets import on_tapvid_raster, strided
from teachers.errors import ShardError

T, H, W = 6, 40, 60


def video(
    seed: int, points: int = 5, frames: int = T, size: tuple[int, int] = (H, W)
) -> dict[str, Any]:
    """A video of noise with smooth colours, whose last point is never seen."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (frames, 4, 4, 3), np.uint8)
    pictures = np.stack(
        [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in small]
    )
    occluded = rng.random((points, frames)) < 0.3
    occluded[-1:] = True
    return {"video": pictures, "points": rng.random((points, frames, 2)), "occluded": occluded}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def jpeg(frame: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def assert_read(clip, published: dict[str, Any]) -> None:
    """By the words of the paper: shares times width and height, from the corner; queries where
    points are first seen."""
    seen = ~published["occluded"].all(1)
    np.testing.assert_array_equal(clip.visible, ~published["occluded"][seen])
    height, width = clip.frames.shape[1:3]
    np.testing.assert_allclose(
        clip.xy, published["points"][seen] * (width, height) - 0.5, atol=1e-4
    )
    for (t, x, y), track, visible in zip(clip.queries, clip.xy, clip.visible, strict=True):
        assert t == np.flatnonzero(visible)[0]
        np.testing.assert_array_equal(track[int(t)], (x, y))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_davis_is_a_dict_in_any_protocol(tmp_path, protocol):
    videos = {"goat": video(0), "bmx": video(1)}
    write(tmp_path / "tapvid_davis.pkl", videos, protocol)
    clips = list(tapvid_clips("tapvid-davis", str(tmp_path)))
    assert [clip.name for clip in clips] == ["goat", "bmx"]
    for clip, published in zip(clips, videos.values(), strict=True):
        np.testing.assert_array_equal(clip.frames, published["video"])
        assert_read(clip, published)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_numpy_1_is_read(tmp_path, protocol):
    newer = pickle.dumps({"goat": video(0)}, protocol=protocol)
    if protocol == 2:
        older = newer.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    # names stand behind their length; so do the frames of protocol 4, one of which is a byte
    # shorter now
    else:
        older = pickle.dumps({"goat": video(0)}, protocol=3).replace(
            b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
        )
    assert older != newer
    (tmp_path / "tapvid_davis.pkl").write_bytes(older)
    (clip,) = tapvid_clips("tapvid-davis", str(tmp_path))
    assert_read(clip, video(0))


def test_rgb_stacking_is_a_list(tmp_path):
    videos = [video(seed) for seed in range(3)]
    file = write(tmp_path / "tapvid_rgb_stacking.pkl", videos)
    for root in (tmp_path, file, f"file://{file}"):
        clips = list(tapvid_clips("tapvid-rgb-stacking", str(root)))
        assert [clip.name for clip in clips] == [
            f"tapvid_rgb_stacking-000{number}" for number in range(3)
        ]
        for clip, published in zip(clips, videos, strict=True):
            assert_read(clip, published)


def test_kinetics_is_several_files_of_jpegs(tmp_path):
    published = [video(seed) for seed in range(4)]
    stored = [video | {"video": [jpeg(frame) for frame in video["video"]]} for video in published]
    write(tmp_path / "0001_of_0010.pkl", stored[2:])
    write(tmp_path / "0000_of_0010.pkl", stored[:2])
    write(tmp_path / "other.pkl", ["not of this data set"])
    clips = list(tapvid_clips("tapvid-kinetics", str(tmp_path)))
    assert [clip.name for clip in clips] == [
        "0000_of_0010-0000",
        "0000_of_0010-0001",
        "0001_of_0010-0000",
        "0001_of_0010-0001",
    ]
    for clip, expected in zip(clips, published, strict=True):
        assert_read(clip, expected)
        error = np.abs(clip.frames.astype(int) - expected["video"])
        assert error.mean() < 3  # JPEG at quality 95; red and blue swapped would be tens


def test_robotap_is_split_over_dicts(tmp_path):
    write(tmp_path / "robotap_split0.pkl", {"a": video(0)})
    write(tmp_path / "robotap_split1.pkl", {"b": video(1), "c": video(2)})
    assert [clip.name for clip in tapvid_clips("robotap", str(tmp_path))] == ["a", "b", "c"]


def test_a_data_set_is_read_from_any_file_system():
    with fsspec.open("memory://sets/tapvid_davis.pkl", "wb") as file:
        file.write(pickle.dumps({"goat": video(0)}))
    for root in ("memory://sets", "memory://sets/tapvid_davis.pkl"):
        (clip,) = tapvid_clips("tapvid-davis", root)
        assert_read(clip, video(0))


def test_a_file_is_opened_when_its_first_clip_is_asked_for(tmp_path):
    write(tmp_path / "0000_of_0010.pkl", [video(0)])
    (tmp_path / "0001_of_0010.pkl").write_bytes(b"damaged")
    clips = tapvid_clips("tapvid-kinetics", str(tmp_path))
    assert next(clips).name == "0000_of_0010-0000"
    with pytest.raises(ShardError, match=r"0001_of_0010\.pkl: not a whole pickle"):
        next(clips)


# --- the raster, and what counts


def test_the_raster_keeps_places_on_the_pictures(tmp_path):
    # a bright spot whose centre is known: where the label says it is, before and after
    frames = np.zeros((1, 90, 120, 3), np.uint8)
    cv2.circle(frames[0], (80 * 16, 30 * 16), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    points = np.array([[[(80 + 0.5) / 120, (30 + 0.5) / 90]]])
    write(
        tmp_path / "tapvid_davis.pkl",
        {"spot": {"video": frames, "points": points, "occluded": np.zeros((1, 1), bool)}},
    )
    (clip,) = tapvid_clips("tapvid-davis", str(tmp_path))
    for each in (clip, on_tapvid_raster(clip)):
        weight = each.frames[0].mean(-1)
        y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
        np.testing.assert_allclose(
            [(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()],
            each.xy[0, 0],
            atol=0.05,
        )
    assert on_tapvid_raster(clip).frames.shape == (1, 256, 256, 3)


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_a_read_clip_scores_as_the_official_figures_of_the_published_arrays(tmp_path, mode):
    published = video(7, points=12, frames=11)
    write(tmp_path / "tapvid_davis.pkl", {"v": published})
    (clip,) = tapvid_clips("tapvid-davis", str(tmp_path))
    clip = on_tapvid_raster(strided(clip) if mode == "strided" else clip)
    rng = np.random.default_rng(0)
    xy, visible = clip.xy + rng.normal(0, 3, clip.xy.shape), rng.random(clip.visible.shape) < 0.7

    # by hand, as the paper says: each visible point of frames 0, 5, 10, or the first visible one of
    # each track
    tracks, queries = [], []
    for t in range(0, 11, 5) if mode == "strided" else [None]:
        for i, hidden in enumerate(published["occluded"]):
            frame = t if t is not None else (int(np.argmin(hidden)) if not hidden.all() else None)
            if frame is not None and not hidden[frame]:
                tracks.append(i)
                queries.append((frame, *(published["points"][i, frame, ::-1] * 256)))
    official = tapvid_metrics(
        np.array(queries),
        published["occluded"][tracks],
        published["points"][tracks] * 256,
        ~visible,
        xy + 0.5,
        mode,
    )
    figures = score(clip.queries, clip.xy, clip.visible, xy, visible, (256, 256), mode)
    assert figures["AJ"] == pytest.approx(float(official["average_jaccard"]))
    assert figures["delta_avg"] == pytest.approx(float(official["average_pts_within_thresh"]))
    assert figures["OA"] == pytest.approx(float(official["occlusion_accuracy"]))


def test_a_video_without_points_is_a_clip_without_queries(tmp_path):
    empty = {
        "video": video(0)["video"],
        "points": np.zeros((0, T, 2)),
        "occluded": np.zeros((0, T), bool),
    }
    unseen = video(1) | {"occluded": np.ones((5, T), bool)}
    write(tmp_path / "tapvid_davis.pkl", {"empty": empty, "unseen": unseen})
    for clip in tapvid_clips("tapvid-davis", str(tmp_path)):
        assert (clip.queries.shape, clip.xy.shape) == ((0, 3), (0, T, 2))
        assert on_tapvid_raster(strided(clip)).queries.shape == (0, 3)


def test_a_point_said_to_be_visible_outside_is_asked_for_on_the_edge(tmp_path):
    outside = video(0, points=2) | {
        "points": np.full((2, T, 2), (1.1, -0.2)),
        "occluded": np.zeros((2, T), bool),
    }
    write(tmp_path / "tapvid_davis.pkl", {"v": outside})
    (clip,) = tapvid_clips("tapvid-davis", str(tmp_path))
    np.testing.assert_allclose(clip.queries, [[0, W - 0.5, -0.5]] * 2)
    # the truth stays
    np.testing.assert_allclose(clip.xy[0, 0], [1.1 * W - 0.5, -0.2 * H - 0.5], rtol=1e-6)


# --- what cannot be right


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, protocol):
    write(
        tmp_path / "tapvid_davis.pkl",
        {"v": video(0) | {"extra": Hostile(tmp_path / "witness")}},
        protocol,
    )
    with pytest.raises(
        ShardError, match=r"tapvid_davis\.pkl: refused: its pickle asks for posix\.system"
    ):
        list(tapvid_clips("tapvid-davis", str(tmp_path)))
    assert not (tmp_path / "witness").exists()


class Reduced:
    """Pickles as the call that it is given."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


RECONSTRUCT = np.zeros(1).__reduce__()[0]
NO_OBJECTS = Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
"""The dtype of objects with the flags of numbers: numpy itself would take eight bytes for the
address of an object."""
HIDDEN_OBJECTS = Reduced(
    np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", [NO_OBJECTS, HIDDEN_OBJECTS], ids=["objects", "fields"])
def test_bytes_never_become_addresses(dtype, protocol):
    attack = pickle.dumps(
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), dtype, False, b"\x01" * 8)),
        protocol=protocol,
    )
    with pytest.raises(ShardError, match=r"x\.pkl: not a whole pickle of plain arrays"):
        restricted_pickle.load(io.BytesIO(attack), "x.pkl")


def test_an_array_never_reads_behind_its_objects():
    attack = pickle.dumps(
        Reduced(
            RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (100_000,), np.dtype(object), False, [1])
        )
    )
    # numpy 2.4 crashes
    with pytest.raises(ShardError, match=r"1 objects for an array of shape \(100000,\)"):
        restricted_pickle.load(io.BytesIO(attack), "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_values_come_back_equal(protocol):
    arrays = {
        "C": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "turned": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
        "big end first": np.arange(3, dtype=">i4"),
        "flags": np.array([True, False]),
        "text": np.array(["a", "bcd"]),
        "objects": np.array([b"\xff", None, {"a": 1}], object),
        "none": np.zeros((0, 3)),
        "scalar": np.float32(2.5),
    }
    plain = {"bytes": b"\xff\x00", "no bytes": b"", "list": [1, 2.5, "x", (True, None)]}
    back = restricted_pickle.load(
        io.BytesIO(pickle.dumps(arrays | plain, protocol=protocol)), "x.pkl"
    )
    assert {name: back[name] for name in plain} == plain
    for name, value in arrays.items():
        # which comes in this machine's order
        np.testing.assert_array_equal(back[name], value, strict=name != "big end first")


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    whole = write(tmp_path / "tapvid_davis.pkl", {"goat": video(0)}).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "tapvid_davis.pkl").write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"tapvid_davis\.pkl: not a whole pickle"):
            list(tapvid_clips("tapvid-davis", str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"bytes", "holds a bytes, not a dict or list of videos"),
        ({"v": np.zeros(3)}, "video v: not a video of TAP-Vid"),
        ({"v": {"video": video(0)["video"]}}, "video v: not a video of TAP-Vid.*'points'"),
        (
            [video(0) | {"points": np.zeros((5, T, 3))}],
            r"points \[5, 6, 3\], occluded \[5, 6\] are not",
        ),
        (
            [video(0, frames=4) | {"video": video(0)["video"]}],
            r"video uint8 \[6, 40, 60, 3\], points \[5, 4, 2\]",
        ),
        (
            [video(0) | {"points": np.full((5, T, 2), 30.0)}],
            "its points are not shares of width and height",
        ),
        (
            [video(0) | {"points": np.full((5, T, 2), np.nan)}],
            "is visible in frame . and has no finite position",
        ),
        ([video(0) | {"video": [b"no jpeg"] * T}], "an image that cannot be decoded"),
        (
            [
                video(0)
                | {
                    "video": [
                        jpeg(np.zeros((8, 8, 3), np.uint8)),
                        jpeg(np.zeros((8, 9, 3), np.uint8)),
                    ]
                    * 3
                }
            ],
            "frames of one size",
        ),
        ([video(0) | {"video": ["a", "b"]}], "neither an array nor a list of images"),
        ([video(0) | {"video": video(0)["video"].astype(np.float32)}], "video float32"),
    ],
)
def test_another_layout_is_refused_with_the_file_and_the_reason(tmp_path, content, message):
    write(tmp_path / "tapvid_rgb_stacking.pkl", content)
    with pytest.raises(ShardError, match=rf"(?s)tapvid_rgb_stacking\.pkl.*{message}"):
        list(tapvid_clips("tapvid-rgb-stacking", str(tmp_path)))


def test_a_folder_without_pickles_is_an_error_that_lists_what_is_there(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(
        ShardError, match=r"holds no file tapvid_davis\*\.pkl or \*\.pkl \(its files: README\.md\)"
    ):
        tapvid_clips("tapvid-davis", str(tmp_path))
    with pytest.raises(ShardError, match="nowhere: no such file or folder"):
        tapvid_clips("tapvid-davis", str(tmp_path / "nowhere"))
