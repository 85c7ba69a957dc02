"""Plans: what is listed, and which unit each video belongs to."""

from __future__ import annotations

import contextlib
import hashlib
import os

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeler.io.storage import Storage
from labeler.shards import plan as module
from labeler.shards.plan import (
    NO_UNIT,
    create_plan,
    cut_into_units,
    hash_of,
    number_of_units,
    read_plans,
    unit_table,
    unit_tables,
    unit_that_counts,
    units,
)
from labeler.sources.listing import Source, list_sources
from teachers import ConfigError, ShardError, TransientError


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


def test_of_several_a_missing_file_is_planned_so_that_it_becomes_a_row(videos):
    gone, there = str(videos / "gone.mp4"), str(videos / "b.mp4")
    found = {source.uri: source.size for source in list_sources([gone, there])}
    assert found == {gone: 0, there: 5}


def test_where_nothing_is_there_it_is_a_slip(videos):
    with pytest.raises(ConfigError, match=r"gone\.mp4: no such file or folder"):
        list_sources([str(videos / "gone.mp4")])


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


def by_hand(plan: pd.DataFrame) -> list[tuple[int, int, str]]:
    """`unit_table`, one unit after the other."""
    found = []
    for number in sorted(set(plan["unit"])):
        own = plan["uri"][plan["unit"] == number].tolist()
        text = "\n".join(sorted(own)).encode()
        said = hashlib.blake2b(text, digest_size=8).hexdigest()
        assert said == hash_of(own)
        found.append((number, len(own), "" if number == NO_UNIT else said))
    return found


def rows_of(table: pd.DataFrame) -> list[tuple[int, int, str]]:
    return list(table.itertuples(index=False, name=None))


@pytest.mark.parametrize("units_at_once", [1, 3, 4096])
def test_the_table_of_units_is_that_of_each_unit_by_itself(units_at_once, monkeypatch):
    """Sorted or not, with units in any order, and with videos that a filter leaves out."""
    monkeypatch.setattr("labeler.shards.plan.UNITS_AT_ONCE", units_at_once)
    rng = np.random.default_rng(0)
    for refused in (-1, 3):
        plan = cut_into_units(
            [Source(f"/v/ü {i:03d}.mp4", i, "") for i in range(40)],
            3,
            first_unit=5,
            why_not=lambda source, refused=refused: "no" if source.size % 4 == refused else "",
        )
        mixed = plan.iloc[rng.permutation(len(plan))]
        in_pieces = pd.concat([plan.iloc[:7], plan.iloc[7:8], plan.iloc[8:]])
        for rows in (plan, mixed, in_pieces, plan.iloc[:0]):
            assert rows_of(unit_table(rows)) == by_hand(rows)


def parses(monkeypatch) -> list[str]:
    """The plans whose rows are read from now on."""
    read: list[str] = []
    original = module._parsed
    monkeypatch.setattr(
        module,
        "_parsed",
        lambda data, what, *rest: read.append(what) or original(data, what, *rest),
    )
    return read


def test_what_a_plan_says_of_its_units_is_read_without_its_rows(tmp_path, monkeypatch):
    storage, read = Storage(str(tmp_path)), parses(monkeypatch)
    plans = [cut_into_units(sources(5), 2), cut_into_units(sources(2), 1, first_unit=3)]
    for number, plan in enumerate(plans):
        assert create_plan(storage, number, plan)
    found = read_plans(storage)
    assert [rows_of(table) for table in unit_tables(found)] == [by_hand(plan) for plan in plans]
    assert number_of_units(found) == 5
    assert (len(found), read) == (2, [])
    pd.testing.assert_frame_equal(found[1], plans[1], check_dtype=False)
    assert len(read) == 1


def rewritten_by_pandas(path: str) -> None:
    moved(pd.read_parquet(path)).to_parquet(path, index=False)


def rewritten_by_arrow(path: str) -> None:
    """With all that the footer of the old file says."""
    table = pq.read_table(path)
    changed = pa.Table.from_pandas(moved(table.to_pandas()), preserve_index=False)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def moved(plan: pd.DataFrame) -> pd.DataFrame:
    return plan.assign(uri=["/elsewhere" + uri for uri in plan["uri"]])


@pytest.mark.parametrize("rewritten", [rewritten_by_pandas, rewritten_by_arrow])
def test_a_plan_that_was_changed_is_not_believed_what_it_says_of_its_units(
    tmp_path, monkeypatch, rewritten
):
    storage, plan = Storage(str(tmp_path)), cut_into_units(sources(5), 2)
    assert create_plan(storage, 0, plan)
    rewritten(storage.path("plan.0000.parquet"))
    read = parses(monkeypatch)
    found = read_plans(storage)
    assert len(read) == 1
    assert [rows_of(table) for table in unit_tables(found)] == [by_hand(moved(plan))]


def test_any_byte_that_differs_breaks_the_seal_of_a_plan(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    assert create_plan(storage, 0, cut_into_units(sources(5), 2))
    whole = storage.read("plan.0000.parquet")
    body = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(8, body, 41):
        storage.replace("plan.0000.parquet", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        read = parses(monkeypatch)
        with contextlib.suppress(ShardError):  # the rows cannot be read either
            read_plans(storage)
        assert len(read) == 1


def test_a_plan_of_before_there_were_seals_says_the_same(tmp_path):
    storage = Storage(str(tmp_path))
    plan = cut_into_units(sources(7), 2, why_not=lambda source: "no" if source.size == 3 else "")
    plan.to_parquet(storage.path("plan.0000.parquet"), index=False, row_group_size=3)
    (table,) = unit_tables(read_plans(storage))
    assert rows_of(table) == by_hand(plan)
    assert rows_of(table)[0][:2] == (NO_UNIT, 1)


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
