"""Sources beyond folders: lists, tables, tars of videos; what travels with them, and which are
refused."""

from __future__ import annotations

import io
import json
import tarfile

import pandas as pd
import pytest

from benchmarks.harness.jobs import config, write_moving
from labeler.dataset.dataset import open_dataset
from labeler.sources.filters import WordFilter
from labeler.sources.listing import Source, list_sources
from labeler.video.decode import open_video
from pipelines.jobs.labelling import label
from teachers import ConfigError, VideoError


def uris(*named) -> list[str]:
    return [source.uri for source in list_sources([str(one) for one in named])]


def test_a_list_names_one_video_a_line(tmp_path):
    (tmp_path / "some.txt").write_text(
        "b.mp4\n\n# a comment\n/elsewhere/a.mp4\ns3://bucket/c d.mp4\n"
    )
    assert uris(tmp_path / "some.txt") == [
        "/elsewhere/a.mp4",
        f"{tmp_path}/b.mp4",
        "s3://bucket/c d.mp4",
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["url", "clip"])
def test_the_other_columns_of_a_table_are_metadata(tmp_path, suffix, column):
    file = tmp_path / f"table.{suffix}"
    table = pd.DataFrame(
        {"caption": ["a dog, running", None], column: ["b.mp4", "a.mp4"], "year": [2001, 2002]}
    )
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    found = list_sources([str(file)], column="clip" if column == "clip" else None)
    assert [source.uri for source in found] == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4"]
    assert [json.loads(source.metadata) for source in found] == [
        {"year": 2002},
        {"caption": "a dog, running", "year": 2001},
    ]


def test_a_table_without_a_column_of_paths_says_which_it_has(tmp_path):
    pd.DataFrame({"name": ["a.mp4"], "year": [1]}).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(
        ConfigError,
        match=r"none of the columns uri, url, .* it has name, year. Name one with --column",
    ):
        uris(tmp_path / "table.csv")
    with pytest.raises(ConfigError, match="no column 'path'"):
        list_sources([str(tmp_path / "table.csv")], column="path")


def test_what_is_no_table_or_list_is_refused_by_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.parquet is not a table"):
        uris(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"b\.txt is not a list"):
        uris(tmp_path / "b.txt")


def write_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path):
    """A WebDataset tar of two videos, one with metadata."""
    videos = [write_moving(tmp_path / f"{i}.mp4", seed=i).read_bytes() for i in range(2)]
    members = {
        "a/x.mp4": videos[0],
        "a/x.json": b'{"caption": "a cat"}',
        "y.mp4": videos[1],
        "y.cls": b"7",
    }
    return write_tar(tmp_path / "videos.tar", members), videos


def test_a_member_of_a_tar_is_read_by_its_offset(archive):
    path, videos = archive
    found = list_sources([str(path)])
    assert [source.uri for source in found] == [f"{path}#a/x.mp4", f"{path}#y.mp4"]
    assert [source.metadata for source in found] == ['{"caption": "a cat"}', ""]
    for source, video in zip(found, videos, strict=True):
        assert path.read_bytes()[source.offset : source.offset + source.size] == video
        with open_video(source.uri, span=source.span) as reader:
            assert reader.path.read_bytes() == video


def test_a_tar_that_ends_inside_a_member_is_an_error_of_that_member(archive):
    path, _ = archive
    last = list_sources([str(path)])[-1]
    path.write_bytes(path.read_bytes()[: last.offset + 100])
    with pytest.raises(VideoError, match=r"the tar ends inside this member \(100 of"):
        open_video(last.uri, span=last.span)


def test_a_tar_without_videos_or_that_is_none_is_refused(tmp_path):
    (tmp_path / "no.tar").write_bytes(b"text" * 300)
    with pytest.raises(ConfigError, match="is not a whole tar"):
        uris(tmp_path / "no.tar")
    with pytest.raises(ConfigError, match="1 tar holds no video"):
        uris(write_tar(tmp_path / "text.tar", {"a.txt": b"x"}))


@pytest.mark.parametrize("name", ["../../up.mp4", "/etc/abs.mp4", "a/../../b.mp4", "../x.json"])
def test_a_tar_with_names_that_point_out_of_it_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="a name that points outside it"):
        uris(write_tar(tmp_path / "odd.tar", {"a.mp4": b"video", name: b"video"}))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_a_tar_with_more_than_plain_files_is_refused(tmp_path, kind):
    path = write_tar(tmp_path / "odd.tar", {"a.mp4": b"video"})
    with tarfile.open(path, "a") as tar:
        odd = tarfile.TarInfo("b.mp4")
        odd.type, odd.linkname = kind, "/etc/passwd"
        tar.addfile(odd)
    with pytest.raises(ConfigError, match=r"holds 'b\.mp4', a .*: refused"):
        uris(path)


@pytest.mark.parametrize("end", [1536, 1536 + 100, 1536 + 700])
def test_a_tar_that_was_cut_is_refused_wherever_it_was_cut(tmp_path, end):
    """After a member, in a header, and in a member of 1,000 bytes, which with its header takes
    1,536."""
    path = write_tar(tmp_path / "cut.tar", {"a.mp4": b"x" * 1000, "b.mp4": b"y" * 1000})
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ConfigError, match="is not a whole tar"):
        uris(path)


def test_a_tar_with_a_broken_header_is_refused(tmp_path):
    path = write_tar(tmp_path / "broken.tar", {"a.mp4": b"x" * 1000, "b.mp4": b"y" * 1000})
    data = path.read_bytes()
    path.write_bytes(data[:1536] + b"?" * 512 + data[2048:])
    with pytest.raises(ConfigError, match="its members end at byte 1,536"):
        uris(path)


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write_tar(tmp_path / "twice.tar", {"a.mp4": b"x"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(ConfigError, match="2 members named"):
        uris(path)


def test_metadata_of_a_tar_belong_to_the_videos_of_their_key(tmp_path):
    members = {
        "x/a.left.mp4": b"1",
        "x/a.json": b'{"n": 1}',
        "b.1.mp4": b"2",
        "b.1.json": b'{"n": 2}',
        "C.MP4": b"3",
        "C.TXT": b" c ",
    }
    found = list_sources([str(write_tar(tmp_path / "keys.tar", members))])
    assert [(source.uri.rpartition("#")[2], source.metadata) for source in found] == [
        ("C.MP4", '{"txt": "c"}'),
        ("b.1.mp4", '{"n": 2}'),
        ("x/a.left.mp4", '{"n": 1}'),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:topsecret@bucket/a.mp4",
        "https://host/a.mp4?X-Amz-Signature=topsecret",
        "https://host/a.mp4?token=topsecret",
    ],
)
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(tmp_path, url):
    (tmp_path / "list.txt").write_text(f"ok.mp4\n{url}\n")
    for named in (url, str(tmp_path / "list.txt")):
        with pytest.raises(ConfigError) as caught:
            list_sources([named])
        assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (WordFilter(need=("dog", "cat")), ""),
        (WordFilter(need=("horse",)), "none of the words horse"),
        (WordFilter(refuse=("CAT",)), "the word 'CAT'"),
        (WordFilter(refuse=("at",)), ""),
        (WordFilter(need=("cat",), columns=("title",)), "none of the words cat"),
        (WordFilter(need=("home movie",), columns=("title",)), ""),
        (WordFilter(need=("c++",)), ""),
        (WordFilter(need=("#fun",)), ""),
        (WordFilter(need=("fun",)), ""),
        (WordFilter(refuse=("STRASSE",)), "the word 'STRASSE'"),
        (WordFilter(need=("cats",)), "none of the words cats"),
        (WordFilter(), ""),
    ],
)
def test_whole_words_decide_which_videos_are_wanted(words, why):
    source = Source(
        "a.mp4",
        1,
        "",
        metadata=json.dumps(
            {"caption": "A cat.", "title": "Home movie", "tags": ["C++", "#fun", "Straße"]}
        ),
    )
    assert why in words.why_not(source)
    assert bool(why) == bool(words.why_not(source))


@pytest.mark.parametrize("word", ["", " "])
def test_an_empty_word_is_refused(word):
    with pytest.raises(ConfigError, match="an empty word"):
        WordFilter(refuse=("cat", word))


def test_metadata_travels_into_the_shards_and_unwanted_videos_into_the_accounts(tmp_path, archive):
    path, _ = archive
    result = label(config(path, tmp_path / "out", words=WordFilter(need=("cat",))))
    assert (result.accounts.videos, result.accounts.done, result.accounts.videos_left_out) == (
        2,
        1,
        1,
    )
    dataset = open_dataset(str(tmp_path / "out"))
    assert {sample.meta["metadata"]["caption"] for sample in dataset} == {"a cat"}
    assert {sample.meta["uri"] for sample in dataset} == {f"{path}#a/x.mp4"}
    row = dataset.failures.iloc[0]
    assert (row["reason"], row["status"], row["stage"], row["unit"]) == (
        "unwanted",
        "left out",
        "plan",
        -1,
    )
