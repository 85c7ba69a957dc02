"""Files of experiments, in experiments/files.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import files
from experiments.files import freeze, write_npz, write_whole
from experiments.policies.labels import weights_of_teachers
from teachers import ConfigError


def test_a_file_is_there_only_when_all_of_it_is(tmp_path, monkeypatch):
    path = tmp_path / "made" / "file.json"
    write_whole(path, b"before")

    def killed(partial, target):
        assert partial.parent == path.parent
        assert partial.read_bytes() == b"after"
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"


def test_two_processes_do_not_write_into_one_partial_file(tmp_path, monkeypatch):
    partials = []
    monkeypatch.setattr(files.os, "replace", lambda partial, target: partials.append(partial))
    for process in (1, 2):
        monkeypatch.setattr(files.os, "getpid", lambda process=process: process)
        write_whole(tmp_path / "file", b"%d" % process)
    assert [partial.read_bytes() for partial in partials] == [b"1", b"2"]


def test_arrays_come_back(tmp_path):
    write_npz(tmp_path / "a.npz", xy=np.arange(6).reshape(2, 3))
    with np.load(tmp_path / "a.npz") as stored:
        np.testing.assert_array_equal(stored["xy"], [[0, 1, 2], [3, 4, 5]])


def test_a_folder_of_other_settings_is_refused_and_stays(tmp_path):
    file = tmp_path / "experiment.json"
    freeze(file, {"steps": 2, "weights": {"tapir-mini": "abc"}})
    freeze(file, {"steps": 2, "weights": {"tapir-mini": "abc"}})
    with pytest.raises(ConfigError, match=r"weights = .*abc.*, not .*def.*: give another --out"):
        freeze(file, {"steps": 2, "weights": {"tapir-mini": "def"}})
    assert json.loads(file.read_text())["weights"] == {"tapir-mini": "abc"}


def test_teachers_are_known_by_their_weights():
    found = weights_of_teachers(("lk", "tapir-mini"))
    assert found["lk"] is None
    assert len(found["tapir-mini"]) == 64
