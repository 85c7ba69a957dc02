"""Checkpoints: whole or not there, the last few are kept, and exported weights are what every
teacher loads."""

from __future__ import annotations

import json
import resource
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import teachers
from student.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    random_states,
    restore_random_states,
)
from teachers import VisibleRule
from teachers.checkpoints.files import LICENCE, VISIBLE
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config
from teachers.errors import CheckpointError, TransientError
from tests.support import parity

CPU = torch.device("cpu")
SMALL = replace(
    CoTracker3Config.mini(), window=8, resolution=(48, 64), width=32, stages=(8, 8, 8, 8)
)


def network(config: CoTracker3Config = SMALL) -> CoTracker3:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CoTracker3(config)


def checkpoint(step: int) -> Checkpoint:
    model = network()
    return Checkpoint(
        step=step,
        data="",
        position=2 * step,
        network=asdict(model.config),
        config={"seed": 0},
        model=model.state_dict(),
        optimiser={"adamw": {}},
        random=[random_states(CPU)],
        figures={"delta_avg": 0.5},
        best=0.5,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = checkpoint(3)
    Checkpoints(tmp_path, keep=2).save(saved)
    found = Checkpoints(tmp_path, keep=2).latest()
    assert found is not None
    assert {**vars(found), "model": None, "random": None} == {
        **vars(saved),
        "model": None,
        "random": None,
    }
    assert all(torch.equal(found.model[key], value) for key, value in saved.model.items())


def test_the_last_ones_are_kept_and_the_newest_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step in (9, 10, 100):
        checkpoints.save(checkpoint(step))
    assert files(tmp_path) == ["step-00000010.pt", "step-00000100.pt"]
    assert checkpoints.latest().step == 100


def test_a_full_disk_leaves_the_last_checkpoint_as_it_is(tmp_path):
    """A limit on the size of files stands for the full disk: the write fails in the middle."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(checkpoint(1))
    before = (tmp_path / "checkpoints" / "step-00000001.pt").read_bytes()
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(
            TransientError,
            match=(
                r"could not write .*step-00000002\.pt: .*File too large.*run the same command "
                r"again"
            ),
        ):
            checkpoints.save(checkpoint(2))
        with pytest.raises(TransientError, match=r"could not write .*student\.safetensors"):
            checkpoints.export("student", network(), "cotracker3-offline", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path) == ["step-00000001.pt"]
    assert (tmp_path / "checkpoints" / "step-00000001.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:1000], lambda content: b"", lambda content: b"no tensors here"],
)
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(checkpoint(1))
    path = tmp_path / "checkpoints" / "step-00000001.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        CheckpointError,
        match=r"step-00000001\.pt: not a checkpoint of this version of tapdistill, or damaged",
    ):
        checkpoints.latest()


def test_random_numbers_go_on_where_they_were():
    with torch.random.fork_rng():
        states = random_states(CPU)
        first = torch.rand(3)
        restore_random_states(states, CPU)
        assert torch.equal(torch.rand(3), first)


# --- exported weights


def test_an_exported_file_needs_no_preset(tmp_path):
    """Its metadata says how large the network is; the teacher tracks at the network's own
    resolution."""
    model = network()
    path = Checkpoints(tmp_path, keep=1).export(
        "student", model, "cotracker3-offline", {LICENCE: "mine"}
    )
    teacher = teachers.load("cotracker3-offline", checkpoint=str(path), device="cpu")
    assert teacher.model.config == SMALL
    assert all(
        torch.equal(value, model.state_dict()[key])
        for key, value in teacher.model.state_dict().items()
    )
    assert (teacher.info.licence, teacher.info.settings["resolution"]) == ("mine", (48, 64))


def test_an_exported_official_network_has_the_official_keys_and_shapes(tmp_path):
    path = Checkpoints(tmp_path, keep=1).export(
        "student", network(CoTracker3Config()), "cotracker3-offline", {}
    )
    own = {key: list(value.shape) for key, value in load_file(path).items()}
    assert own == {entry["key"]: entry["shape"] for entry in parity.key_list("cotracker3_offline")}
    assert (
        teachers.load("cotracker3-offline", checkpoint=str(path), device="cpu").info.architecture
        == "CoTracker3 offline"
    )


def test_metadata_of_another_network_is_refused(tmp_path):
    path = Checkpoints(tmp_path, keep=1).export(
        "student", network(), "cotracker3-offline", {"config": json.dumps({"pyramid": 3})}
    )
    with pytest.raises(
        CheckpointError,
        match=r"student\.safetensors: its metadata does not describe a CoTracker3 network",
    ):
        teachers.load("cotracker3-offline", checkpoint=str(path), device="cpu")


@pytest.mark.parametrize("mode", ["predictor", "label", "benchmark"])
def test_the_visible_rule_that_fits_the_weights_goes_before_the_published_one(tmp_path, mode):
    checkpoints = Checkpoints(tmp_path, keep=1)
    paths = {
        name: str(checkpoints.export(name, network(), "cotracker3-offline", notes))
        for name, notes in (("published", {}), ("fitted", {VISIBLE: "v*c > 0.35"}))
    }
    published, fitted = (
        teachers.load("cotracker3-offline", checkpoint=path, device="cpu", mode=mode)
        for path in paths.values()
    )
    assert published.info.rule == ct3_rules()[mode]
    assert fitted.info.rule == VisibleRule("v*c", 0.35)
    assert fitted.published_rule == published.info.rule


def ct3_rules() -> dict[str, VisibleRule]:
    """As published."""
    v, both = VisibleRule("v", 0.9), VisibleRule("v*c", 0.6)
    return {"predictor": v, "label": v, "benchmark": both}


def test_a_visible_rule_that_is_none_is_refused(tmp_path):
    path = Checkpoints(tmp_path, keep=1).export(
        "student", network(), "cotracker3-offline", {VISIBLE: "when the sun shines"}
    )
    with pytest.raises(
        CheckpointError, match=r"student\.safetensors: its metadata name no visible"
    ):
        teachers.load("cotracker3-offline", checkpoint=str(path), device="cpu")
