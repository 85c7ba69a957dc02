"""Lists and tables as people write them: other line ends, empty fields, numbers that are none,
nested columns, odd values."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.jobs import config, write_moving
from labeler.dataset.dataset import open_dataset
from labeler.sources.listing import list_sources
from labeler.sources.lists import read_entries
from labeler.sources.metadata import to_metadata
from pipelines.jobs.labelling import label
from teachers import ConfigError


def entries(name: str, data: bytes, column: str | None = None) -> list[tuple[str, object]]:
    return [
        (entry.uri, json.loads(entry.metadata or "{}"))
        for entry in read_entries(name, io.BytesIO(data), column)
    ]


def test_a_list_may_come_from_windows():
    assert entries("a.txt", b"\xef\xbb\xbfa.mp4\r\n\r\n  # no\r\n b c.mp4 \r\n") == [
        ("a.mp4", {}),
        ("b c.mp4", {}),
    ]
    assert entries("a.csv", b'\xef\xbb\xbfurl,n\r\na.mp4,1\r\n\r\n"b\r\n.mp4",2\r\n') == [
        ("a.mp4", {"n": 1}),
        ("b\r\n.mp4", {"n": 2}),
    ]


def test_only_a_line_end_ends_a_line():
    assert entries("a.list", "a\u2028b.mp4\nc\x85d.mp4".encode()) == [
        ("a\u2028b.mp4", {}),
        ("c\x85d.mp4", {}),
    ]


def test_text_of_a_csv_stays_as_it_stands_there():
    data = b"url,id,country,n,x,ok,mixed\n1.mp4,007,NA,1,0.5,True,1\nnull,010,None,,2,false,one\n"
    assert entries("a.csv", data) == [
        ("1.mp4", {"id": "007", "country": "NA", "n": 1, "x": 0.5, "ok": True, "mixed": "1"}),
        ("null", {"id": "010", "country": "None", "x": 2, "ok": False, "mixed": "one"}),
    ]
    assert entries("a.csv", b"id,url\n007,x\n1.50,y\n", "id") == [
        ("007", {"url": "x"}),
        ("1.50", {"url": "y"}),
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"url,n\na.mp4,1,2\n", "its row 1 has 3 fields, its header 2"),
        (b"url,n\na.mp4\n", "its row 1 has 1 fields"),
        (b"url,n,n\na.mp4,1,2\n", "two of its columns have one name"),
        (b'url,n\n"a.mp4,1\n', "is not a table"),
        (b"url,n\ncaf\xe9.mp4,1\n", "not UTF-8"),
        ("url\na.mp4\n".encode("utf-16-le"), "null bytes"),
        (b"", "none of the columns"),
    ],
)
def test_a_csv_that_is_not_one_is_refused_by_name(data, why):
    with pytest.raises(ConfigError, match=rf"some\.csv.*{why}"):
        entries("some.csv", data)


def test_nested_columns_dates_and_what_json_does_not_know_travel(tmp_path):
    table = pa.table(
        {
            "url": ["a.mp4", "b.mp4"],
            "nested": [{"box": [1, 2], "label": None}, None],
            "many": [list(range(2000)), [1.0, float("nan")]],
            "large": [2**53 + 1, None],
            "infinite": [float("inf"), 1.0],
            "day": [datetime.date(2020, 1, 2), None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert entries("t.parquet", (tmp_path / "t.parquet").read_bytes()) == [
        (
            "a.mp4",
            {
                "nested": {"box": [1, 2], "label": None},
                "many": list(range(2000)),
                "large": 2**53 + 1,
                "day": "2020-01-02",
            },
        ),
        ("b.mp4", {"many": [1, None], "infinite": 1}),
    ]


def test_the_index_of_pandas_is_no_metadata_unless_it_has_a_name(tmp_path):
    table = pd.DataFrame({"url": ["a.mp4", "b.mp4"], "n": [1, 2]})
    table[table["n"] > 1].to_parquet(tmp_path / "t.parquet")
    assert entries("t.parquet", (tmp_path / "t.parquet").read_bytes()) == [("b.mp4", {"n": 2})]
    table.set_index("url").to_parquet(tmp_path / "t.parquet")
    assert entries("t.parquet", (tmp_path / "t.parquet").read_bytes()) == [
        ("a.mp4", {"n": 1}),
        ("b.mp4", {"n": 2}),
    ]


@pytest.mark.parametrize("value", ["\ud800", {"a": float("-inf")}, [[]] * 3, "a\0b", 10**400])
def test_whatever_is_in_metadata_can_be_stored(value):
    text = to_metadata({"value": value})
    text.encode()
    json.dumps(json.loads(text), allow_nan=False)


def test_metadata_nested_without_end_are_cut_off():
    value: list = []
    for _ in range(500):
        value = [value]
    assert json.loads(to_metadata({"value": value, "n": 1}))["n"] == 1


def test_addresses_in_metadata_lose_their_secrets():
    text = to_metadata(
        {
            "thumb": "https://u:topsecret@h/x.jpg",
            "from": ["see https://h/y?token=topsecret&n=1, there"],
        }
    )
    assert "topsecret" not in text
    assert json.loads(text) == {
        "thumb": "https://***@h/x.jpg",
        "from": ["see https://h/y?token=***&n=1, there"],
    }


def test_an_entry_without_a_video_is_counted_and_odd_values_stop_no_job(tmp_path):
    write_moving(tmp_path / "a.mp4", seed=0)
    (tmp_path / "t.csv").write_text("url,score\na.mp4,inf\n,2\ngone.mp4,1e999\n")
    result = label(config(tmp_path / "t.csv", tmp_path / "out"))
    assert (result.accounts.videos, result.accounts.done, result.accounts.videos_failed) == (
        3,
        1,
        2,
    )
    dataset = open_dataset(str(tmp_path / "out"))
    assert set(dataset.failures["reason"]) == {"not-found"}
    assert dataset[0].meta["metadata"] == {"score": "inf"}


def test_a_name_that_cannot_be_stored_is_a_row_and_named(tmp_path):
    (tmp_path / "caf\udce9.mp4").write_bytes(b"x")
    write_moving(tmp_path / "a.mp4", seed=0)
    result = label(config(tmp_path, tmp_path / "out"))
    assert (result.accounts.videos, result.accounts.done) == (2, 1)
    row = next(row for record in result.records for row in record.rows)
    assert (row.reason, "caf\\udce9.mp4#its name is not UTF-8" in row.uri) == ("not-found", True)


def test_a_variable_that_is_not_set_names_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="empty text"):
        list_sources([""])
    with pytest.raises(ConfigError, match="empty text"):
        label(replace(config(tmp_path, tmp_path / "out"), videos=("",)))
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nowhere_is_planned_so_that_it_becomes_a_row(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone")
    assert [source.uri for source in list_sources([str(tmp_path)])] == [f"{tmp_path}/a.mp4"]


def test_an_address_of_an_unknown_kind_is_refused_alone_and_a_row_in_a_list(tmp_path):
    with pytest.raises(ConfigError, match="what fsspec knows"):
        list_sources(["nowhere://bucket/a.mp4"])
    (tmp_path / "list.txt").write_text("nowhere://bucket/a.mp4\n" + "x" * 300 + ".mp4\n")
    assert label(config(tmp_path / "list.txt", tmp_path / "out")).accounts.reasons == {
        ("video", "not-found"): 2
    }


def test_a_word_that_is_no_address_is_refused_alone_and_a_row_in_a_list(tmp_path):
    with pytest.raises(ConfigError, match="Invalid IPv6 URL"):
        list_sources(["http://[x/a.mp4"])
    (tmp_path / "list.txt").write_text("http://[x/a.mp4\n")
    assert label(config(tmp_path / "list.txt", tmp_path / "out")).accounts.reasons == {
        ("video", "not-found"): 1
    }


def test_a_list_finds_the_metadata_beside_the_videos_as_a_folder_does(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "a.720.mp4", "b.mp4", "c.mp4"):
        (videos / name).write_bytes(b"")
    (videos / "a.json").write_text('{"who": "Ann", "year": 1}')
    (videos / "b.txt").write_text(" a red fox ")
    (videos / "a.720.json").write_text('{"year": 720}')
    (videos / ".c.json").write_text('{"hidden": 1}')
    table = tmp_path / "t.csv"
    table.write_text(
        "path,year\n"
        "videos/a.mp4,2\nvideos/a.720.mp4,\nvideos/b.mp4,\nvideos/c.mp4,\nvideos/d.mp4,\n"
    )
    names = ["a.mp4", "a.720.mp4", "b.mp4", "c.mp4"]

    def said(pattern):
        found = {Path(one.uri).name: one.metadata for one in list_sources([pattern])}
        return {name: json.loads(found[name] or "{}") for name in names}

    listed, walked = said(str(table)), said(str(videos))
    assert listed["a.mp4"] == {**walked["a.mp4"], "year": 2}  # what the table says counts more
    assert all(listed[name] == walked[name] for name in names[1:])
    assert listed["b.mp4"] == {"txt": "a red fox"}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.list_(pa.string()), [["a.mp4", "b.mp4"]]),
        (pa.list_(pa.binary()), [[b"film"]]),
        (pa.binary(4), [b"film"]),
        (pa.binary_view(), [b"film"]),
        (pa.dictionary(pa.int32(), pa.binary()), [b"film"]),
        (pa.int64(), [7]),
    ],
)
def test_a_column_of_anything_but_paths_is_refused_in_a_sentence(tmp_path, kind, values):
    table = pa.table({"path": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(
        ConfigError, match=r"'path' holds .*not paths or URLs: .*--column"
    ) as caught:
        list_sources([str(tmp_path / "t.parquet")])
    assert "film" not in str(caught.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_text_may_be_a_path(tmp_path, kind):
    pq.write_table(pa.table({"path": pa.array(["a.mp4"], kind)}), tmp_path / "t.parquet")
    assert [source.uri for source in list_sources([str(tmp_path / "t.parquet")])] == [
        str(tmp_path / "a.mp4")
    ]


@pytest.mark.parametrize("names", [["path", "c", "c"], ["path", "path", "c"]])
def test_columns_of_one_name_are_refused(tmp_path, names):
    columns = [pa.array(["a.mp4"])] * 3
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="two of its columns have one name"):
        list_sources([str(tmp_path / "t.parquet")])


def test_a_field_of_a_csv_may_be_long(tmp_path):
    (tmp_path / "t.csv").write_text(f"path,said\na.mp4,{'so ' * 100_000}\n")
    (found,) = list_sources([str(tmp_path / "t.csv")])
    assert len(json.loads(found.metadata)["said"]) > 290_000


def test_one_video_written_in_several_ways_is_one(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.mp4").write_bytes(b"1")
    ways = ["d/a.mp4", "./d/a.mp4", "d//a.mp4", "d/././a.mp4", f"{tmp_path}/./d/a.mp4", "d/p/./"]
    (tmp_path / "l.txt").write_text("\n".join(ways))
    found = list_sources([str(tmp_path / "l.txt"), str(tmp_path / "d")])
    assert [source.uri for source in found] == [f"{tmp_path}/d/a.mp4", f"{tmp_path}/d/p/"]


def test_a_list_that_names_nothing_is_said(tmp_path):
    (tmp_path / "some.txt").write_text("a.mp4")
    (tmp_path / "none.csv").write_text("path\n")
    notes: list[str] = []
    list_sources([str(tmp_path / "some.txt"), str(tmp_path / "none.csv")], notes=notes)
    assert notes == [f"1 list or table names no video, such as '{tmp_path}/none.csv'."]
    with pytest.raises(ConfigError, match=r"none\.csv"):
        list_sources([str(tmp_path / "none.csv")])
