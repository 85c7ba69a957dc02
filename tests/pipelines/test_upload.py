"""What a command makes for a URL: copied there at its end, and kept here if that fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from labeler.io import Storage
from pipelines import cli
from pipelines.terminal.upload import parent_and_name, uploaded
from teachers import ConfigError, TransientError


@pytest.fixture
def storage(tmp_path):
    yield Storage(f"memory://{tmp_path.name}")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def exit_code(*arguments):
    return cli.run([str(argument) for argument in arguments])


def test_a_report_goes_to_a_url_and_replaces_the_players_of_another(
    dataset, storage, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("pipelines.reports.dataset.ONE_FILE_BYTES", 1)
    for clips in (3, 2):
        arguments = ("inspect", dataset.folder, "--clips", clips)
        assert exit_code(*arguments, "--out", storage.url) == 0
        assert exit_code(*arguments, "--out", tmp_path / "here") == 0
        storage.replace("index-clips/notes.txt", b"somebody's own")
        assert storage.names() == ["index.html"]
        players = [f"{number:06d}.js" for number in range(clips)]
        assert storage.names("index-clips") == [*players, "notes.txt"]
        assert storage.read("index.html") == (tmp_path / "here" / "index.html").read_bytes()
    said = capsys.readouterr().out
    assert "copied 4 files, " in said
    assert f"the report is {storage.url}/index.html" in said


def test_an_export_to_a_url_is_the_one_that_a_path_gets(dataset, storage, tmp_path, capsys):
    for to, name in (("parquet", "tracks.parquet"), ("tapvid-npz", "clips"), ("hf", "hub")):
        arguments = ("export", dataset.folder, "--to", to, "--clips", 2)
        assert exit_code(*arguments, "--out", tmp_path / name) == 0
        assert exit_code(*arguments, "--out", f"{storage.url}/{name}") == 0
        assert exit_code(*arguments, "--out", f"{storage.url}/{name}") == 1
        assert "exists already" in capsys.readouterr().err
        here = tmp_path / name
        files = [one for one in here.rglob("*") if one.is_file()] if here.is_dir() else [here]
        for file in files:
            there = storage.read(file.relative_to(tmp_path).as_posix())
            assert len(there) == file.stat().st_size
    storage.replace("hub/data/train-00007.tar", b"of an earlier, larger export")
    storage.replace("hub/LICENSE", b"somebody's own")
    hub = f"{storage.url}/hub"
    assert exit_code("export", dataset.folder, "--to", "hf", "--out", hub, "--overwrite") == 0
    assert storage.names("hub/data") == ["train-00000.tar"]
    assert "LICENSE" in storage.names("hub")


def test_what_cannot_be_copied_is_kept(storage, monkeypatch, capsys):
    def refuse(*_):
        raise TransientError("could not write it.")

    def make():
        with uploaded(storage.url, folder=True) as path:
            path.mkdir()
            (path / "made.txt").write_text("in hours")
            monkeypatch.setattr(Storage, "publish", refuse)

    with pytest.raises(TransientError, match="could not write it"):
        make()
    said = re.search(r"complete in (.+)", capsys.readouterr().out)
    assert said
    assert Path(said[1], "made.txt").read_text() == "in hours"


def test_a_url_that_cannot_be_written_is_refused_before_anything_is_made(storage, monkeypatch):
    def refuse(*_):
        raise TransientError("could not write it.")

    monkeypatch.setattr(Storage, "replace", refuse)
    with (
        pytest.raises(TransientError, match="could not write it"),
        uploaded(f"{storage.url}/labels.pkl", folder=False),
    ):
        raise AssertionError("it was begun")


def test_a_file_at_a_url_has_a_name():
    assert parent_and_name("s3://bucket/a/b.pkl") == ("s3://bucket/a", "b.pkl")
    assert parent_and_name("s3://bucket/b/") == ("s3://bucket", "b")
    with pytest.raises(ConfigError, match="s3://bucket: name a file"):
        parent_and_name("s3://bucket")
