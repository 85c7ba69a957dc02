"""The way in: what the command does where another package has the name of one of ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.jobs import ROOT


@pytest.fixture
def folder(tmp_path):
    """A folder of somebody who has packages of the same names."""
    for name in ("teachers", "labeler", "student", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def started(folder, *path: object) -> subprocess.CompletedProcess[str]:
    """`tapdistill --version`, as the console script starts it: without the current folder on the
    path, but for what is in PYTHONPATH."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from tapdistill import main; main()", "--version"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))},
        capture_output=True,
        text=True,
    )


def test_packages_of_the_current_folder_are_no_trouble(folder):
    done = started(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize("name", ["teachers", "pipelines"])
def test_another_package_that_is_found_first_is_named_in_one_sentence(folder, name):
    for other in folder.iterdir():
        if other.name != name:
            (other / "__init__.py").unlink()
            other.rmdir()
    done = started(folder, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"tapdistill: Python finds another package named {name!r} first, in {folder / name}: "
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("first", ["labeler", "student", "pipelines"])
def test_a_script_in_a_folder_with_packages_of_its_own_finds_ours(folder, first):
    """The installation is on the path, behind the folder, which has all but one of them."""
    (folder / first / "__init__.py").unlink()
    (folder / first).rmdir()
    code = f"import {first}, teachers; assert not hasattr(teachers, 'MINE'); print({first}.__all__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_is_ascii_shows_what_it_can(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tapdistill", "status", "l\u00fcck"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"l?ck is not a data set" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m tapdistill label --help | head -1",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("usage:")
