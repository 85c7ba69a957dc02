"""Where Ray keeps its files: a home that cannot be written, a TMPDIR that is too long."""

from __future__ import annotations

import os

import pytest

from pipelines.engines import ray as engine
from pipelines.engines import ray_environment
from pipelines.engines.ray_environment import LONGEST_TMPDIR, give_folders
from teachers import ConfigError, TransientError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Changes of the environment end with the test."""
    for name in ("RAY_TMPDIR", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, os.environ.get(name, "/tmp"))
    monkeypatch.delenv("RAY_TMPDIR")


def test_a_long_folder_for_temporary_files_is_not_rays(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 60)))
    give_folders()
    assert len(os.environ["RAY_TMPDIR"]) <= LONGEST_TMPDIR


def test_a_short_one_stays(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp")
    give_folders()
    assert "RAY_TMPDIR" not in os.environ


def test_where_none_can_be_written_the_message_says_what_to_set(monkeypatch):
    monkeypatch.setattr(ray_environment.os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"Set RAY_TMPDIR to one, or use --engine local"):
        give_folders()


def test_without_a_home_ray_gets_one(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    give_folders()
    assert os.access(os.environ["HOME"], os.W_OK)
    os.rmdir(os.environ["HOME"])


def test_where_ray_does_not_start_the_message_names_the_engine_without_it(monkeypatch):
    """What Ray raises on a machine that is too busy."""

    def too_late(**settings):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.ray, "init", too_late)
    told = "Ray did not start on this machine: The current node timed out .*--engine local"
    with pytest.raises(TransientError, match=told), engine.connected(None, workers=1):
        pass
