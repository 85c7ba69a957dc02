"""A training whose --out is an address: killed, it goes on from there, to the same weights."""

from __future__ import annotations

import fsspec
import pytest
from safetensors.torch import load

from student.training.events import Saved
from student.training.mirror import mirror
from student.training.train import train
from teachers.errors import CheckpointError
from tests.student.training.test_train import config
from tests.support.training import assert_same_weights

URL = "memory://students/one"


class Killed(Exception):
    pass


@pytest.fixture
def fs():
    fs = fsspec.filesystem("memory")
    yield fs
    if fs.exists("/students"):
        fs.rm("/students", recursive=True)


def names(fs) -> set[str]:
    return {name.partition("/students/one/")[2] for name in fs.find("/students/one")}


def test_a_run_at_an_address_goes_on_from_there(tmp_path, fs):
    def stop(event: object) -> None:
        if isinstance(event, Saved) and event.step == 2:
            raise Killed

    whole = train(config(), tmp_path / "whole")
    with pytest.raises(Killed):
        train(config(), URL, watch=stop)
    assert {"checkpoints/step-00000002.pt"} == {n for n in names(fs) if n.endswith(".pt")}
    steps = []
    result = train(config(), URL, watch=lambda event: steps.append(getattr(event, "step", None)))
    assert min(step for step in steps if step) == 2  # it began there
    assert str(result.weights).endswith("students/one/student.safetensors")
    assert any("events.out.tfevents" in name for name in names(fs))
    (tmp_path / "there.safetensors").write_bytes(fs.cat_file("/students/one/student.safetensors"))
    assert_same_weights(whole.weights, tmp_path / "there.safetensors")
    assert load(fs.cat_file("/students/one/student.safetensors"))


def test_what_is_no_checkpoint_is_neither_fetched_nor_removed(fs):
    train(config(), URL)
    fs.pipe("/students/one/checkpoints/step-00001000.pt.bak", b"mine")
    steps = []
    train(config(), URL, watch=lambda event: steps.append(getattr(event, "step", None)))
    assert min(step for step in steps if step is not None) > 0  # it goes on, it does not begin
    assert fs.cat_file("/students/one/checkpoints/step-00001000.pt.bak") == b"mine"


def test_what_is_removed_here_is_removed_there(fs):
    with mirror(URL, True) as copy:
        copy.fetch()
        checkpoints = copy.folder / "checkpoints"
        for step in (1, 2, 3):
            (checkpoints / f"step-00000{step}.pt").write_bytes(b"%d" % step)
        copy.send()
    assert len(names(fs)) == 3
    with mirror(URL, True) as copy:  # another process, which needs the newest alone
        copy.fetch()
        there = sorted(path.name for path in (copy.folder / "checkpoints").iterdir())
        assert there == ["step-000003.pt"]
        copy.send()
        assert len(names(fs)) == 3
        (copy.folder / "checkpoints" / "step-000003.pt").unlink()
        (copy.folder / "checkpoints" / "step-000004.pt").write_bytes(b"4")
        copy.send()
    assert names(fs) == {"checkpoints/step-000004.pt"}


def test_what_is_wrong_at_an_address_is_said_of_the_address(fs):
    fs.pipe_file("/students/one/checkpoints/step-00000002.pt", b"damaged")
    with pytest.raises(CheckpointError, match=r"^memory://students/one/checkpoints/step-00000002"):
        train(config(), URL)
