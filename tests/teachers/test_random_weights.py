"""Random weights: only by name, and never a label, whichever way one asks."""

from __future__ import annotations

import pytest

import teachers
from labeler.unit import do_unit, refuse_untrained
from pipelines import cli
from pipelines.engines.common import TeacherSpec
from pipelines.engines.local import LocalTrackers
from teachers import CheckpointError, ConfigError, registry
from teachers.checkpoints.cache import weights_folder

LEARNT = [entry.name for entry in registry.TABLE if entry.file]


@pytest.fixture(autouse=True)
def nothing_pulled(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", LEARNT)
@pytest.mark.parametrize("preset", ["official", "mini"])
def test_a_learnt_teacher_is_not_made_without_weights(name, preset):
    with pytest.raises(CheckpointError, match=f"'{name}' has no weights"):
        teachers.load(name, device="cpu", preset=preset)


@pytest.mark.parametrize("word", ["Random", "RANDOM", "none", "", "auto"])
def test_only_the_exact_word_means_random(word):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        teachers.load("pips", checkpoint=word, device="cpu", preset="mini")


@pytest.mark.parametrize("name", LEARNT)
def test_a_teacher_with_random_weights_says_so(name):
    teacher = teachers.load(name, checkpoint="random", device="cpu", preset="mini")
    assert teacher.info.checkpoint_sha256 == "random"
    with pytest.raises(
        ConfigError, match=f"teacher '{name}' has random weights: noise is never a label"
    ):
        refuse_untrained({name: teacher.info})


def test_a_job_does_not_take_random_weights(tmp_path, capsys):
    with pytest.raises(
        ConfigError, match="teacher 'pips' has random weights: noise is never a label"
    ):
        TeacherSpec(name="pips", checkpoint="random", device="cpu").load()
    out = tmp_path / "labels"
    code = cli.run(
        [
            "label",
            str(tmp_path),
            "--out",
            str(out),
            "--engine",
            "local",
            "--teachers",
            "lk",
            "pips",
            "--checkpoint",
            "pips=random",
        ]
    )
    assert code == 1
    assert not list(out.glob("shards/*"))


def test_a_unit_is_not_labelled_by_random_weights_that_came_in_another_way(tmp_path):
    """As from Python, with teachers that somebody made by hand."""
    trackers = LocalTrackers([])
    trackers._teachers["pips"] = teachers.load(
        "pips", checkpoint="random", device="cpu", preset="mini"
    )
    with pytest.raises(ConfigError, match="teacher 'pips' has random weights"):
        next(do_unit(None, None, None, trackers))  # type: ignore[arg-type]  refused before anything is looked at


def test_a_random_teacher_leaves_nothing_in_the_cache():
    teachers.load("pips", checkpoint="random", device="cpu", preset="mini")
    assert not weights_folder().exists()
