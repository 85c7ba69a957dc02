"""Plans: what is listed, and which unit each video belongs to."""

from __future__ import annotations

import os

import fsspec
import pandas as pd
import pytest

from labeler.io.storage import Storage
from labeler.shards.plan import create_plan, cut_into_units, read_plans, unit_that_counts, units
from labeler.sources.listing import Source, list_sources
from teachers import ConfigError, TransientError


@pytest.fixture
def videos(tmp_path):
    """A tree of files; what they hold is of no interest to a plan."""
    for name in ("b.mp4", "a.mov", "deep/c.mkv", "notes.txt", ".hidden.mp4", ".git/x.mp4"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * len(name))
    return tmp_path


def uris(*patterns: str) -> list[str]:
    return [source.uri for source in list_sources(patterns)]


def test_a_folder_gives_every_video_below_it_that_is_not_hidden(videos):
    assert uris(str(videos)) == [str(videos / name) for name in ("a.mov", "b.mp4", "deep/c.mkv")]
    assert uris(f"{videos}/") == uris(str(videos))


def test_a_folder_below_a_hidden_one_can_be_named(videos):
    assert uris(str(videos / ".git")) == [str(videos / ".git" / "x.mp4")]


def test_a_glob_takes_what_it_matches(videos):
    assert uris(f"{videos}/[bd]*/**/*.m[pk]*", f"{videos}/b.*") == [
        str(videos / name) for name in ("b.mp4", "deep/c.mkv")
    ]


def test_a_video_named_twice_is_planned_once(videos):
    assert (
        uris(str(videos / "b.mp4"), str(videos), f"{videos}/*.mp4").count(str(videos / "b.mp4"))
        == 1
    )


def test_links_to_files_are_followed(videos, tmp_path_factory):
    """Data sets are often folders of links."""
    folder = tmp_path_factory.mktemp("links")
    (folder / "link.mp4").symlink_to(videos / "b.mp4")
    (folder / "broken.mp4").symlink_to(videos / "gone.mp4")
    (folder / "folder").symlink_to(videos)
    assert [(source.uri, source.size) for source in list_sources([str(folder)])] == [
        (str(folder / "broken.mp4"), 0),  # becomes a row, as a missing file does
        (str(folder / "link.mp4"), 5),
    ]


@pytest.mark.parametrize("name", ["take [1].mp4", "what?.mp4", "star*.mp4"])
def test_a_file_whose_name_looks_like_a_glob_can_be_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert uris(str(tmp_path / name)) == [str(tmp_path / name)]


def test_a_missing_file_is_planned_so_that_it_becomes_a_row(videos):
    assert list_sources([str(videos / "gone.mp4")])[0].size == 0


def test_what_gives_no_file_is_refused_by_name(tmp_path):
    for pattern in (str(tmp_path), f"{tmp_path}/*.mp4"):
        with pytest.raises(ConfigError, match="no file there"):
            list_sources([pattern])
    with pytest.raises(ConfigError, match="no video named"):
        list_sources([])


def test_a_url_keeps_its_protocol_and_may_hold_no_password():
    fsspec.filesystem("memory").pipe({"/plan/a.mp4": b"123", "/plan/sub/b.mp4": b""})
    assert [(source.uri, source.size) for source in list_sources(["memory://plan"])] == [
        ("memory:///plan/a.mp4", 3),
        ("memory:///plan/sub/b.mp4", 0),
    ]
    with pytest.raises(ConfigError, match="must not hold a user or a password"):
        list_sources(["s3://key:secret@bucket/videos"])
    with pytest.raises(ConfigError, match="nowhere"):
        list_sources(["nowhere://bucket/videos"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_transient(videos):
    videos.chmod(0)
    with pytest.raises(TransientError):
        list_sources([str(videos)])


def sources(count: int) -> list[Source]:
    return [Source(f"/v/{i:03d}.mp4", i, f"tag{i}") for i in range(count)]


@pytest.mark.parametrize(
    ("count", "per_unit", "sizes"),
    [(1, 16, [1]), (16, 16, [16]), (17, 16, [16, 1]), (5, 1, [1] * 5), (0, 4, [])],
)
def test_consecutive_videos_share_a_unit(count, per_unit, sizes):
    plan = cut_into_units(sources(count), per_unit)
    planned = units([plan])
    assert [len(unit.videos) for unit in planned] == sizes
    assert [video.uri for unit in planned for video in unit.videos] == [
        source.uri for source in sources(count)
    ]


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    storage, plan = Storage(str(tmp_path)), cut_into_units(sources(5), 2)
    assert create_plan(storage, 0, plan)
    pd.testing.assert_frame_equal(read_plans(storage)[0], plan, check_dtype=False)


def test_the_first_plan_of_a_number_counts(tmp_path):
    storage = Storage(str(tmp_path))
    assert create_plan(storage, 0, cut_into_units(sources(2), 1))
    assert not create_plan(storage, 0, cut_into_units(sources(9), 1))
    assert len(read_plans(storage)[0]) == 2


def test_a_video_planned_again_counts_in_its_latest_unit():
    first, again = cut_into_units(sources(3), 2), cut_into_units(sources(2)[1:], 2, first_unit=2)
    assert unit_that_counts([first, again]) == {"/v/000.mp4": 0, "/v/001.mp4": 2, "/v/002.mp4": 1}
    assert [(unit.number, unit.plan) for unit in units([first, again])] == [(0, 0), (1, 0), (2, 1)]


@pytest.mark.parametrize(
    ("videos", "units"), [(1, 1), (10, 10), (63, 63), (64, 32), (100, 34), (512, 32), (1600, 100)]
)
def test_few_videos_make_small_units_so_that_all_workers_get_some(videos, units):
    assert cut_into_units(sources(videos))["unit"].nunique() == units
