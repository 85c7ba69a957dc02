"""A folder of pictures is a video: the same clips come from it as from a file of these frames."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest

from benchmarks.harness.jobs import config
from labeler.clips.making import VideoSource
from labeler.dataset.dataset import open_dataset
from labeler.sources.listing import Source, list_sources
from labeler.video.decode import open_video
from labeler.video.pictures import content_sha256, pictures_in
from pipelines.jobs.labelling import label
from teachers import VideoError
from tests.support.video_files import number_in, numbers_in, painted


def write_pictures(folder, count=12, suffix="png", size=(48, 64)):
    folder.mkdir(parents=True)
    for number in range(count):  # without leading zeros: frame 2 comes before frame 10
        picture = painted(number, *size)[..., ::-1]
        cv2.imwrite(str(folder / f"frame{number}.{suffix}"), picture)
    return folder


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_frames_are_the_pictures_in_natural_order(tmp_path, suffix):
    folder = write_pictures(tmp_path / "clip", suffix=suffix)
    with open_video(f"{folder}/") as video:
        assert (len(video), video.size, video.fps) == (12, (48, 64), 24)
        assert (video.decoder, video.scan.codec, video.truncated) == ("pictures", suffix, False)
        assert numbers_in(video.read(range(12))) == list(range(12))
        assert number_in(video.read([10])[0]) == 10
        np.testing.assert_allclose(np.diff(video.timestamps_s), 1 / 24)
        if suffix == "png":
            np.testing.assert_array_equal(video.read([3])[0], painted(3))


def test_a_folder_of_pictures_is_one_source(tmp_path):
    """As VSPW and OVIS come: a folder for each video. A cover beside a video is no video."""
    for name in ("a", "b"):
        write_pictures(tmp_path / "train" / name, 3)
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "train" / "c" / "clip.mp4").write_bytes(b"")
    (tmp_path / "train" / "c" / "cover.jpg").write_bytes(b"")
    whole = [source.uri for source in list_sources([str(tmp_path / "train")])]
    root = f"{tmp_path}/train"
    assert whole == [f"{root}/a/", f"{root}/b/", f"{root}/c/clip.mp4"]
    for pattern in (f"{root}/[ab]", f"{root}/[ab]/*.png"):
        found = list_sources([pattern])
        assert [source.uri for source in found] == [f"{root}/a/", f"{root}/b/"]
        sizes = [file.stat().st_size for file in (tmp_path / "train" / "a").iterdir()]
        assert found[0].size == sum(sizes)
        assert found[0].etag


def test_the_hash_is_of_names_and_contents(tmp_path):
    one, two = (write_pictures(tmp_path / name, 3) for name in "ab")
    assert content_sha256(one) == content_sha256(two)
    (two / "notes.txt").write_text("not a frame")
    assert content_sha256(one) == content_sha256(two)
    (two / "frame2.png").rename(two / "frame3.png")
    assert content_sha256(one) != content_sha256(two)


def test_a_folder_at_an_address_is_copied(tmp_path):
    folder = write_pictures(tmp_path / "clip", 4)
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/of-pictures/clip", recursive=True)
    try:
        found = list_sources(["memory://of-pictures"])
        assert [source.uri for source in found] == ["memory:///of-pictures/clip/"]
        with open_video(found[0].uri) as video:
            assert numbers_in(video.read(range(4))) == [0, 1, 2, 3]
            copy = video.path
        assert not copy.exists()
        with pytest.raises(VideoError, match="there is no such folder"):
            open_video("memory://of-pictures/other/")
    finally:
        fs.rm("/of-pictures", recursive=True)


def test_a_picture_of_another_size_or_a_broken_one_is_named(tmp_path):
    folder = write_pictures(tmp_path / "clip", 4)
    cv2.imwrite(str(folder / "frame2.png"), painted(2, 24, 32))
    (folder / "frame3.png").write_bytes(b"no picture")
    with open_video(folder) as video:
        assert numbers_in(video.read([0, 1])) == [0, 1]
        with pytest.raises(VideoError, match=r"frame 2 is \(24, 32\), the frames before"):
            video.read([2])
        with pytest.raises(VideoError, match=r"frame3\.png: not a picture"):
            video.read([3])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="a folder without pictures"):
        open_video(tmp_path / "empty")


def test_folders_are_labelled_as_files_are(tmp_path):
    root = tmp_path / "videos"
    write_pictures(root / "a", 20, size=(96, 128))
    settings = config(root, tmp_path / "labels", teachers=("lk",))
    label(settings)
    sample = open_dataset(str(tmp_path / "labels"))[0]
    assert sample.meta["uri"] == f"{root}/a/"
    assert (sample.meta["decoder"], sample.meta["codec"]) == ("pictures", "png")
    assert sample.meta["sha256"] == content_sha256(root / "a")
    made = VideoSource(settings.frozen().recipe())
    opened = made.open(Source(f"{root}/a/", 0, ""))
    assert made.clip(Source(f"{root}/a/", 0, ""), sample.meta["clip"]).key == sample.key
    assert opened.sha256 == sample.meta["sha256"]
    shutil.rmtree(root)


def test_names_of_one_number_have_an_order_of_their_own(tmp_path, monkeypatch):
    """Whatever order the file system lists them in."""
    for name in ("01.png", "1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), painted(0, 48, 64))
    listed = sorted(tmp_path.iterdir())
    for order in (listed, listed[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda _, order=order: iter(order))
        assert [path.name for path in pictures_in(tmp_path)] == ["01.png", "1.png", "2.png"]
