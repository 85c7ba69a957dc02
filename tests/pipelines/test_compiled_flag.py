"""`--compiled`: which networks are handed to `torch.compile`, and what their tracks say of it.

What compiling does to the tracks is in `tests.teachers.layers.test_compiled`; here, nothing is
compiled.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.harness.jobs import write_moving
from pipelines.commands.eval import EvalCommand, trackers_of
from pipelines.commands.live import LiveCommand
from pipelines.jobs.config import LabelConfig
from pipelines.live.trackers import LiveTrackers
from pipelines.terminal.flags import parse
from teachers import ConfigError
from tests.support.tracking import arrays_of, track


@pytest.fixture
def compiled(monkeypatch):
    """The names of the networks' classes that `torch.compile` would have got."""
    names: list[str] = []
    monkeypatch.setattr(
        "teachers.network_teacher.compile_parts",
        lambda network: names.append(type(network).__name__),
    )
    return names


def compiled_settings(teachers):
    return {teacher.info.name: teacher.info.settings.get("compiled") for teacher in teachers}


def test_track_compiles_the_network_and_writes_that_it_did(compiled, tmp_path):
    video = write_moving(tmp_path / "v.mp4", seed=0, frames=3)
    given = ("--teacher", "lk,tapir-mini", "--grid", 1, "--device", "cpu", "--tracks")
    assert track(video, *given, tmp_path / "plain.npz") == 0
    assert not compiled
    assert track(video, *given, tmp_path / "out.npz", "--compiled") == 0
    assert compiled == ["Tapir"]

    def stored(name):
        return json.loads(str(arrays_of(tmp_path / f"{name}.npz")["info"]))["settings"]

    assert stored("out.tapir-mini") == stored("plain.tapir-mini") | {"compiled": True}
    assert stored("out.lk") == stored("plain.lk")
    for name in ("lk", "tapir-mini"):
        plain, found = (
            arrays_of(tmp_path / f"{each}.{name}.npz")["xy"] for each in ("plain", "out")
        )
        np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("flag", [True, False])
def test_label_compiles_the_networks_in_every_process_that_makes_them(compiled, flag):
    teachers = ["--teachers", "lk", "tapir-mini"]
    given = ["videos", "--out", "out", *teachers, "--device", "cpu", *["--compiled"][: int(flag)]]
    loaded = [spec.load() for spec in parse(LabelConfig, "label", given).specs()]
    assert compiled_settings(loaded) == {"lk": None, "tapir-mini": True if flag else None}
    assert compiled == ["Tapir"] * flag


def test_eval_compiles_the_networks(compiled):
    given = ["--model", "lk", "tapir-mini", "--device", "cpu", "--compiled"]
    command = parse(EvalCommand, "eval", given)
    assert compiled_settings(trackers_of(command).values()) == {"lk": None, "tapir-mini": True}
    assert compiled == ["Tapir"]


def test_live_compiles_a_tracker_when_it_is_chosen(compiled):
    assert parse(LiveCommand, "live", ["--compiled"]).compiled
    trackers = LiveTrackers(["lk", "tapir-mini"], device="cpu", compiled=True)
    assert not compiled
    loaded = [trackers.load(title) for title in ("lk", "tapir-mini", "tapir-mini")]
    assert compiled_settings(loaded) == {"lk": None, "tapir-mini": True}
    assert compiled == ["Tapir"]


def test_where_nothing_could_be_compiled_the_flag_is_refused(compiled, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--compiled: lk, xfeat: none is a network"):
        LabelConfig(videos=("v",), out="out", teachers=("lk", "xfeat"), compiled=True)
    with pytest.raises(ConfigError, match="--compiled: lk: none is a network"):
        trackers_of(EvalCommand(model=("lk",), compiled=True))
    video = write_moving(tmp_path / "v.mp4", seed=0, frames=3)
    tracks = tmp_path / "out.npz"
    assert track(video, "--teacher", "lk", "--tracks", tracks, "--compiled") == 1
    assert "--compiled: lk: none is a network" in capsys.readouterr().err
    assert not tracks.exists()
