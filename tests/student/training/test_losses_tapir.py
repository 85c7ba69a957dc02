"""TAPIR's losses: equal to those of the published training code, in value and in gradient
(`tapir_loss*`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from student.training.losses import TapirLossConfig
from student.training.losses_tapir import TapirTargets, held_losses, tapir_losses
from tests.support import parity

SETTINGS = {
    "default": (TapirLossConfig(), {}),
    "masked": (TapirLossConfig(), {"weight": "mask"}),
    "no_expected_dist": (TapirLossConfig(distance=0), {}),
    "weights": (TapirLossConfig(position=0.5, far_px=2, huber_px=1), {}),
    "rebalanced": (TapirLossConfig(rebalance=1.5), {}),
    "occlusion_masked": (TapirLossConfig(), {"occlusion_weight": "mask"}),
}


def inputs(
    case: parity.Case, masks: dict[str, str]
) -> tuple[Tensor, TapirTargets, tuple[int, int]]:
    arrays = [case["points"], case["occlusion"][..., None], case["expected_dist"][..., None]]
    steps = torch.from_numpy(np.concatenate(arrays, -1))[None].requires_grad_()
    weights = {name: torch.from_numpy(case[array]) for name, array in masks.items()}
    targets = TapirTargets(
        torch.from_numpy(case["target_points"]),
        torch.from_numpy(case["target_occluded"]),
        **weights,
    )
    return steps, targets, tuple(case.meta["video_shape"][2:4])


@pytest.mark.parametrize("name", ["tapir_loss", "tapir_loss_nonsquare"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_part_and_its_gradient_equal_the_published_ones(name, setting):
    case, (config, masks) = parity.case(name), SETTINGS[setting]
    tolerance = case.meta["tolerance_relative"]
    steps, targets, size = inputs(case, masks)
    losses = tapir_losses(steps, targets, size, config)
    theirs = [case[f"{setting}__{part}"] for part in ("huber", "occlusion", "prob")]
    ours = [losses.position.item(), losses.occlusion.item(), losses.distance.item()]
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    if f"{setting}__grad_points" in case.arrays:
        (gradient,) = torch.autograd.grad(losses.total, steps)
        for place, part in ((slice(0, 2), "points"), (2, "occlusion"), (3, "expected_dist")):
            expected = case[f"{setting}__grad_{part}"]
            np.testing.assert_allclose(
                gradient[0, ..., place],
                expected,
                rtol=tolerance,
                atol=tolerance * np.abs(expected).max(),
            )


def test_steps_add_up():
    steps, targets, size = inputs(parity.case("tapir_loss"), {})
    one, three = (
        tapir_losses(steps, targets, size),
        tapir_losses(torch.cat([steps, steps, steps]), targets, size),
    )
    torch.testing.assert_close(three.total, 3 * one.total)


def test_targets_may_be_nan_where_they_do_not_count():
    steps, targets, size = inputs(parity.case("tapir_loss"), {})
    targets.xy[targets.occluded] = torch.nan
    losses = tapir_losses(steps, targets, size)
    assert losses.position.item() == pytest.approx(
        parity.case("tapir_loss")["default__huber"].item(), rel=1e-9
    )
    (gradient,) = torch.autograd.grad(losses.total, steps)
    assert gradient.isfinite().all()


def test_each_part_has_its_factor_and_its_weight():
    steps, targets, size = inputs(parity.case("tapir_loss"), {})
    plain = tapir_losses(steps, targets, size)
    some = torch.rand(targets.occluded.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    for part, weight in (("occlusion", "occlusion_weight"), ("distance", "distance_weight")):
        twice = tapir_losses(steps, targets, size, TapirLossConfig(**{part: 2.0}))
        halves = [
            getattr(tapir_losses(steps, replace(targets, **{weight: where}), size), part)
            for where in (some, ~some)
        ]
        torch.testing.assert_close(getattr(twice, part), 2 * getattr(plain, part))
        torch.testing.assert_close(sum(halves), getattr(plain, part))
        assert twice.position == plain.position


def test_what_is_held_pulls_back_to_where_it_was_and_not_from_there():
    steps, _, _ = inputs(parity.case("tapir_loss"), {})
    before, weight = steps.detach().clone(), torch.ones(steps.shape[1])

    def pull(shift: float) -> Tensor:
        return torch.autograd.grad(
            sum(held_losses(steps + shift, before, weight, TapirLossConfig())), steps
        )[0]

    assert pull(0.0).abs().max() < 1e-9
    assert (pull(0.5)[..., 2:] > 0).all()
    assert (pull(-0.5)[..., 2:] < 0).all()
    assert not pull(0.5)[..., :2].any()
