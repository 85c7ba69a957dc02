"""A label policy of another package takes part fully: in training, inspect, eval, and export."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from labeler import open_dataset
from labeler.labels import policies
from labeler.labels.policies import choose, find, names
from pipelines import cli
from student.data.mixture import batches
from student.data.reader import open_clips, read_clip
from teachers import ConfigError, Tracks, VisibleRule
from tests.support.installed import install
from tests.support.own_policy import SNIPPET
from tests.support.training import small_data

GROUP = "tapdistill.policies"
OWN = "tests.support.own_policy:MostTrusted"
ARGUMENTS = {
    "tracks": {"a": Tracks.nan(2, 3)},
    "rules": {"a": VisibleRule("v", 0.5)},
    "queries": np.zeros((2, 3), np.float32),
    "size_hw": (48, 64),
}


@pytest.fixture
def registered(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "installed"
    folder.mkdir()
    install(folder, monkeypatch, GROUP, f"most-trusted = {OWN}\nrandom = {OWN}")
    return "most-trusted"


def test_the_documented_example_is_about_twenty_lines():
    assert len([line for line in SNIPPET.splitlines() if line.strip()]) <= 20


def test_an_installed_package_adds_policies_and_takes_no_name_of_ours(registered):
    assert names() == [*policies.POLICIES, "most-trusted"]
    assert type(find("most-trusted")).__name__ == "MostTrusted"
    assert isinstance(find("random"), policies.Random)


def test_training_learns_from_it(registered, dataset):
    config = small_data(dataset.folder, policy=registered)
    batch = next(batches(config, seed=0))
    assert batch.valid.any()
    clips, _ = open_clips((str(dataset.folder),), (32, 48))
    there = read_clip(clips[0], registered, np.random.default_rng(0))
    by_place = read_clip(clips[0], OWN, np.random.default_rng(0))
    np.testing.assert_array_equal(there.xy, by_place.xy)


def test_labels_of_before_are_refused_for_one_that_needs_a_verdict(registered):
    old = Path(__file__).parents[2] / "data" / "dataset_schema1"
    config = small_data(old, policy=registered)
    with pytest.raises(ConfigError, match="policy 'most-trusted' needs the verifier's verdict"):
        batches(config, seed=0)


def test_inspect_says_what_it_would_take(registered, dataset, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert cli.run(["inspect", str(dataset.folder), "--out", str(page), "--clips", "1"]) == 0
    assert "most-trusted" in capsys.readouterr().out
    assert "most-trusted" in page.read_text()
    assert cli.run(["inspect", str(dataset.folder), "--out", "None", "--policy", OWN]) == 0
    assert OWN in capsys.readouterr().out
    table = open_dataset(str(dataset.folder)).by_policy("verified", registered)
    assert list(table.index) == ["verified", "most-trusted"]
    assert (table >= 0).all(axis=None)
    assert (table <= 1).all(axis=None)


@pytest.mark.slow
def test_eval_scores_its_labels(registered, capsys):
    flags = ("--clips", "1", "--policy", f"{registered},verified")
    assert cli.run(["eval", "--model", "lk", "flow", "--dataset", "procedural", *flags]) == 0
    assert "most-trusted" in capsys.readouterr().out


def test_export_writes_its_labels(registered, dataset, tmp_path):
    flags = ("--to", "tapvid-npz", "--out", str(tmp_path / "out"), "--policy", registered)
    assert cli.run(["export", str(dataset.folder), *flags]) == 0
    assert any((tmp_path / "out").iterdir())


MODULE = """
import numpy as np
from labeler.labels.policies import LabelPolicy, Target


class Flat(LabelPolicy):
    def choose(self, clip, rng):
        flat = np.ones(len(clip.queries), bool)
        return Target(np.zeros((len(flat), 2), np.float32), flat, flat, np.zeros(len(flat), int))


class Nowhere(LabelPolicy):
    def choose(self, clip, rng):
        all_of_it = np.ones(clip.tracks["a"].xy.shape[:2], bool)
        nowhere = np.full((*all_of_it.shape, 2), np.nan, np.float32)
        return Target(nowhere, all_of_it, all_of_it, np.zeros(all_of_it.shape, int))
"""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:B", "label policy 'x': cannot import 'no_such_module:B'"),
        ("builtins:Nobody", "label policy 'x': cannot import 'builtins:Nobody'"),
        ("builtins:dict", "label policy 'x': .* did not make a LabelPolicy"),
        ("made_for_a_test:Flat", r"label policy 'x': xy is float32 \(2, 2\), not .*\(2, 3, 2\)"),
        ("made_for_a_test:Nowhere", "label policy 'x': a frame that it uses as visible has no pos"),
    ],
)
def test_a_policy_that_cannot_be_right_is_named(tmp_path, monkeypatch, place, message):
    (tmp_path / "made_for_a_test.py").write_text(textwrap.dedent(MODULE))
    install(tmp_path, monkeypatch, GROUP, f"x = {place}")
    with pytest.raises(ConfigError, match=message):
        choose("x", rng=np.random.default_rng(0), **ARGUMENTS)


def test_a_name_that_nobody_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no label policy 'best': there are random, .*add-a"):
        find("best")


@pytest.mark.parametrize("place", ["labels:", ":Class"])
def test_half_a_place_is_refused(place):
    with pytest.raises(ConfigError, match="is not of the form 'module:Class'"):
        find(place)
