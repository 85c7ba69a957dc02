"""What the files beside a video say is stored with it, however it is named; and what cannot be read
of them is said, and stops nothing."""

from __future__ import annotations

import codecs
import json
import os

import pytest

from labeler.sources.listing import list_sources
from tests.labeler.sources.test_listing import write_tar


def named(folder, way: str) -> list[str]:
    """`folder` or what is in it, as a user may name it."""
    (folder.parent / "list.txt").write_text(f"{folder.name}/a.mp4")
    return {
        "folder": [str(folder)],
        "glob": [str(folder / "*.mp4")],
        "glob of all": [str(folder / "*")],
        "file": [str(folder / "a.mp4")],
        "list": [str(folder.parent / "list.txt")],
    }[way]


WAYS = ["folder", "glob", "glob of all", "file", "list"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.mp4").write_bytes(b"1")
    return tmp_path / "d"


@pytest.mark.parametrize("way", WAYS)
def test_metadata_are_found_however_a_video_is_named(folder, way):
    (folder / "a.info.json").write_text('{"title": "a dog"}')
    (folder / "a.txt").write_text("woof")
    (found,) = list_sources(named(folder, way))
    assert json.loads(found.metadata) == {"title": "a dog", "txt": "woof"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", ["nowhere", "closed", "pipe", "loop"])
def test_metadata_that_cannot_be_read_stop_no_job(folder, way, bad, monkeypatch):
    (folder / "a.txt").write_text("woof")
    path = folder / "a.json"
    if bad == "nowhere":
        path.symlink_to("gone.json")
    elif bad == "loop":
        path.symlink_to("a.json")
    elif bad == "pipe":
        os.mkfifo(folder.parent / "pipe")
        path.symlink_to(folder.parent / "pipe")
    else:
        path.write_text("{}")
        refuse(monkeypatch, str(path))
    notes: list[str] = []
    (found,) = list_sources(named(folder, way), notes=notes)
    assert json.loads(found.metadata) == {"txt": "woof"}
    assert notes == [f"1 metadata file cannot be read and is not used, such as '{path}'."]


def refuse(monkeypatch, path: str) -> None:
    """As for a user who may not read `path`; root may read everything."""
    real = open

    def opened(name, *args, **settings):
        if name == path:
            raise PermissionError(13, "Permission denied", name)
        return real(name, *args, **settings)

    monkeypatch.setattr("builtins.open", opened)


@pytest.mark.parametrize("way", [*WAYS, "tar"])
def test_json_that_is_none_is_said(folder, way):
    (folder / "a.json").write_text("{'title': 1}")
    notes: list[str] = []
    if way == "tar":
        files = {name: (folder / name).read_bytes() for name in ("a.mp4", "a.json")}
        names = [str(write_tar(folder / "x.tar", files))]
    else:
        names = named(folder, way)
    (found,) = list_sources(names, notes=notes)
    assert not found.metadata
    (note,) = notes
    assert "1 metadata file is not JSON and not used" in note
    assert "a.json" in note


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16"])
def test_metadata_may_come_from_windows(folder, code):
    (folder / "a.json").write_text('{"title": "ein Hündchen"}', encoding=code)
    (folder / "a.txt").write_text("Wuff!", encoding=code)
    assert (folder / "a.txt").read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE))
    (found,) = list_sources([str(folder)])
    assert json.loads(found.metadata) == {"title": "ein Hündchen", "txt": "Wuff!"}


@pytest.mark.parametrize("pattern", ["*/*.mp4", "**/*.mp4", "*"])
def test_a_glob_says_which_folders_it_could_not_enter(folder, pattern, monkeypatch):
    (folder / "closed").mkdir()
    (folder / "open").mkdir()
    (folder / "open" / "b.mp4").write_bytes(b"2")
    real = os.scandir

    def scandir(path):
        if str(path) == str(folder / "closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    notes: list[str] = []
    assert list_sources([str(folder / pattern)], notes=notes)
    assert f"1 folder cannot be read, such as '{folder}/closed'." in notes


def test_a_glob_says_which_folders_it_found_and_did_not_enter(folder):
    (folder / "more").mkdir()
    (folder / "more" / "b.mp4").write_bytes(b"2")
    notes: list[str] = []
    assert len(list_sources([str(folder / "*")], notes=notes)) == 1
    assert notes == [
        "1 folder that a glob finds is not entered, because it is not one of pictures, such as "
        f"'{folder}/more'."
    ]
    notes.clear()
    assert len(list_sources([str(folder / "**")], notes=notes)) == 2
    assert notes == []


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/1.png"])
def test_what_systems_put_beside_pictures_is_hidden(tmp_path, name):
    for file in ("v/1.png", "v/2.png", f"v/{name}"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    notes: list[str] = []
    (found,) = list_sources([str(tmp_path / "v")], notes=notes)
    assert found.uri == f"{tmp_path}/v/"
    assert notes == [f"1 hidden file is not used, such as '{tmp_path}/v/{name}'."]
