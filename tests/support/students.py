"""What the tests of every student do: short trainings, killed ones, and files as they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from student.data.batch import Batch
from student.training.beginning import first_network
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.events import StepDone
from student.training.interface import Student
from student.training.losses import TapirLossConfig
from student.training.schedule import Optimiser
from student.training.step import add_gradient
from student.training.students import STUDENTS
from student.training.train import train
from teachers.layers.memory import Memory
from tests.support import parity
from tests.support.training import tapir_losses_by_hand


def steps_done(settings: TrainConfig, out: Path) -> list[StepDone]:
    """What a training says of each step."""
    events: list[Any] = []
    train(settings, out, watch=events.append)
    return [event for event in events if isinstance(event, StepDone)]


def prepared(settings: TrainConfig) -> Any:
    """The first network of a training, as its first step gets it."""
    model = first_network(settings)
    size_hw = settings.data.height, settings.data.width
    STUDENTS[settings.student].prepare(model, size_hw, settings.iterations)
    return model


class Killed(Exception):
    """In the middle of a training."""


def whole_and_resumed(settings: TrainConfig, folder: Path) -> tuple[Path, Path]:
    """Weights of a run, and of one that was killed after its second step and went on."""

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            raise Killed

    whole = train(settings, folder / "whole")
    with pytest.raises(Killed):
        train(settings, folder / "killed", watch=stop)
    return whole.weights, train(settings, folder / "killed").weights


def not_moved(settings: TrainConfig, out: Path) -> list[str]:
    """Weights that a training leaves as they were."""
    before = first_network(settings).state_dict()
    after = load_file(train(settings, out).weights)
    return [key for key, value in before.items() if torch.equal(value, after[key])]


def loss_before_and_after(
    student: Student, model: nn.Module, batch: Batch, settings: TrainConfig
) -> tuple[float, float]:
    """TAPIR's losses on a batch, before and after the steps of `settings` on that same batch."""

    def loss() -> float:
        answer = student.track(model, batch.frames, batch.queries, None, Memory(recompute=False))
        return sum(tapir_losses_by_hand(answer.steps, batch, TapirLossConfig()).values())

    before, optimiser = loss(), Optimiser(model, settings.schedule)
    for _ in range(settings.schedule.steps):
        add_gradient(student, model, batch, settings, 1, 0.0)
        optimiser.step()
    return before, loss()


def answer_at_own_size(settings: TrainConfig, batch: Batch) -> Any:
    """What the untrained network of the TAPIR family says of square clips, which go in at their own
    size, and are refined at that alone."""
    side = settings.data.height
    model: Any = first_network(settings)
    model.config = replace(model.config, raster=side)
    frames, queries = batch.frames.permute(0, 1, 4, 2, 3), batch.queries
    with torch.no_grad():
        return model(frames, queries + torch.tensor([0, 0.5, 0.5]), [(side, side)])


def official_student(kind: str, folder: Path) -> tuple[nn.Module, Path]:
    """A student of the published size, untrained, and the file as which it leaves: its keys and
    shapes are those of the official one."""
    student = STUDENTS[kind]
    torch.manual_seed(0)
    model = student.network(student.presets["official"](**student.variant))
    path = Checkpoints(folder, keep=1).export("student", model, student.teacher, {})
    official = {entry["key"]: entry["shape"] for entry in parity.key_list(kind.replace("-", "_"))}
    assert {key: list(value.shape) for key, value in load_file(path).items()} == official
    return model, path


def assert_read_as(model: nn.Module, kind: str, file: Path) -> None:
    """A student of that kind reads its weights and sizes from the file."""
    again = STUDENTS[kind].from_file(file, "official")
    assert again.config == model.config
    assert_equal_states(again.state_dict(), model.state_dict())


def assert_equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key, value in one.items() if not torch.equal(value, other[key])] == []
