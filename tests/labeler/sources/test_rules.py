"""What a source named is in the accounts: one rule for what is a video, what belongs to one, and
what is not used, in folders, tars, globs, and tables; and a name is no expression."""

from __future__ import annotations

import json
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.jobs import config, write_moving
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage, is_url, parsed
from labeler.sources.filters import WordFilter
from labeler.sources.listing import list_sources
from labeler.video.fetch import archive_of
from pipelines.jobs.events import Note
from pipelines.jobs.labelling import label
from teachers import ConfigError
from tests.labeler.sources.test_listing import write_tar

BESIDE = {
    "dog.mp4": b"1",
    "dog.info.json": b'{"title": "a dog runs", "n": 1}',
    "dog.json": b'{"n": 2}',
    "dog.txt": b" woof ",
    "dog.wav": b"sound",
    "two.left.mp4": b"2",
    "two.right.MP4": b"3",
    "two.json": b'{"both": true}',
    "two.left.json": b'{"side": "left"}',
    "alone.json": b"{}",
    "README.md": b"text",
    ".hidden.mp4": b"4",
    "sub/._dog.mp4": b"5",
    "unknown.dat": b"6",
    "bare": b"7",
}
VIDEOS = {
    "bare": {},
    "dog.mp4": {"title": "a dog runs", "n": 2, "txt": "woof"},
    "two.left.mp4": {"both": True, "side": "left"},
    "two.right.MP4": {"both": True},
    "unknown.dat": {},
}
NOT_USED = [
    "1 file beside a video is not used",
    "2 files are not used, because their endings are not those of videos",
    "2 hidden files are not used",
]


def write(folder, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["folder", "tar", "glob", "elsewhere"])
def test_one_rule_wherever_the_files_lie(tmp_path, kind):
    folder = write(tmp_path / "in", BESIDE)
    if kind == "elsewhere":
        fs = fsspec.filesystem("memory")
        fs.pipe({f"/rules-{os.getpid()}/{name}": data for name, data in BESIDE.items()})
    named = {
        "folder": str(folder),
        "glob": f"{folder}/**/*",
        "tar": str(write_tar(tmp_path / "in.tar", BESIDE)),
        "elsewhere": f"memory://rules-{os.getpid()}",
    }[kind]
    notes: list[str] = []
    found = list_sources([named], notes=notes)
    names = [source.uri.replace("#", "/").rpartition("/")[2] for source in found]
    assert dict(
        zip(names, [json.loads(source.metadata or "{}") for source in found], strict=True)
    ) == (VIDEOS)
    assert all(any(line in note for note in notes) for line in NOT_USED)
    assert len(notes) == len(NOT_USED)


def test_rows_of_one_video_are_all_asked_and_kept(tmp_path):
    write_moving(tmp_path / "a.mp4", seed=0)
    table = tmp_path / "segments.csv"
    table.write_text(
        "path,start,caption\na.mp4,0,a dog runs\na.mp4,5,a cat sits\na.mp4,5,a cat sits\n"
    )
    seen: list = []
    out = tmp_path / "out"
    result = label(config(table, out, words=WordFilter(need=("cat",))), seen.append)
    assert (result.accounts.videos, result.accounts.done) == (1, 1)
    assert open_dataset(str(out))[0].meta["metadata"] == {
        "start": [0, 5],
        "caption": ["a dog runs", "a cat sits"],
    }
    assert any("2 rows name videos that other rows named" in event.text for event in notes(seen))


def notes(events) -> list[Note]:
    return [event for event in events if isinstance(event, Note)]


def test_a_video_named_by_a_folder_and_a_table_has_what_the_table_says(tmp_path):
    write(tmp_path, {"v/a.mp4": b"1", "t.csv": b"path,caption\nv/a.mp4,a cat\n"})
    [source] = list_sources([str(tmp_path / "v"), str(tmp_path / "t.csv")])
    assert (source.size, json.loads(source.metadata)) == (1, {"caption": "a cat"})


def test_a_joined_tar_is_read_to_its_last_part(tmp_path):
    one = write_tar(tmp_path / "one.tar", {"a.mp4": b"first"}).read_bytes()
    two = write_tar(tmp_path / "two.tar", {"b.mp4": b"second"}).read_bytes()
    joined = tmp_path / "joined.tar"
    for between in (b"", bytes(512 * 5000)):
        joined.write_bytes(one + between + two)
        found = list_sources([str(joined)])
        data = joined.read_bytes()
        assert [data[one.offset : one.offset + one.size] for one in found] == [b"first", b"second"]
    joined.write_bytes(one + b"rubbish" * 999)
    with pytest.raises(ConfigError, match=r"joined\.tar is not a whole tar"):
        list_sources([str(joined)])
    joined.write_bytes(one + one)
    with pytest.raises(ConfigError, match=r"2 members named 'a\.mp4'"):
        list_sources([str(joined)])


def test_an_empty_tar_beside_others_is_a_note(tmp_path):
    write_tar(tmp_path / "one.tar", {"a.mp4": b"1"})
    write_tar(tmp_path / "empty.tar", {})
    said: list[str] = []
    found = list_sources([str(tmp_path / "one.tar"), str(tmp_path / "empty.tar")], notes=said)
    assert [source.uri for source in found] == [f"{tmp_path}/one.tar#a.mp4"]
    assert said == [f"1 tar holds no video, such as '{tmp_path}/empty.tar'."]


def test_endings_count_whatever_their_case(tmp_path):
    write_tar(tmp_path / "ONE.TAR", {"A.MKV": b"1"})
    write(tmp_path, {"LIST.TXT": b"b.mp4\n", "T.Csv": b"path\nc.mp4\n"})
    found = list_sources([str(tmp_path / name) for name in ("ONE.TAR", "LIST.TXT", "T.Csv")])
    assert [source.uri for source in found] == [
        f"{tmp_path}/{name}" for name in ("ONE.TAR#A.MKV", "b.mp4", "c.mp4")
    ]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.zip", "a.tar.zst", "a.tsv", "a.jsonl"])
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name):
    write(tmp_path, {name: b"x"})
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        list_sources([str(tmp_path / name)])


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_a_column_of_bytes_is_refused_in_a_sentence(tmp_path, kind):
    one = b"\x00\x01video" * 999
    value = one if kind == "bytes" else {"bytes": one, "path": "b.mp4"}
    pq.write_table(pa.table({"video": [value], "n": [1]}), tmp_path / "e.parquet")
    with pytest.raises(ConfigError, match="'video' holds the bytes of videos") as caught:
        list_sources([str(tmp_path / "e.parquet")])
    assert len(str(caught.value)) < 400


def test_bytes_beside_the_paths_are_no_metadata(tmp_path):
    pq.write_table(pa.table({"path": ["a.mp4"], "thumb": [b"x" * 99]}), tmp_path / "t.parquet")
    assert list_sources([str(tmp_path / "t.parquet")])[0].metadata == ""


def test_a_data_set_of_labels_is_no_source(tmp_path):
    videos = tmp_path / "own"
    videos.mkdir()
    write_moving(videos / "a.mp4", seed=0)
    assert label(config(videos, videos / "l1")).accounts.videos == 1
    seen: list = []
    assert label(config(videos, videos / "l2"), seen.append).accounts.videos == 1
    assert any("files of data sets of labels are not used" in one.text for one in notes(seen))
    with pytest.raises(ConfigError, match="a data set of labels"):
        list_sources([str(videos / "l1")])


def test_a_video_may_be_called_dataset(tmp_path):
    write(tmp_path, {"dataset.mp4": b"1", "dataset.json": b'{"n": 1}'})
    assert [source.metadata for source in list_sources([str(tmp_path)])] == ['{"n": 1}']


def test_a_link_to_a_folder_is_said(tmp_path):
    write(tmp_path, {"in/a.mp4": b"1", "real/b.mp4": b"2"})
    (tmp_path / "in" / "more").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    said: list[str] = []
    assert len(list_sources([str(tmp_path / "in")], notes=said)) == 1
    assert said == [
        f"1 device or pipe is not used, such as '{tmp_path}/in/pipe.mp4'.",
        f"1 link to a folder is not followed, such as '{tmp_path}/in/more'.",
    ]


# --- a name is no expression

NAMES = [
    "Show::Ep1.mp4",
    "a::b::c.mp4",
    "take #1?.mp4",
    "[x].mp4",
    "50%.mp4",
    "a:b.mp4",
    "zip::x.mp4",
    "~.mp4",
    "file:x.mp4",
    "{a,b}.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_file(tmp_path, monkeypatch, name):
    write(tmp_path, {name: b"x" * 7})
    assert [one.size for one in list_sources([str(tmp_path / name)])] == [7]
    assert [one.size for one in list_sources([str(tmp_path)])] == [7]
    monkeypatch.chdir(tmp_path)
    [source] = list_sources([name])
    assert (source.uri, source.size) == (str(tmp_path / name), 7)
    assert Storage("o::1").url == str(tmp_path / "o::1")
    Storage(f"out {name}").create("a", b"1")
    assert (tmp_path / f"out {name}" / "a").read_bytes() == b"1"


def test_a_job_reads_and_writes_such_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_moving(tmp_path / "Show::Ep1.mp4", seed=0)
    (tmp_path / "l#1.txt").write_text("Show::Ep1.mp4\n")
    assert label(config("l#1.txt", "o::1")).accounts.done == 1
    assert len(open_dataset("o::1").clips) == 1


def test_keys_of_a_storage_may_hold_what_they_like():
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/odd-{os.getpid()}/{name}": b"x" * 7 for name in NAMES})
    found = list_sources([f"memory://odd-{os.getpid()}"])
    assert len(found) == len(NAMES)
    for source in found:
        there, path = parsed(source.uri)
        assert there.cat_file(path) == b"x" * 7


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("s3://b/a", True),
        ("simplecache::https://h/a", True),
        ("a::b.mp4", False),
        ("/x/s3://b", False),
        ("./http://x", False),
        ("Show: http://x", False),
    ],
)
def test_only_what_begins_with_a_protocol_is_a_url(text, answer):
    assert is_url(text) == answer


def test_folders_with_brackets_are_entered_by_a_glob(tmp_path):
    write(tmp_path, {"d [HD]/a.mp4": b"1", "d [HD]/b [4K].mp4": b"2", "d H/a.mp4": b"3"})
    assert [one.uri for one in list_sources([f"{tmp_path}/d [HD]/*.mp4"])] == [
        f"{tmp_path}/d [HD]/{name}.mp4" for name in ("a", "b [4K]")
    ]
    assert len(list_sources([f"{tmp_path}/d [HD]/b [4K]*"])) == 1
    with pytest.raises(ConfigError, match="stands for any one of the letters"):
        list_sources([f"{tmp_path}/none [HD]/*.mp4"])


def test_the_tar_of_a_member_is_found_whatever_its_name(tmp_path):
    write_tar(tmp_path / "a.tar#1.TAR", {"x.tar#y.mp4": b"video"})
    [source] = list_sources([str(tmp_path / "a.tar#1.TAR")])
    assert archive_of(source.uri) == f"{tmp_path}/a.tar#1.TAR"
