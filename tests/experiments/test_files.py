"""Files of experiments, in experiments/files.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.files import freeze, write_npz, write_whole
from experiments.policies.labels import weights_of_teachers
from teachers import ConfigError


def test_a_file_is_written_over_another_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "made" / "file.json"
    for content in (b"before", b"after"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


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
