"""Running mean of the weights: of all so far at first, then with a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from student.training.running_mean import RunningMean
from student.training.schedule import ScheduleConfig
from teachers.errors import ConfigError


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.register_buffer("fixed", torch.tensor(7.0))


def run(mean: RunningMean, model: Number, values: list[float], first: int = 1) -> list[float]:
    found = []
    for step, value in enumerate(values, first):
        model.value.data.fill_(value)
        mean.add(step)
        found.append(mean.weights()["value"].item())
    return found


def test_it_is_the_mean_of_all_weights_until_there_are_enough_of_them():
    model = Number(3.0)
    values = [1.0, 5.0, 7.0, 2.0]
    found = run(RunningMean(model, 100), model, values)
    np.testing.assert_allclose(found, [np.mean([3.0, *values[:n]]) for n in range(1, 5)], rtol=1e-6)


def test_then_each_step_enters_with_its_share():
    model = Number(0.0)
    found = run(RunningMean(model, 2), model, [1.0, 1.0, 0.0])
    # halves from the first step on: (0 + 1) / 2, (0.5 + 1) / 2, (0.75 + 0) / 2
    assert found == [0.5, 0.75, 0.375]


def test_the_model_keeps_its_own_weights_and_what_is_no_parameter_is_the_models():
    model = Number(0.0)
    mean = RunningMean(model, 10)
    run(mean, model, [4.0])
    assert model.value.item() == 4.0
    assert mean.weights()["fixed"].item() == 7.0


def test_a_mean_that_is_stored_and_read_goes_on_as_it_was():
    model, other = Number(0.0), Number(9.0)
    whole, first, second = RunningMean(model, 3), RunningMean(model, 3), RunningMean(other, 3)
    values = [1.0, 2.0, 4.0, 8.0]
    expected = run(whole, model, values)
    model.value.data.fill_(0.0)
    run(first, model, values[:2])
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    assert run(second, other, values[2:], first=3) == expected[2:]


def test_a_window_of_one_step_is_no_mean():
    with pytest.raises(ConfigError, match="ema = 1"):
        ScheduleConfig(ema=1)
