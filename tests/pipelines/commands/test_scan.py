"""Scan: equal videos are found, and what is written of the others says what their sources say."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness.jobs import moving_videos
from labeler.sources.listing import list_sources
from pipelines.cli import run
from pipelines.commands.scan import scan


@pytest.fixture
def videos(tmp_path):
    return moving_videos(tmp_path / "videos", 4)


def test_equal_videos_are_found_whatever_their_names(videos, tmp_path, capsys):
    (videos / "copy.mkv").write_bytes((videos / "2.mp4").read_bytes())
    found = scan(list_sources([str(videos)]))
    assert [[source.uri for source in group] for group in found.groups] == [
        [str(videos / "2.mp4"), str(videos / "copy.mkv")]
    ]

    (tmp_path / "list.txt").write_text(
        "".join(f"{path}\n" for path in [*sorted(videos.iterdir()), videos / "gone.mp4"])
    )
    assert run(["scan", str(tmp_path / "list.txt"), "--unique", str(tmp_path / "unique.txt")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "6 videos, 1 of them duplicates in 1 groups, 1 not read" in said
    assert str(videos / "copy.mkv") not in (tmp_path / "unique.txt").read_text()
    assert len((tmp_path / "unique.txt").read_text().splitlines()) == 5


def test_a_scan_goes_on_where_a_server_does_not_answer(videos, tmp_path):
    (tmp_path / "list.txt").write_text(f"http://127.0.0.1:9/a.mp4\n{videos}/0.mp4\n")
    found = scan(list_sources([str(tmp_path / "list.txt")]))
    assert [source.uri for source, _ in found.unread] == ["http://127.0.0.1:9/a.mp4"]


@pytest.mark.parametrize("name", ["a\nb.mp4", "a.mp4 "])
def test_names_that_a_list_cannot_hold_are_not_written_into_one(tmp_path, capsys, name):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / name).write_bytes(b"x")
    assert run(["scan", str(tmp_path / "videos"), "--unique", str(tmp_path / "unique.txt")]) == 1
    assert "cannot stand in a list" in capsys.readouterr().err
    assert not (tmp_path / "unique.txt").exists()


SAID = {
    "0": {"caption": "a dog", "n": 1, "tags": ["a", "b"]},
    "1": {"caption": "a cat", "n": 2.5, "tags": []},
    "3": {"place": {"lat": 1.5}},
}


def written(folder) -> str:
    """A table of two equal videos and three others, each with what is said of it."""
    rows = [f"{folder}/videos/2.mp4,no,\n", f"{folder}/videos/copy.mp4,no,\n"]
    (folder / "videos" / "copy.mp4").write_bytes((folder / "videos" / "2.mp4").read_bytes())
    for name, said in SAID.items():
        (folder / "videos" / f"{name}.json").write_text(json.dumps(said))
        rows.append(f"{folder}/videos/{name}.mp4,no,{name}\n")
    (folder / "all.csv").write_text("path,from_table,more\n" + "".join(rows))
    return str(folder / "all.csv")


def test_a_table_of_unique_videos_keeps_their_metadata(videos, tmp_path, capsys):
    table = written(tmp_path)
    unique = tmp_path / "unique.parquet"
    assert run(["scan", table, "--unique", str(unique)]) == 0
    assert "note:" not in capsys.readouterr().out
    before = {source.uri: source.metadata for source in list_sources([table])}
    after = {source.uri: source.metadata for source in list_sources([str(unique)])}
    del before[f"{videos}/copy.mp4"]
    assert {uri: json.loads(said) for uri, said in after.items()} == {
        uri: json.loads(said) for uri, said in before.items()
    }


def test_a_list_of_unique_videos_says_whose_metadata_it_lacks(videos, tmp_path, capsys):
    assert run(["scan", str(videos), "--unique", str(tmp_path / "unique.txt")]) == 0
    assert "note:" not in capsys.readouterr().out
    assert run(["scan", written(tmp_path), "--unique", str(tmp_path / "unique.txt")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lacks the metadata of 4 videos, which a list cannot hold" in said
    assert f"`--unique {tmp_path}/unique.parquet`" in said


def test_metadata_of_several_types_are_text_in_a_table_and_a_note_says_so(videos, tmp_path, capsys):
    (tmp_path / "numbers.csv").write_text(f"path,n\n{videos}/0.mp4,1\n")
    (tmp_path / "texts.csv").write_text(f"path,n\n{videos}/1.mp4,one\n")
    tables = [f"{tmp_path}/{name}.csv" for name in ("numbers", "texts")]
    assert run(["scan", *tables, "--unique", str(tmp_path / "unique.parquet")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "has the metadata of 1 video as text" in said
    again = list_sources([str(tmp_path / "unique.parquet")])
    assert [json.loads(source.metadata) for source in again] == [{"n": "1"}, {"n": "one"}]


@pytest.mark.parametrize("name", ["unique", "unique.csv"])
def test_a_file_that_label_would_not_read_is_refused(videos, tmp_path, capsys, name):
    assert run(["scan", str(videos), "--unique", str(tmp_path / name)]) == 1
    assert "name a list, such as unique.txt, or a table" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_metadata_with_the_name_of_the_column_of_videos_are_refused(videos, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(f"file,uri\n{videos}/0.mp4,mine\n")
    flags = ["--column", "file", "--unique", str(tmp_path / "unique.parquet")]
    assert run(["scan", str(tmp_path / "t.csv"), *flags]) == 1
    assert "have 'uri', which in a table is the video" in capsys.readouterr().err
