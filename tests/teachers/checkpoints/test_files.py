"""Checkpoint files of teachers: every wrapping that training scripts make, and every file that is
not what it should be."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from teachers import CheckpointError, ConfigError
from teachers.checkpoints.architectures import configs, teachers_with, weightless
from teachers.checkpoints.check import check
from teachers.checkpoints.files import CONFIG, load_weights, read_weights
from teachers.pips.pips import Pips, PipsConfig
from tests.support import parity

OFFICIAL = {
    "cotracker3-offline": "cotracker3_offline",
    "cotracker3-offline-baseline": "cotracker3_offline",
    "cotracker3-online": "cotracker3_online",
    "cotracker3-online-baseline": "cotracker3_online",
    "cotracker2": "cotracker2",
    "tapir": "tapir",
    "bootstapir": "bootstapir",
    "bootstapir-causal": "bootstapir_causal",
    "pips": "pips",
    "pips2": "pips2",
    "locotrack-base": "locotrack_base",
    "locotrack-small": "locotrack_small",
    "alltracker": "alltracker",
    "alltracker-tiny": "alltracker_tiny",
    "tapnext": "tapnext_b",
    "bootstapnext": "tapnext_b",
    "tapnextpp": "tapnext_b",
    "tapnextpp-512": "tapnext_b",
}
"""Teacher -> the key list of its official file."""

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of `pips`, preset mini."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pips(PipsConfig.mini()).state_dict()


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official file, without the constant table of TAPNext, which is computed
    (tests/teachers/tapnext/test_teacher.py has files with it)."""
    return {
        entry["key"]: tuple(entry["shape"])
        for entry in parity.key_list(OFFICIAL[name])
        if entry["key"] != "query_pos_embed"
    }


# --- what is read


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"model": w, "optimizer": {"state": {}, "param_groups": []}, "total_steps": 7},
        lambda w: {"model_state_dict": w, "optimizer_state_dict": {}},
        lambda w: {
            "state_dict": prefixed(w, "model."),
            "epoch": 3,
            "pytorch-lightning_version": "2.4",
            "hyper_parameters": {"lr": 1},
        },
        lambda w: {"state_dict": prefixed(w, "model.module."), "global_step": 1},
        lambda w: prefixed(w, "module."),
        lambda w: {"model": prefixed(w, "module._orig_mod.")},
        lambda w: {"state_dict": {"model": w}},
        lambda w: {key: value.half() for key, value in w.items()},
    ],
    ids=[
        "plain",
        "model",
        "model_state_dict",
        "lightning",
        "lightning, ddp",
        "ddp",
        "ddp, compiled",
        "nested",
        "float16",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".anything"])
def test_weights_are_found_in_what_training_scripts_wrap_around_them(
    weights, tmp_path, wrap, suffix
):
    torch.save(wrap(weights), tmp_path / f"w{suffix}")
    network = Pips(PipsConfig.mini())
    assert (
        load_weights(network, tmp_path / f"w{suffix}", "pips")
        == hashlib.sha256((tmp_path / f"w{suffix}").read_bytes()).hexdigest()
    )
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, weights[key], atol=1e-3, rtol=1e-3)  # float16 has 11 bits


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.ckpt", "w"])
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_the_format_is_known_by_its_content_whatever_the_name(tmp_path, save, name):
    save({"module.a": torch.ones(2)}, tmp_path / name)
    assert read_weights(tmp_path / name).keys() == {"a"}


def test_torch_files_of_the_old_format_are_read(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "w.pth").keys() == weights.keys()


def test_a_prefix_that_only_some_keys_have_stays(tmp_path):
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == {"model.a", "b"}


# --- what is refused


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "write",
    [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))],
    ids=["torch", "pickle"],
)
def test_a_file_that_wants_to_run_code_is_refused_and_nothing_runs(weights, tmp_path, write):
    write(
        {
            "state_dict": weights if write is torch.save else {},
            "hook": Intruder(tmp_path / "it-ran"),
        },
        tmp_path / "evil.pth",
    )
    with pytest.raises(
        CheckpointError,
        match=r"evil\.pth: not a checkpoint .*: it wants to run code \((posix|nt|os)\.mkdir\)",
    ) as caught:
        read_weights(tmp_path / "evil.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.99])
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_a_file_that_is_cut_off_is_refused(weights, tmp_path, save, share):
    save(weights, tmp_path / "w.pth")
    cut(tmp_path / "w.pth", share)
    with pytest.raises(
        CheckpointError, match=r"w\.pth: not a checkpoint that can be read as tensors alone: it is "
    ) as caught:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html><body>quota exceeded", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
            "it is not a file of torch or safetensors, or it is damaged",
        ),
        (
            b"\x80\x02" + bytes(range(256)),
            "it is not a file of torch or safetensors, or it is damaged|Error",
        ),
    ],
    ids=["empty", "web page", "git-lfs pointer", "noise"],
)
def test_what_servers_send_instead_of_a_file_is_named(tmp_path, content, reason):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=rf"w\.pth: not a checkpoint that can be read as tensors alone: ({reason})",
    ):
        read_weights(tmp_path / "w.pth")


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
        file.writestr("a.txt", "hello")
    with pytest.raises(
        CheckpointError, match=r"w\.pth: not a checkpoint that can be read as tensors alone: "
    ):
        read_weights(tmp_path / "w.pth")


def test_a_folder_is_no_checkpoint_and_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such checkpoint file"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [{"step": 7}, {}, [1, 2]])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "state.pth")
    with pytest.raises(CheckpointError, match=r"state\.pth: holds no state dict"):
        read_weights(tmp_path / "state.pth")


# --- whose it is


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_keys_of_every_official_file_are_those_of_its_network(name):
    own = {
        key: tuple(value.shape)
        for key, value in weightless(name, configs(name)["official"]).state_dict().items()
    }
    assert own == shapes(name)


def test_every_official_file_is_recognised_and_twins_are_named_together():
    twins = {
        "cotracker3-offline": ["'cotracker3-offline'", "'cotracker3-offline-baseline'"],
        "cotracker3-online": ["'cotracker3-online'", "'cotracker3-online-baseline'"],
        "bootstapir": ["'bootstapir'", "'bootstapir-causal'"],
        "tapir": ["'tapir'"],
        "cotracker2": ["'cotracker2'"],
        "pips": ["'pips'"],
        "pips2": ["'pips2'"],
        "locotrack-base": ["'locotrack-base'"],
        "locotrack-small": ["'locotrack-small'"],
        "alltracker": ["'alltracker'"],
        "alltracker-tiny": ["'alltracker-tiny'"],
        "tapnext": ["'tapnext'", "'bootstapnext'", "'tapnextpp'", "'tapnextpp-512'"],
    }
    assert {name: teachers_with(shapes(name)) for name in twins} == twins


def write_official(
    name: str, path: Path, change: Callable[[Weights], object] = lambda weights: None
) -> Path:
    """A file with the keys and shapes of an official one."""
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes(name).items()}
    change(weights)
    torch.save(weights, path)
    return path


def test_the_file_of_another_teacher_is_named_for_what_it_is(tmp_path):
    path = write_official("bootstapir", tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError,
        match=(
            r"w\.pt: not a checkpoint of 'tapir': 30 of 218 keys are unexpected \(first: .*\); 1 "
            r"of 188 keys have another shape .*It looks like a file of 'bootstapir' or "
            r"'bootstapir-causal': name that one, or get the file that belongs to 'tapir' "
            r"\(`tapdistill teachers pull tapir`\)"
        ),
    ):
        check("tapir", path)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("tapir", "locotrack-base"),
        ("locotrack-small", "locotrack-base"),
        ("alltracker", "alltracker-tiny"),
        ("cotracker3-offline", "alltracker"),
        ("locotrack-base", "tapnextpp"),
        ("tapnext", "bootstapir"),
    ],
)
def test_files_of_the_later_families_are_named_for_what_they_are(asked, given, tmp_path):
    path = write_official(given, tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError,
        match=rf"not a checkpoint of '{asked}'.*It looks like a file of .*'{given}'",
    ):
        check(asked, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("norm.weight"),
            r"1 of 200 keys are missing \(first: norm\.weight\)\. It looks like a file of 'pips' "
            r"that was changed",
        ),
        (
            lambda w: w.update(extra=torch.zeros(1)),
            r"1 of 201 keys are unexpected \(first: extra\)",
        ),
        (
            lambda w: w.update({"norm.weight": torch.zeros(7)}),
            r"1 of 200 keys have another shape \(first: norm\.weight is \[7\] where",
        ),
        (
            lambda w: [w.pop(key) for key in list(w)[10:]],
            r"190 of 200 keys are missing .*No teacher here has such keys",
        ),
    ],
    ids=["missing", "unexpected", "shape", "most missing"],
)
def test_what_differs_is_counted_and_the_first_are_named(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        check("pips", write_official("pips", tmp_path / "w.pth", change))


def test_a_check_gives_hash_size_and_preset_without_making_the_network(tmp_path):
    path = write_official("bootstapir", tmp_path / "w.pt")
    checked = check("bootstapir", path)
    assert checked.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert 54_600_000 < checked.parameters < 54_800_000
    assert checked.preset == "official"


def test_a_network_of_its_own_size_is_checked_by_what_its_file_says(tmp_path):
    small = PipsConfig(
        stages=(8, 8, 8, 8), channels=16, levels=2, code_channels=8, width=32, blocks=1
    )
    save_file(
        Pips(small).state_dict(), tmp_path / "w.safetensors", {CONFIG: json.dumps(asdict(small))}
    )
    assert check("pips", tmp_path / "w.safetensors").preset == "own"
    with pytest.raises(CheckpointError, match="its metadata does not describe a Tapir network"):
        check("tapir", tmp_path / "w.safetensors")


def test_only_learnt_teachers_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="'lk' has no weights that can be checked"):
        check("lk", tmp_path / "w.pth")
