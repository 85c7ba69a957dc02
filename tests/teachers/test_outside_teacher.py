"""A tracker of another package takes part fully: it streams, joins the reader's policies, and is in
`eval` and among the licences, by what its class declares."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import teachers
from pipelines import cli
from pipelines.tracking.stream import stream_of
from teachers import ConfigError, TeacherInfo
from teachers.checkpoints.recognise import recognise
from teachers.licences import licence_note
from teachers.registry import TABLE, declared
from teachers.xfeat import XFeat, XFeatConfig
from tests.support.installed import install
from tests.support.own_teacher import PAGE

MODULE = '''
import numpy as np

from teachers import Stream, Teacher, TeacherInfo, Tracks


def still(queries, frames):
    xy = np.repeat(queries[:, None, 1:], frames, axis=1)
    return Tracks(xy, np.ones(xy.shape[:2], np.float32), np.full(xy.shape[:2], np.nan, np.float32))


class Outside(Teacher):
    """Stands still."""

    licence = "CC-BY-NC-SA-4.0"
    streams = True
    tracks_jointly = True
    knows_hidden_points = True
    evidence = "standing still"

    def __init__(self, *, name, checkpoint=None, device="auto", mode="predictor"):
        self.calls = []
        self.info = TeacherInfo(name=name, architecture="rest", mode=mode, visible_rule="v > 0.5")

    def _track(self, frames, queries, seed):
        self.calls.append(len(queries))
        return still(queries, len(frames))

    def stream(self, queries):
        return OutsideStream(queries)


class OutsideStream(Stream):
    def _advance(self, frames):
        return still(self._queries, len(frames))

    def _rest(self):
        return still(self._queries, 0)


class Plain(Teacher):
    """Declares nothing."""

    def __init__(self, *, name, checkpoint=None, device="auto", mode="predictor", **settings):
        self.info = TeacherInfo(
            name=name, architecture="plain", mode=mode, visible_rule="none", licence="MIT"
        )

    def _track(self, frames, queries, seed):
        return still(queries, len(frames))


class Broken(Plain):
    def __init__(self, *, name, checkpoint=None, device="auto", mode="predictor", times=1):
        len(times)


class Incomplete(Plain):
    def __init__(self, *, name, checkpoint, mode, weight):
        pass


class NeedsSetting(Plain):
    def __init__(self, *, name, checkpoint, device, mode, weight):
        pass


def made(*, name, checkpoint=None, device="auto", mode="predictor"):
    return Plain(name=name, mode=mode)
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with trackers."""
    (tmp_path / "outside_trackers.py").write_text(textwrap.dedent(MODULE))
    install(
        tmp_path,
        monkeypatch,
        "tapdistill.teachers",
        "outside = outside_trackers:Outside\nplain = outside_trackers:Plain\n"
        "made = outside_trackers:made",
    )
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(list(arguments)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_what_it_declares_is_stored_and_read_again():
    info = teachers.load("outside").info
    assert (info.licence, info.commercial_use) == ("CC-BY-NC-SA-4.0", False)
    assert info.streams is info.tracks_jointly is info.knows_hidden_points is True
    assert info.evidence == "standing still"
    assert TeacherInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


@pytest.mark.parametrize("name", ["plain", "made"])
def test_one_that_declares_nothing_is_taken_for_the_least(name):
    info = teachers.load(name).info
    assert (info.licence, info.commercial_use) == ("MIT", True)
    assert info.streams is info.tracks_jointly is info.knows_hidden_points is False
    assert info.evidence == "network:plain"
    assert declared("made") is teachers.Teacher


def test_it_streams_and_is_named_to_who_asks_for_one_that_does():
    queries = np.float32([[0, 1, 2], [1, 3, 4]])
    stream = stream_of(teachers.load("outside"), queries)
    assert stream.push(np.zeros((3, 8, 8, 3), np.uint8)).xy.shape == (2, 3, 2)
    with pytest.raises(ConfigError, match=r"'flow' cannot stream.*take one of .*\boutside\b"):
        stream_of(teachers.load("flow"), queries)
    with pytest.raises(ConfigError) as caught:
        stream_of(teachers.load("plain"), queries)
    assert "plain," not in str(caught.value)


def test_it_stands_among_the_licences_with_the_right_flags(capsys):
    text = said(capsys, "teachers")
    assert "CC-BY-NC-SA-4.0" in text
    forbids = (
        text[text.index("Commercial use:") :].partition("; any of ")[2].partition(" forbids")[0]
    )
    assert "outside" in forbids
    unknown = text[text.index("Commercial use:") :].partition(" it is not known")[0]
    assert "plain and made" in unknown.rpartition("; of ")[2]
    rows = {row["name"]: row for row in json.loads(capsys_json(capsys))}
    assert rows["outside"]["commercial_use"] is False
    assert rows["outside"]["streams"] is rows["outside"]["knows_hidden_points"] is True
    assert rows["outside"]["evidence"] == "standing still"
    assert rows["tapir"]["commercial_use"] is True
    assert rows["cotracker3-online"]["streams"] is True
    assert rows["cotracker3-offline"]["streams"] is False
    note = licence_note({"outside": teachers.load("outside").info.to_json()})
    assert note.endswith("no commercial use of these labels, because of outside")


def capsys_json(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(["teachers", "--json"]) == 0
    return capsys.readouterr().out


def test_eval_scores_it_with_its_points_together_or_each_alone(capsys):
    clips = ("--dataset", "procedural", "--clips", "1", "--model", "outside")
    assert "mode benchmark, points all together; visible: v > 0.5" in said(capsys, "eval", *clips)
    alone = said(capsys, "eval", *clips, "--points", "single", "--global-grid", "3")
    assert "mode benchmark, points each alone; visible: v > 0.5" in alone


@pytest.mark.parametrize("module", ["raise RuntimeError('boom')", "None.nothing", "import os.nil"])
def test_a_package_that_fails_is_left_out_with_a_warning_and_stands_in_nobodys_way(
    package, monkeypatch, module, tmp_path, capsys
):
    (package / "broken_trackers.py").write_text(module)
    folder = tmp_path / "another"
    folder.mkdir()
    install(folder, monkeypatch, "tapdistill.teachers", "broken = broken_trackers:Any")
    with pytest.warns(UserWarning, match="teacher 'broken' is left out: "):
        said(capsys, "teachers")
    torch.save(XFeat(XFeatConfig()).state_dict(), tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="teacher 'broken' is left out: "):
        assert recognise(tmp_path / "a.pt") == "xfeat"


def test_an_authors_own_mistake_comes_with_its_traceback(package):
    with pytest.raises(TypeError, match=r"object of type 'int' has no len\(\)"):
        teachers.load("outside_trackers:Broken")
    (package / "late_trackers.py").write_text("import teachers\nteachers.no_such_name")
    with pytest.raises(AttributeError, match="no_such_name"):
        teachers.load("late_trackers:Any")
    (package / "odd_trackers.py").write_text("from json import no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        teachers.load("odd_trackers:Any")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Broken", {"time": 3}, "it has no setting 'time': there are times"),
        ("Incomplete", {}, "does not take `device`, with which every teacher is made"),
        ("NeedsSetting", {}, "it needs the setting 'weight'"),
        ("Nobody", {}, "cannot import 'outside_trackers:Nobody'"),
        ("", {}, "'outside_trackers:' is not of the form 'module:Class'"),
    ],
)
def test_arguments_that_it_does_not_take_are_refused_before_it_is_called(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        teachers.load(f"outside_trackers:{name}", **settings)


def test_a_package_that_it_needs_and_that_is_not_installed_is_named(package):
    (package / "poor_trackers.py").write_text("import no_such_package")
    with pytest.raises(ConfigError, match=r"cannot import .*No module named 'no_such_package'"):
        teachers.load("poor_trackers:Any")


def test_the_page_on_own_teachers_names_everything_that_a_class_declares():
    page = PAGE.read_text()
    for name in (
        "licence",
        "commercial_use",
        "streams",
        "tracks_jointly",
        "knows_hidden_points",
        "evidence",
    ):
        assert f"`{name}`" in page


@pytest.mark.parametrize(
    ("architecture", "jointly", "knows", "evidence"),
    [
        ("CoTracker3 offline, 1.3 M parameters", True, True, "network:cotracker3"),
        ("CoTracker 2.1", True, True, "network:cotracker2"),
        ("PIPs", False, True, "network:pips"),
        ("PIPs++", False, True, "network:pips2"),
        ("BootsTAPIR", False, False, "network:tapir"),
        ("causal BootsTAPIR", False, False, "network:tapir"),
        ("pyramidal Lucas-Kanade, forward-backward check", False, False, "patch-alignment"),
        ("chained dense flow (DIS)", False, False, "flow"),
        ("Farneback flow", False, False, "network:Farneback flow"),
    ],
)
def test_what_shards_did_not_store_yet_is_known_of_their_trackers(
    architecture, jointly, knows, evidence
):
    info = TeacherInfo.from_json(
        {
            "name": "x",
            "architecture": architecture,
            "mode": "label",
            "visible_rule": "none",
            "licence": "CC-BY-NC 4.0",
        }
    )
    assert (info.tracks_jointly, info.knows_hidden_points) == (jointly, knows)
    assert (info.evidence, info.licence, info.commercial_use) == (evidence, "CC-BY-NC-4.0", False)


def test_a_field_of_a_later_version_is_passed_over():
    info = teachers.load("lk").info
    assert TeacherInfo.from_json({**info.to_json(), "colour": "blue"}) == info


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_a_built_in_class_declares_the_licence_of_the_table(entry):
    teacher = declared(entry.name)
    assert entry.shipped or teacher.licence == entry.licence
    assert teacher.evidence
    assert teacher.streams == (teacher.stream is not teachers.Teacher.stream)
