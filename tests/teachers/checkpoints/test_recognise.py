"""Which teacher a checkpoint file is for: told by the official key lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from teachers.checkpoints.recognise import recognise
from teachers.errors import CheckpointError
from tests.support.parity import key_list


def write(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A checkpoint of zeros that takes no room."""
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, path)
    return path


def shapes(keys: str) -> dict[str, tuple[int, ...]]:
    return {entry["key"]: tuple(entry["shape"]) for entry in key_list(keys)}


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("cotracker3_offline", "cotracker3-offline"),
        ("cotracker3_online", "cotracker3-online"),
        ("cotracker2", "cotracker2"),
        ("tapir", "tapir"),
        ("pips", "pips"),
        ("pips2", "pips2"),
        ("locotrack_base", "locotrack-base"),
        ("locotrack_small", "locotrack-small"),
        ("alltracker", "alltracker"),
        ("alltracker_tiny", "alltracker-tiny"),
    ],
)
def test_an_official_file_is_recognised_by_its_keys_and_shapes(tmp_path, keys, name):
    assert recognise(write(tmp_path / "weights.pth", shapes(keys))) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("bootstapir_checkpoint_v2.pt", "bootstapir"),
        ("causal_bootstapir_checkpoint.pt", "bootstapir-causal"),
    ],
)
def test_networks_with_the_same_keys_are_told_apart_by_the_published_name(tmp_path, file, name):
    assert shapes("bootstapir") == shapes("bootstapir_causal")
    assert recognise(write(tmp_path / file, shapes("bootstapir"))) == name


def test_a_file_that_two_networks_could_have_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"are those of bootstapir and of bootstapir-causal: write NAME=.*x\.pt",
    ):
        recognise(write(tmp_path / "x.pt", shapes("bootstapir")))


def test_a_file_of_no_known_network_needs_a_name(tmp_path):
    path = write(tmp_path / "weights.pth", {"a.weight": (3, 3)})
    with pytest.raises(
        CheckpointError,
        match=r"weights\.pth: does not say which network it is of.*write NAME=.*weights\.pth",
    ):
        recognise(path)


def test_a_file_that_is_no_checkpoint_says_so(tmp_path):
    (tmp_path / "weights.pth").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"weights\.pth: not a checkpoint"):
        recognise(tmp_path / "weights.pth")
