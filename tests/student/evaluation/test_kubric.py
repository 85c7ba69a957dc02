"""Kubric: sequences as CoTracker3's authors release them, to evaluate on and to train on."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest

from student.data.exact import training_clip
from student.evaluation.kubric import read_sequence, sequences
from student.synth.scene import SynthClip, SynthConfig, generate
from teachers.errors import ConfigError, ShardError

SCENE = SynthConfig(frames=5, height=64, width=96, points=20)


def write(root: Path, name: str, clip: SynthClip, **fields: np.ndarray) -> Path:
    """A sequence in the release's layout: `visibility` says where a point is NOT seen."""
    folder = root / name
    (folder / "frames").mkdir(parents=True)
    for number, frame in enumerate(clip.frames):
        cv2.imwrite(str(folder / "frames" / f"{number:03d}.png"), frame[..., ::-1])
    np.save(
        folder / f"{name}.npy",
        {"coords": clip.xy, "visibility": ~clip.visible} | fields,
        allow_pickle=True,
    )  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def clip() -> SynthClip:
    return generate(1, SCENE)


@pytest.fixture
def root(tmp_path, clip) -> Path:
    write(tmp_path, "0001", clip)
    write(tmp_path, "0000", generate(0, SCENE))
    return tmp_path


def test_a_sequence_comes_back_as_it_was_written(root, clip):
    first, second = sequences(str(root))
    assert (first.name, second.name) == ("0000", "0001")
    read = read_sequence(second)
    np.testing.assert_array_equal(read.frames, clip.frames)
    np.testing.assert_array_equal(read.xy, clip.xy)
    np.testing.assert_array_equal(read.visible, clip.visible)
    # the generator too asks where a point is first seen
    np.testing.assert_array_equal(read.queries, clip.queries)


def test_a_point_outside_the_frame_is_not_visible_whatever_the_file_says(tmp_path, clip):
    write(tmp_path, "0000", clip, visibility=np.zeros_like(clip.visible))
    outside = ((clip.xy < -0.5) | (clip.xy > (95.5, 63.5))).any(-1)
    assert outside.any()
    read = read_sequence(sequences(str(tmp_path))[0])
    assert not read.visible[outside[~outside.all(1)]].any()


def test_sequences_are_read_from_any_file_system(clip, tmp_path):
    write(tmp_path, "0000", clip)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/kubric", recursive=True)
    (sequence,) = sequences("memory://kubric")
    np.testing.assert_array_equal(read_sequence(sequence).frames, clip.frames)


def test_a_part_to_train_on_has_exact_tracks_of_what_it_shows(root, clip):
    sequence = sequences(str(root))[1]
    part = training_clip(sequence, 5, (64, 64), 16, flip=False, rng=np.random.default_rng(3))
    assert part.frames.shape == (5, 64, 64, 3)
    assert (part.source, part.key, part.supervise_occluded) == ("kubric", "kubric-0001", True)
    left = next(x for x in range(33) if (clip.frames[:, :, x : x + 64] == part.frames).all())
    tracks = {tuple(np.rint(64 * track.ravel()).astype(int)) for track in clip.xy - (left, 0)}
    for (t, x, y), track, visible, valid in zip(
        part.queries, part.xy, part.visible, part.valid, strict=True
    ):
        if valid.any():
            assert valid.all()
            assert tuple(np.rint(64 * track.ravel()).astype(int)) in tracks
            assert visible[int(t)]
            np.testing.assert_array_equal(track[int(t)], (x, y))


def test_a_short_and_small_sequence_fills_a_longer_and_larger_part(root):
    part = training_clip(
        sequences(str(root))[0], 8, (96, 128), 24, flip=True, rng=np.random.default_rng(0)
    )
    assert part.frames.shape == (8, 96, 128, 3)
    assert part.xy.shape == (24, 8, 2)


def test_parts_differ_by_the_generator_alone(root):
    def part(seed: int):
        return training_clip(
            sequences(str(root))[0], 4, (64, 64), 8, flip=True, rng=np.random.default_rng(seed)
        )

    np.testing.assert_array_equal(part(1).xy, part(1).xy)
    assert not np.array_equal(part(1).xy, part(2).xy)


# --- what cannot be right


def test_a_folder_without_sequences_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="holds no folder: Kubric has NAME/frames"):
        sequences(str(tmp_path))
    with pytest.raises(ShardError, match="nowhere: no such file or folder"):
        sequences(str(tmp_path / "nowhere"))


def test_a_missing_or_damaged_file_is_named(tmp_path, clip):
    folder = write(tmp_path, "0000", clip)
    (sequence,) = sequences(str(tmp_path))
    (folder / "frames" / "001.png").write_bytes(b"\x89PNG")
    with pytest.raises(ShardError, match=r"frames/001\.png: an image that cannot be decoded"):
        read_sequence(sequence)
    (folder / "frames" / "001.png").unlink()
    with pytest.raises(ShardError, match=r"0000: not a test clip: .*\[4, 64, 96, 3\]"):
        read_sequence(sequence)
    (folder / "0000.npy").write_bytes((folder / "0000.npy").read_bytes()[:-100])
    with pytest.raises(ShardError, match=r"0000\.npy: not a whole pickle"):
        read_sequence(sequence)
    (folder / "0000.npy").unlink()
    with pytest.raises(ShardError, match=r"0000\.npy does not exist"):
        read_sequence(sequence)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"coords": np.zeros((2, 5, 2))}, "not a dict with arrays 'coords' and 'visibility'"),
        ([1, 2], "not a dict with arrays"),
    ],
)
def test_another_layout_is_refused(tmp_path, clip, content, message):
    folder = write(tmp_path, "0000", clip)
    array = np.empty((), object)
    array[()] = content
    np.save(folder / "0000.npy", array, allow_pickle=True)
    with pytest.raises(ShardError, match=message):
        read_sequence(sequences(str(tmp_path))[0])


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, clip):
    write(tmp_path, "0000", clip, extra=Hostile(tmp_path / "witness"))
    with pytest.raises(ShardError, match=r"0000\.npy: refused: its pickle asks for posix\.system"):
        read_sequence(sequences(str(tmp_path))[0])
    assert not (tmp_path / "witness").exists()


def test_a_crop_far_larger_than_the_sequence_is_refused(root):
    with pytest.raises(ConfigError, match="96 x 64 px are too small for a crop of 384 x 384 px"):
        training_clip(
            sequences(str(root))[0], 5, (384, 384), 8, flip=False, rng=np.random.default_rng(0)
        )
