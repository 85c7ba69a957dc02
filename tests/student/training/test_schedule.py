"""Optimiser and learning rate: equal to those of the published training scripts
(`ct3_schedule`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from student.training.schedule import Optimiser, ScheduleConfig
from teachers.errors import ConfigError
from tests.support import parity

PRESETS = {"real": ScheduleConfig.pseudo_label, "kubric": ScheduleConfig.supervised}


class Toy(nn.Module):
    """The module of the case."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.vis_conf_head = nn.Linear(3, 2)
        for name, parameter in self.named_parameters():
            parameter.data = torch.from_numpy(
                parity.uniform(f"sched/{name}", tuple(parameter.shape))
            ).float()

    def set_gradients(self, step: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                gradient = 3 * parity.uniform(f"sched/grad/{step}/{name}", tuple(parameter.shape))
                parameter.grad = torch.from_numpy(gradient).float()

    def flat(self) -> np.ndarray:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()]).numpy()


def rates(config: ScheduleConfig, steps: np.ndarray) -> list[float]:
    """Learning rates of the given steps; only the cycle runs, on a model without gradients."""
    optimiser = Optimiser(Toy(), config)
    found = []
    for _ in range(steps.max() + 1):
        found.append(optimiser.learning_rate)
        optimiser.step()
    return [found[step] for step in steps]


@pytest.mark.parametrize(
    "run", ["real", "kubric", "real_15000", pytest.param("kubric_50000", marks=pytest.mark.slow)]
)
def test_learning_rates_equal_the_published_ones(run):
    case = parity.case("ct3_schedule")
    published = case.meta["runs"][run]
    config = PRESETS[run.partition("_")[0]](steps=published["num_steps"])
    assert (config.learning_rate, config.weight_decay, config.clip_norm) == (
        published["lr"],
        published["wdecay"],
        published["clip_grad_norm"],
    )
    np.testing.assert_allclose(rates(config, case[f"{run}_step"]), case[f"{run}_lr"], rtol=1e-9)


@pytest.mark.parametrize("run", ["real", "kubric"])
def test_the_first_eight_steps_equal_the_published_ones(run):
    case = parity.case("ct3_schedule")
    model = Toy()
    head = "vis_conf_head" if run == "real" else None  # frozen on pseudo-labels
    optimiser = Optimiser(model, PRESETS[run](steps=100), head)
    for step, expected in enumerate(case[f"{run}_params_after"]):
        model.set_gradients(step)
        optimiser.step()
        np.testing.assert_allclose(model.flat(), expected, atol=1e-6)


def test_the_presets_are_the_published_lengths():
    assert ScheduleConfig.pseudo_label().steps == 15_000
    assert ScheduleConfig.supervised().steps == 50_000


def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped():
    def steps(model: Toy, optimiser: Optimiser, numbers: range) -> None:
        for step in numbers:
            model.set_gradients(step)
            optimiser.step()

    config = ScheduleConfig.supervised(steps=20)
    whole = Toy()
    steps(whole, Optimiser(whole, config), range(8))
    first = Toy()
    before = Optimiser(first, config)
    steps(first, before, range(3))
    second = Toy()
    second.load_state_dict(first.state_dict())
    after = Optimiser(second, config)
    after.load_state_dict(before.state_dict())
    steps(second, after, range(3, 8))
    np.testing.assert_array_equal(second.flat(), whole.flat())


def test_several_parts_may_be_frozen():
    model = Toy()
    names = [name for name, _ in model.named_parameters()]
    Optimiser(model, replace(ScheduleConfig.pseudo_label(), frozen=",".join(names[:2])))
    learning = [name for name, each in model.named_parameters() if each.requires_grad]
    assert learning == names[2:]
    for wrong in (f"{names[0]},", f"{names[0]},nowhere"):
        with pytest.raises(ConfigError, match="no parameter of Toy has"):
            Optimiser(Toy(), replace(ScheduleConfig.pseudo_label(), frozen=wrong))


def test_a_frozen_part_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="frozen = 'visibility': no parameter of Toy"):
        Optimiser(Toy(), replace(ScheduleConfig.pseudo_label(), frozen="visibility"))


@pytest.mark.parametrize(
    ("change", "message"), [({"steps": 0}, "steps = 0"), ({"warm_up": 1.0}, "warm_up = 1.0")]
)
def test_settings_that_cannot_be_right_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", 0.0),
        ("clip_norm", -1.0),
        ("clip_norm", float("nan")),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("weight_decay", -1e-5),
        ("spare_steps", -1),
    ],
)
def test_numbers_that_train_nothing_or_backwards_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} = {value}: must be"):
        ScheduleConfig(**{name: value})


@pytest.mark.parametrize(("steps", "warm_up"), [(20, 0.05), (100, 0.01), (2, 0.5)])
def test_a_warm_up_of_one_step_is_none(steps, warm_up):
    one, none = (
        rates(ScheduleConfig(steps=steps, warm_up=share, spare_steps=0), np.arange(steps))
        for share in (warm_up, 0.0)
    )
    assert one == none
