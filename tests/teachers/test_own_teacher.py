"""A teacher of one's own: by "module:Class", by entry point, and through the contract."""

from __future__ import annotations

import numpy as np
import pytest

import teachers
from teachers import ConfigError
from tests.support.contract import run_contract
from tests.support.installed import install
from tests.support.own_teacher import SNIPPET

GROUP = "tapdistill.teachers"
OWN = "tests.support.own_teacher:FarnebackTeacher"


def test_the_documented_example_is_about_thirty_lines():
    assert len([line for line in SNIPPET.splitlines() if line.strip()]) <= 35


def test_it_is_used_by_its_place_and_stored_under_the_name_of_its_class(frames_and_queries):
    teacher = teachers.load(OWN, window_px=9)
    assert (teacher.info.name, teacher.info.settings) == ("farnebackteacher", {"window_px": 9})
    assert np.isfinite(teacher.track(*frames_and_queries).xy).all()


def test_an_installed_package_adds_teachers_by_entry_point(
    tmp_path, monkeypatch, frames_and_queries
):
    install(tmp_path, monkeypatch, GROUP, f"farneback = {OWN}")
    assert "farneback" in teachers.names()
    teacher = teachers.load("farneback")
    assert teacher.info.name == "farneback"
    np.testing.assert_array_equal(
        teacher.track(*frames_and_queries).xy, teachers.load(OWN).track(*frames_and_queries).xy
    )


def test_a_package_does_not_take_the_name_of_a_built_in_teacher(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, GROUP, f"lk = {OWN}")
    assert teachers.load("lk").info.architecture != "Farneback flow"


@pytest.mark.parametrize(
    ("entry_point", "name", "message"),
    [
        ("Bad_Name = a:B", "lk", "'Bad_Name' cannot be the name of a teacher"),
        ("lost = no_such_module:B", "lost", "teacher 'lost': cannot import 'no_such_module:B'"),
        (
            f"lost = {OWN.partition(':')[0]}:Nobody",
            "lost",
            "teacher 'lost': cannot import .*Nobody",
        ),
        ("wrong = builtins:dict", "wrong", "teacher 'wrong': .* did not make a Teacher"),
    ],
)
def test_a_registration_that_cannot_be_right_is_named(
    tmp_path, monkeypatch, entry_point, name, message
):
    install(tmp_path, monkeypatch, GROUP, entry_point)
    with pytest.raises(ConfigError, match=message):
        teachers.load(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "passes"),
    [(OWN, True), ("benchmarks.harness.teachers:Still", False)],
    ids=["one that tracks", "one that does not follow"],
)
def test_the_contract_runs_over_a_teacher_that_is_named(named, passes):
    outcome = run_contract(named)
    assert (outcome.returncode == 0) == passes, outcome.stdout
    assert ("test_a_moving_texture_is_followed_forwards_and_backwards" in outcome.stdout) != passes
